"""The service at a developer's terminal: readable lines, one line for each fault, and a quiet Ctrl-C."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.accounts import PASSWORD
from tests.support.command_line import run
from tests.support.key_pairs import key, private
from tests.support.processes import PATIENCE, command, forked, free_port, serving, wait_for, wait_until_ready
from tests.support.terminal import Terminal, at_terminal

WAYS = [[], ["--workers", "2"], ["--reload"]]
CANARY = "canary"
SHOW_IMPORTS = ["-X", "importtime"]


@pytest.fixture
def taken() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


@pytest.mark.parametrize("options", WAYS, ids=" ".join)
def test_a_port_in_use_is_one_line(taken: socket.socket, sqlite_url: str, options: list[str]) -> None:
    with taken:
        port = str(taken.getsockname()[1])
        refused = run("serve", "--port", port, *options, database_url=sqlite_url)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == f"error: cannot listen on port {port} of 127.0.0.1: address already in use\n"


def test_a_host_that_is_not_here_is_one_line(sqlite_url: str) -> None:
    refused = run("serve", "--host", "192.0.2.1", database_url=sqlite_url, public_url="https://example.com")

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert re.fullmatch(r"error: cannot listen on port 8000 of 192\.0\.2\.1: .+\n", refused.stderr)


def test_a_port_taken_during_the_start_is_one_line(sqlite_url: str) -> None:
    """Two processes may bind one port, but only one of them may listen. The service reads its keys before each step."""
    keys, shown, errors = Path("keys.pem"), Path("shown"), Path("errors")
    os.mkfifo(keys, 0o600)
    with closing(socket.socket()) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        settings = {"database_url": sqlite_url, "jwt_private_key_file": keys, "log_format": "console"}
        with forked(port=other.getsockname()[1], stdout=shown, stderr=errors, **settings) as process:
            keys.write_text(private(key("ES256")))
            wait_for(lambda: "at the newest migration" in shown.read_text())
            other.listen()
            keys.write_text(private(key("ES256")))
            code = process.wait(PATIENCE)

    assert (code, shown.read_text().count("\n")) == (3, 1)
    assert errors.read_text().splitlines()[-1] == "error: cannot listen: Address already in use"
    assert "Traceback" not in errors.read_text()


@pytest.mark.parametrize(
    ("options", "end"),
    list(zip(WAYS, [Terminal.interrupt, Terminal.interrupt, Terminal.terminate], strict=True)),
    ids=["one process", "workers", "reload"],
)
def test_the_announcement_comes_once_connections_are_accepted(
    sqlite_url: str, options: list[str], end: Callable[[Terminal], int]
) -> None:
    """It serves from then on, until it is told to end."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with at_terminal("app", "serve", "--port", str(port), *options, database_url=sqlite_url) as terminal:
        terminal.read_until(f"Serving on {url}, docs at ")
        metadata = httpx2.get(f"{url}/.well-known/oauth-authorization-server").json()
        ada = {"username": "ada", "password": PASSWORD}
        registered = httpx2.post(f"{url}/users", json=ada).status_code
        logins = [httpx2.post(f"{url}/auth/token", data=ada).status_code for _ in range(4)]
        code = end(terminal)

    assert metadata["issuer"] == url
    assert (registered, logins) == (201, [200] * 4)
    assert code in {0, -signal.SIGTERM}
    assert terminal.shown.count("Serving on") == 1


def test_a_misspelt_setting_is_named(sqlite_url: str, taken: socket.socket) -> None:
    Path(".env").write_text("REGISTRATON=closed\n")
    with taken:
        refused = run("serve", "--port", str(taken.getsockname()[1]), database_url=sqlite_url)

    warning, _ = refused.stderr.splitlines()
    assert warning == "warning: .env: REGISTRATON is not a setting: did you mean REGISTRATION?"


def test_public_url_follows_host_and_port_unless_it_is_set(sqlite_url: str) -> None:
    port = free_port()
    Path("public_url").write_text("https://b.example\n")
    ways: list[tuple[dict[str, Any], str]] = [
        ({}, f"http://localhost:{port}"),
        ({"public_url": "https://a.example"}, "https://a.example"),
        ({"public_url_file": "public_url"}, "https://b.example"),
    ]
    for settings, issuer in ways:
        with serving("app", "serve", "--host", "localhost", port=port, database_url=sqlite_url, **settings):
            url = f"http://localhost:{port}/.well-known/oauth-authorization-server"
            assert httpx2.get(url).json()["issuer"] == issuer


@pytest.mark.parametrize(
    ("python", "options", "moment"),
    [
        (SHOW_IMPORTS, [], "sqlalchemy"),
        ([], [], "at the newest migration"),
        ([], [], "Waiting for application startup"),
        ([], ["--reload"], "Started reloader process"),
        ([], ["--workers", "2"], "starts 2 workers"),
    ],
    ids=["imports", "migrated", "starting", "reload", "workers"],
)
def test_ctrl_c_during_the_start_is_quiet(sqlite_url: str, python: list[str], options: list[str], moment: str) -> None:
    words = ["app", "serve", "--port", str(free_port()), *options]
    with at_terminal(*words, options=python, database_url=sqlite_url) as terminal:
        terminal.read_until(moment)
        code = terminal.interrupt()

    assert code in {0, 130}
    assert "Traceback" not in terminal.shown
    assert "Serving on" not in terminal.shown


def test_a_terminal_gets_lines_for_people(sqlite_url: str) -> None:
    words = ["app", "serve", "--port", str(port := free_port())]
    with at_terminal(*words, database_url=sqlite_url, log_requests=True) as terminal:
        terminal.read_until("Serving on")
        httpx2.get(f"http://127.0.0.1:{port}/tasks")
        httpx2.get(f"http://127.0.0.1:{port}/sign%1B%0Aup{'x' * 99}/{CANARY}")
        terminal.read_until("status=404")
        code = terminal.interrupt()

    assert code == 0
    found, missing = re.findall(r"^(\d\d:\d\d:\d\d) request method=GET (.*)$", terminal.shown, re.MULTILINE)
    assert found[1].startswith("route=/tasks status=200 ")
    assert " path=" not in found[1]
    assert missing[1].startswith("status=404 ")
    assert missing[1].endswith(' path="/sign\\u001b\\nup' + "x" * 32 + '"')
    assert CANARY not in terminal.shown


def test_a_log_that_is_no_terminal_gets_json(sqlite_url: str, tmp_path: Path) -> None:
    with serving("app", "serve", log=tmp_path / "log", database_url=sqlite_url, log_requests=True) as url:
        httpx2.get(f"{url}/{CANARY}")

    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (line,) = [line for line in lines if line.get("event") == "request"]
    assert (line["route"], line["status"]) == (None, 404)
    assert CANARY not in str(lines)


@pytest.mark.long
def test_ctrl_c_does_not_wait_for_a_collector_that_is_away(sqlite_url: str) -> None:
    tracing = {"fastapi_otel_auto_configure": "true", "otel_exporter_otlp_endpoint": "http://127.0.0.1:9"}
    port = free_port()
    with command("app", "serve", "--port", str(port), database_url=sqlite_url, **tracing) as process:
        wait_until_ready(url := f"http://127.0.0.1:{port}", process)
        httpx2.get(f"{url}/tasks")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        seconds = time.monotonic() - began

    assert seconds < 15, "it took 20 with OpenTelemetry's own patience"
