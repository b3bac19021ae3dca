"""Starting the service, as the README says and all at once."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import URL
from typer.testing import CliRunner

from app.__main__ import cli
from tests.conftest import SECRET, new_database
from tests.support.accounts import PASSWORD
from tests.support.processes import command, environment, forked, free_port, services, wait_until_live, wait_until_ready

SCHEMA_BEHIND = "The database's schema is not this version's: run python -m app migrate"
ADA = {"username": "ada", "password": PASSWORD}


def test_with_nothing_configured_it_serves_and_says_what_to_try() -> None:
    port = free_port()
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with command("app", "serve", "--port", str(port), stderr=subprocess.DEVNULL) as process:
        signal.signal(signal.SIGHUP, hangup)
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process)
        process.send_signal(signal.SIGHUP)
        assert process.stdout is not None
        lines = [next(process.stdout) for _ in range(4)]
        body = json.loads(lines[2].partition("-d '")[2].removesuffix("'\n"))

        registered = httpx2.post(f"{url}/users", json=body)
        logged_in = httpx2.post(f"{url}/auth/token", data=body)

    assert lines[1].startswith(f"Serving on {url}, docs at {url}/docs")
    assert lines[3].startswith(f"  curl {url}/auth/token -F username=ada")
    assert registered.status_code == 201
    assert logged_in.status_code == 200
    assert Path("tasks.db.secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "words", [("app", "serve"), pytest.param(("uvicorn", "app.main:app"), marks=pytest.mark.long)], ids=" ".join
)
def test_processes_that_start_at_once_share_schema_and_secret(
    words: tuple[str, ...],
) -> None:
    """They start in an empty folder."""
    with services(3, *words) as urls:
        assert httpx2.post(f"{urls[0]}/users", json=ADA).status_code == 201
        token = httpx2.post(f"{urls[1]}/auth/token", data=ADA).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        answers = [httpx2.get(f"{url}/tasks/mine", headers=headers).status_code for url in urls]

    assert answers == [200] * 3
    assert {path.name for path in Path.cwd().iterdir()} == {"tasks.db", "tasks.db.secret"}


def test_postgresql_is_never_migrated_by_itself(postgres_server: URL) -> None:
    with new_database(postgres_server) as database:
        settings: dict[str, Any] = {
            "database_url": database.render_as_string(hide_password=False),
            "secret_key": SECRET,
        }
        port = free_port()
        with forked(port=port, **settings) as process:
            wait_until_live(url := f"http://127.0.0.1:{port}", process)
            first = process.output().splitlines()[0]
            live = httpx2.get(f"{url}/health/live")
            behind = httpx2.get(f"{url}/health/ready")
            unready = httpx2.get(f"{url}/tasks/")
            migrate = CliRunner().invoke(cli, ["migrate"], env=environment(**settings))
            ready = httpx2.get(f"{url}/health/ready")

    assert first == "PostgreSQL is not at the newest migration: run python -m app migrate"
    assert live.status_code == 200
    assert behind.status_code == unready.status_code == 503
    assert behind.json() == unready.json() == {"detail": SCHEMA_BEHIND, "code": "schema_behind"}
    assert migrate.stdout == "The schema is at the newest migration, and searches find every task.\n"
    assert ready.json() == {"status": "ok"}


def test_postgresql_may_be_away_at_the_start() -> None:
    settings: dict[str, Any] = {"database_url": "postgresql://nobody@127.0.0.1:1/none", "secret_key": SECRET}
    port = free_port()
    with forked(port=port, **settings) as process:
        wait_until_live(url := f"http://127.0.0.1:{port}", process)
        first = process.output().splitlines()[0]
        ready = httpx2.get(f"{url}/health/ready")

    away = "The database is not available: 127.0.0.1:1: Connection refused"
    assert first == f"{away}; /health/ready says when it works."
    assert ready.status_code == 503
    assert ready.json() == {"detail": "The database is not available", "code": "database_unavailable"}
    assert ready.headers["Retry-After"] == "1"
