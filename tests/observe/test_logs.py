"""The lines on standard error, in JSON or for people. Nothing that was sent can forge one."""

import io
import json
import logging
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import make_url

from app.config import LogFormat
from app.observe.logs import FORMATTERS, Line, configure_logging
from tests.conftest import execute
from tests.support.accounts import PASSWORD
from tests.support.hostile import FORGED, FORGED_LOG_LINES
from tests.support.processes import Process, command, forked, free_port, wait_until_ready

TIME = r"\d\d:\d\d:\d\d"
FAILING = """CREATE TRIGGER failing BEFORE INSERT ON sessions BEGIN SELECT RAISE(ABORT, 'x
{"event": "forged"}'); END"""


def logged(log_format: LogFormat, evil: str) -> str:
    """As one logs an event, a warning and an error that say this."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(FORMATTERS[log_format]())
    logger = logging.Logger("app.test")  # noqa: LOG001 - of its own, so that nobody else hears it
    logger.addHandler(handler)
    logger.info(Line({"time": "now", "event": "login_failed", "ip": evil, "user_id": None, "session_id": ""}))
    logger.warning("unavailable: %s", evil)
    try:
        dict[str, str]()[evil]
    except KeyError:
        logger.exception("failed: %s", evil)
    return stream.getvalue()


@pytest.mark.parametrize("name", FORGED_LOG_LINES)
def test_nothing_that_is_said_forges_a_line_of_json(name: str) -> None:
    lines = logged("json", FORGED_LOG_LINES[name]).splitlines()
    event, warning, error = map(json.loads, lines)

    assert all(line.isascii() and line.isprintable() for line in lines)
    assert event == {
        "time": "now",
        "event": "login_failed",
        "ip": FORGED_LOG_LINES[name],
        "user_id": None,
        "session_id": "",
    }
    assert warning.keys() == {"time", "level", "logger", "message"}
    assert (warning["level"], warning["logger"]) == ("WARNING", "app.test")
    assert warning["message"] == f"unavailable: {FORGED_LOG_LINES[name]}".rstrip()
    assert error["message"] == f"failed: {FORGED_LOG_LINES[name]}".rstrip()
    assert error["traceback"].startswith("Traceback (most recent call last):\n")


@pytest.mark.parametrize("name", FORGED_LOG_LINES)
def test_nothing_that_is_said_forges_a_line_for_people(name: str) -> None:
    lines = logged("console", FORGED_LOG_LINES[name]).splitlines()

    event, warning, error, *traceback = lines
    assert all(line.isprintable() for line in lines)
    assert json.loads(event[len("12:34:56") :].removeprefix(" login_failed ip=")) == FORGED_LOG_LINES[name]
    assert re.match(f"{TIME} WARNING app.test: unavailable: ", warning)
    assert re.match(f"{TIME} ERROR app.test: failed: ", error)
    assert traceback[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in traceback)


def test_for_people_what_is_plain_is_plain() -> None:
    line = Line({"time": "now", "event": "request", "route": "/tasks/{task_id}", "status": 200, "ms": 1.5, "x": "a b"})
    record = logging.LogRecord("app.http.request_log", logging.INFO, "", 0, line, (), None)

    formatted = FORMATTERS["console"]().format(record)

    assert re.sub(f"^{TIME}", "now", formatted) == 'now request route=/tasks/{task_id} status=200 ms=1.5 x="a b"'


def test_logging_that_is_configured_already_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "app")
    before = list(logging.getLogger().handlers)

    configure_logging("console")

    assert before
    assert logging.getLogger().handlers == before


@contextmanager
def start(*words: str, log: Path, port: int, **settings: object) -> Iterator[Process]:
    """Fork `serve`, and start uvicorn as a shell does, with its imports: their warnings would go to the log."""
    if words == ("app", "serve"):
        with forked(*words, port=port, stdout=Path(os.devnull), stderr=log, **settings) as fork:
            yield fork
    else:
        words = (*words, "--port", str(port))
        with (
            log.open("w") as stderr,
            command(*words, stdout=subprocess.DEVNULL, stderr=stderr, **settings) as process,
        ):
            yield process


@pytest.mark.parametrize(
    ("words", "log_format"),
    [
        (["app", "serve"], "console"),
        (["uvicorn", "app.main:app"], "json"),
        pytest.param(["app", "serve", "--workers", "2"], "json", marks=pytest.mark.long),
        pytest.param(["uvicorn", "app.main:app"], "console", marks=pytest.mark.long),
    ],
)
def test_a_process_writes_nothing_else(
    words: list[str], log_format: LogFormat, sqlite_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "stderr.log"
    execute(make_url(sqlite_url), FAILING)

    settings = {"database_url": sqlite_url, "log_format": log_format, "log_requests": True}
    url = f"http://127.0.0.1:{(port := free_port())}"
    with start(*words, log=log, port=port, **settings) as process:
        wait_until_ready(url, process)
        ada = {"username": "ada", "password": PASSWORD}
        assert httpx2.post(f"{url}/users", json=ada, params={"access_token": "canary"}).status_code == 422
        assert httpx2.post(f"{url}/users", json=ada).status_code == 201
        assert httpx2.post(f"{url}/auth/token", data=ada).status_code == 500

    lines = log.read_text().splitlines()
    assert not any("canary" in line or line.startswith(FORGED) for line in lines)
    if log_format == "json":
        said = [json.loads(line) for line in lines]
        told = [(each["method"], each["route"], each["status"]) for each in said if each.get("event") == "request"]
        assert told == [("POST", "/users", 422), ("POST", "/users", 201), ("POST", "/auth/token", 500)]
        [error] = [each for each in said if each.get("level") == "ERROR"]
        assert "forged" in error["traceback"]
    else:
        assert all(re.match(rf"{TIME} \w+ |    ", line) for line in lines)
        *_, login = [line for line in lines if re.match(f"{TIME} request method=POST ", line)]
        assert re.search(r" route=/auth/token status=500 ms=[0-9.]+ request_id=[0-9a-f]+ ip=127.0.0.1$", login)
        assert any("forged" in line for line in lines)
