"""python -m app: every error is one line and an exit code."""

import asyncio
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import make_url

from app import __version__
from app.cli.run import with_database
from app.config import Settings
from app.db.database import Database
from app.db.errors import DatabaseUnavailable
from tests.conftest import SECRET, execute, on_one_database
from tests.support.accounts import EVERY_SCOPE, PASSWORD, log_in
from tests.support.command_line import run
from tests.support.forks import Fork
from tests.support.processes import PATIENCE, environment, free_port, wait_for
from tests.support.terminal import at_terminal

QUICK = [
    "--help",
    "--version",
    "users --help",
    "serve --help",
    "check --help",
    "users add",
    "sessions revoke ada --session x",
    "demo --users 0",
    "serve --port 0",
    "no-such-command",
]
LOOK = """
import sys
from app.__main__ import cli

for words in sys.argv[1].split(","):
    try:
        cli(words.split())
    except SystemExit:
        pass
slow = sys.argv[2].split(",")
print([name for name in slow if name in sys.modules], file=sys.stderr)
"""
SLOW = ["alembic", "asyncio", "cryptography", "fastapi", "jose", "pydantic", "sqlalchemy", "uvicorn"]


def test_the_first_administrator_is_made_here(client: TestClient, database_url: str) -> None:
    added = run("users", "add", "root", "--admin", stdin=f"{PASSWORD}\n", database_url=database_url, secret_key=SECRET)

    assert (added.exit_code, added.stdout) == (0, "Added root.\n")
    assert log_in(client, "root").scope == EVERY_SCOPE


@pytest.mark.parametrize(
    ("name", "password", "message"),
    [
        ("ADA", PASSWORD, "The username is taken"),
        ("eve", "password123", "The password is on the list of common passwords"),
        ("eve", "short", "password: String should have at least 8 characters"),
        ("x", PASSWORD, "username: String should have at least 3 characters"),
    ],
    ids=["taken", "common", "short", "name"],
)
def test_a_user_who_cannot_be_added_is_refused(sqlite_url: str, name: str, password: str, message: str) -> None:
    run("users", "add", "ada", stdin=PASSWORD, database_url=sqlite_url)

    refused = run("users", "add", name, stdin=f"{password}\n", database_url=sqlite_url)

    assert (refused.exit_code, refused.stderr) == (1, f"error: {message}\n")


def test_a_database_that_cannot_be_opened_is_one_line(sqlite_url: str) -> None:
    with Path("tasks.db").open("r+b") as file:
        file.seek(18)  # fileformat.html §1.3.3: versions to write and to read that nobody knows yet
        file.write(b"\x09\x09")

    refused = run("serve", "--port", str(free_port()), database_url=sqlite_url)

    assert (refused.exit_code, refused.stderr) == (1, "error: The database's file is damaged: restore a backup\n")


def test_a_database_that_is_away_is_one_line() -> None:
    refused = run("users", "list", database_url="postgresql://ada:l0velace@127.0.0.1:1/tasks", secret_key=SECRET)

    away = "The database is not available: 127.0.0.1:1: Connection refused"
    assert (refused.exit_code, refused.stderr) == (1, f"error: {away}\n")


def test_a_damaged_secret_is_one_line(sqlite_url: str) -> None:
    Path("tasks.db.secret").touch(0o600)

    refused = run("serve", "--port", str(free_port()), database_url=sqlite_url)

    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"error: {Path.cwd()}/tasks.db.secret is damaged: it must have at least 32 bytes")


def test_a_terminal_asks_twice_for_the_password_and_hides_it(sqlite_url: str) -> None:
    with at_terminal("app", "users", "add", "ada", database_url=sqlite_url) as terminal:
        for prompt in "Password: ", "Repeat for confirmation: ":
            terminal.read_until(prompt)
            terminal.press(PASSWORD.encode() + b"\n")
        code = terminal.end()

    assert code == 0
    assert "Added ada." in terminal.shown
    assert PASSWORD not in terminal.shown


@pytest.mark.rfc("6749", "1.6")
def test_a_public_url_in_clear_is_warned_of(sqlite_url: str) -> None:
    """RFC 6749 §1.6. The secret is damaged, so that nothing is served."""
    for url, is_warned in (
        ("http://example.com", True),
        ("https://example.com", False),
        ("http://localhost:8000", False),
    ):
        Path("tasks.db.secret").touch(0o600)
        assert (
            "warning: PUBLIC_URL is not https" in run("serve", database_url=sqlite_url, public_url=url).stderr
        ) == is_warned


def test_a_public_url_that_others_cannot_reach_is_warned_of(sqlite_url: str) -> None:
    def warned(host: str, **settings: str) -> bool:
        Path("tasks.db.secret").touch(0o600)
        return (
            "PUBLIC_URL is for this host alone"
            in run("serve", "--host", host, database_url=sqlite_url, **settings).stderr
        )

    assert [warned(host) for host in ("0.0.0.0", "::")] == [True] * 2
    assert [warned(host) for host in ("127.0.0.1", "::1", "localhost")] == [False] * 3
    assert not warned("0.0.0.0", public_url="https://example.com")


@pytest.mark.parametrize(
    "words",
    [
        ("users", "list"),
        ("users", "add", "root"),
        ("sessions", "list", "root"),
        ("purge",),
        ("migrate",),
        ("demo", "--tasks", "1"),
    ],
    ids=" ".join,
)
def test_in_a_new_folder_a_database_is_made(words: tuple[str, ...]) -> None:
    done = run(*words, stdin=f"{PASSWORD}\n")

    is_missing = words[0] == "sessions"
    assert (done.exit_code, done.stderr) == ((1, "error: User not found\n") if is_missing else (0, ""))
    assert Path("tasks.db").exists()


@pytest.mark.parametrize("words", ["serve --port 0", "serve --port 65536", "purge --keep-days 999999999"])
def test_a_number_that_is_out_of_range_is_refused(words: str) -> None:
    assert run(*words.split()).exit_code == 2


def test_an_interrupt_does_not_say_that_the_database_is_away(postgres_url: str) -> None:
    environ = environment(database_url=postgres_url, secret_key=SECRET)
    with closing(Fork("app", "demo", "--tasks", "1000000", environ=environ)) as process:
        wait_for(lambda: process.poll() is not None or execute(make_url(postgres_url), "SELECT 1 FROM tasks LIMIT 1"))
        process.send_signal(signal.SIGINT)
        code = process.wait(PATIENCE)
        assert "available" not in process.output()

    assert code == 130


def test_an_interrupt_is_quiet_while_the_commands_are_loaded() -> None:
    words = [sys.executable, "-X", "importtime", "-m", "app", "--version"]
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child ignores the signal if its parent does
    try:
        process = subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, ours)
    with process:
        assert process.stderr is not None
        next(line for line in process.stderr if "typer." in line)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert "Traceback" not in rest
    assert process.returncode == -signal.SIGINT


@on_one_database
def test_an_interrupt_that_the_driver_calls_a_timeout_is_one(settings: Settings) -> None:
    """asyncpg does so at some moments."""

    async def interrupted(_: Database) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        raise DatabaseUnavailable

    with pytest.raises(asyncio.CancelledError):
        with_database(settings, interrupted)


def test_a_bad_setting_is_one_line() -> None:
    refused = run("serve", database_url="postgresql://localhost/tasks")

    line = "error: SECRET_KEY must be given with PostgreSQL, the same to every process\n"
    assert (refused.exit_code, refused.stderr) == (2, line)


def test_the_version_is_printed() -> None:
    assert run("--version").stdout == f"{__version__}\n"


@pytest.mark.parametrize("words", [(), ("users",), ("users", "add"), ("serve",), ("keys", "list")], ids=" ".join)
def test_help_has_a_short_option(words: tuple[str, ...]) -> None:
    short = run(*words, "-h")

    assert (short.exit_code, short.stderr) == (0, "")
    assert short.stdout == run(*words, "--help").stdout


def test_help_and_typing_errors_import_nothing_slow() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, ",".join(QUICK), ",".join(SLOW)],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr.splitlines()[-1] == "[]"
