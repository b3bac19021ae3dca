"""A service for each test, on a fresh database that the migrations made: SQLite, and then PostgreSQL again."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import URL, make_url

from app.auth.passwords import Cost
from app.config import Settings
from app.database import connect
from app.main import create_app
from app.migrations import upgrade
from tests import postgres

pytest_plugins = ["pytester"]

SECRET = "a-key-for-tests-only-0123456789abcdef"
CHEAP = Cost(memory=8, passes=1)


class MovableClock:
    """The service's clock: it stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        """Move by a timedelta's keywords: `clock.move(minutes=30)`."""
        self.now += timedelta(**by)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the developer's environment nor a .env file reaches a test."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "tasks.db"
    asyncio.run(_migrate(make_url(f"sqlite:///{path}")))
    return path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """The server of TEST_DATABASE_URL, where every database we touch is one we have made; else a throwaway one."""
    with ExitStack() as stack:
        url = os.environ.get("TEST_DATABASE_URL")
        if url is None:
            try:
                url = stack.enter_context(postgres.server())
            except FileNotFoundError as error:
                (pytest.fail if "CI" in os.environ else pytest.skip)(f"no PostgreSQL: {error}")
        yield make_url(url)


@pytest.fixture(scope="session")
def postgres_template(postgres_server: URL) -> Iterator[URL]:
    url = _create_database(postgres_server)
    asyncio.run(_migrate(url))
    yield url
    _execute(postgres_server, f'DROP DATABASE "{url.database}"')


@pytest.fixture
def postgres_url(postgres_server: URL, postgres_template: URL) -> Iterator[str]:
    """A migrated PostgreSQL database of the test's own."""
    url = _create_database(postgres_server, postgres_template.database)
    yield url.render_as_string(hide_password=False)
    _execute(postgres_server, f'DROP DATABASE "{url.database}" WITH (FORCE)')


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of the test's own."""
    shutil.copy(sqlite_template, tmp_path / "tasks.db")
    return f"sqlite:///{tmp_path}/tasks.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of the test's own; the test runs on each kind."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(database_url=database_url, secret_key=SECRET)


Serve = Callable[..., TestClient]
Sql = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture
def serve(settings: Settings, clock: MovableClock) -> Iterator[Serve]:
    """Start a service with other settings than the usual: `serve(refresh_grace=0)`. They share one database."""
    with ExitStack() as stack:

        def start(**changes: Any) -> TestClient:
            changed = Settings.model_validate(settings.model_dump() | changes)
            return stack.enter_context(TestClient(create_app(changed, clock=clock, password_cost=CHEAP)))

        yield start


@pytest.fixture
def client(serve: Serve) -> TestClient:
    return serve()


@pytest.fixture
def sql(database_url: str) -> Sql:
    """Run a statement on the test's database, past the service."""
    return lambda statement: _execute(make_url(database_url), statement)


async def _migrate(url: URL) -> None:
    async with connect(url) as database:
        await database.write(upgrade)


def _create_database(server: URL, template: str | None = "template1") -> URL:
    url = server.set(database=f"bearer_tasks_test_{uuid4().hex}")
    _execute(server, f'CREATE DATABASE "{url.database}" TEMPLATE "{template}"')
    return url


def _execute(url: URL, statement: str) -> list[tuple[Any, ...]]:
    if url.drivername == "sqlite":
        connection = sqlite3.connect(str(url.database), isolation_level=None)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    async def run() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(url.render_as_string(hide_password=False))
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(run())
