"""The service at a developer's terminal: readable lines, one line for each fault, and a quiet Ctrl-C."""

import json
import re
import signal
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from tests.support.command_line import run
from tests.support.processes import command, free_port, serving, wait_until_ready
from tests.support.terminal import at_terminal

WAYS = [[], ["--workers", "2"], ["--reload"]]
CANARY = "canary"
IMPORTS_SHOWN = ["-X", "importtime", "-m"]


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
    """Two processes may bind one port, but only one of them may listen."""
    with closing(socket.socket()) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        port = str(other.getsockname()[1])
        with command(
            "app", "serve", "--port", port, stderr=subprocess.PIPE, database_url=sqlite_url, log_format="console"
        ) as process:
            assert process.stdout is not None
            next(process.stdout)
            other.listen()
            shown, errors = process.communicate(timeout=60)

    assert (process.returncode, shown) == (3, "")
    assert errors.splitlines()[-1] == "error: cannot listen: Address already in use"
    assert "Traceback" not in errors


@pytest.mark.parametrize("options", WAYS, ids=" ".join)
def test_the_announcement_comes_once_connections_are_accepted(sqlite_url: str, options: list[str]) -> None:
    port = free_port()
    with command("app", "serve", "--port", str(port), *options, database_url=sqlite_url) as process:
        assert process.stdout is not None
        url = next(found[1] for line in process.stdout if (found := re.match(r"Serving on (\S+), docs at ", line)))
        metadata = httpx2.get(f"{url}/.well-known/oauth-authorization-server").json()
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[0]

    assert url == metadata["issuer"] == f"http://127.0.0.1:{port}"
    assert "Serving on" not in rest


def test_a_misspelt_setting_is_named(sqlite_url: str, taken: socket.socket) -> None:
    Path(".env").write_text("REGISTRATON=closed\n")
    with taken:
        refused = run("serve", "--port", str(taken.getsockname()[1]), database_url=sqlite_url)

    warning, _ = refused.stderr.splitlines()
    assert warning == "warning: .env: REGISTRATON is not a setting: did you mean REGISTRATION?"


def test_public_url_follows_host_and_port_unless_it_is_set(sqlite_url: str) -> None:
    port = free_port()
    for settings, issuer in (
        ({}, f"http://localhost:{port}"),
        ({"public_url": "https://a.example"}, "https://a.example"),
    ):
        words = ["app", "serve", "--host", "localhost", "--port", str(port)]
        with command(*words, database_url=sqlite_url, **settings) as process:
            wait_until_ready(f"http://127.0.0.1:{port}", process)
            url = f"http://localhost:{port}/.well-known/oauth-authorization-server"
            assert httpx2.get(url).json()["issuer"] == issuer


@pytest.mark.parametrize(
    ("words", "moment"),
    [
        ([*IMPORTS_SHOWN, "app", "serve"], "sqlalchemy"),
        (["-m", "app", "serve"], "at the newest migration"),
        (["-m", "app", "serve"], "Waiting for application startup"),
        (["-m", "app", "serve", "--reload"], "Started reloader process"),
        (["-m", "app", "serve", "--workers", "2"], "Started parent process"),
    ],
    ids=["imports", "migrated", "starting", "reload", "workers"],
)
def test_ctrl_c_during_the_start_is_quiet(sqlite_url: str, words: list[str], moment: str) -> None:
    with at_terminal(*words, "--port", str(free_port()), database_url=sqlite_url) as terminal:
        terminal.read_until(moment)
        code = terminal.interrupt()

    assert code in {0, 130}
    assert "Traceback" not in terminal.shown
    assert "Serving on" not in terminal.shown


def test_a_terminal_gets_lines_for_people(sqlite_url: str) -> None:
    words = ["-m", "app", "serve", "--port", str(port := free_port())]
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
