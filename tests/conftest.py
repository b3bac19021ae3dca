"""A service for each test, on a fresh database that the migrations made: SQLite, and then PostgreSQL again."""

import asyncio
import os
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import URL, make_url

from app.auth.passwords import Cost
from app.config import Settings
from app.engines import connect
from app.main import create_app
from app.migrations import upgrade
from tests import postgres

pytest_plugins = ["pytester"]

SECRET = "a-key-for-tests-only-0123456789abcdef"
CHEAP = Cost(memory=8, passes=1)
Serve = Callable[..., TestClient]
Sql = Callable[[str], list[tuple[Any, ...]]]

WRAPPED = ("root_path", "public_url", "trusted_proxies", "allowed_hosts", "cors_origins")  # what middleware is made of


on_one_database = pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True
)
"""For what depends little on the database: on the other one at length."""


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
    asyncio.run(migrate(make_url(f"sqlite:///{path}")))
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
def postgres_database(postgres_server: URL) -> Iterator[URL]:
    """A migrated database, made once: PostgreSQL takes 300 ms to copy one, and one to empty it."""
    with new_database(postgres_server) as url:
        asyncio.run(migrate(url))
        yield url


@pytest.fixture(scope="session")
def postgres_sql(postgres_database: URL) -> Iterator[Sql]:
    """Run a statement on the PostgreSQL database, over one connection: to make one takes 10 ms."""
    with asyncio.Runner() as runner:
        url = postgres_database.render_as_string(hide_password=False)
        named = {"application_name": "tests"}
        connection = runner.run(asyncpg.connect(url, statement_cache_size=0, command_timeout=60, server_settings=named))
        yield lambda statement: [tuple(row) for row in runner.run(connection.fetch(statement))]
        runner.run(connection.close())


@pytest.fixture
def postgres_url(postgres_database: URL, postgres_sql: Sql) -> str:
    """A migrated, empty PostgreSQL database."""
    postgres_sql("WITH none AS (DELETE FROM throttle) DELETE FROM users")
    return postgres_database.render_as_string(hide_password=False)


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


@pytest.fixture(scope="session")
def closed_apps() -> defaultdict[str, list[FastAPI]]:
    """Apps that another test is done with, by what they are wrapped in: FastAPI takes 40 ms to make each ready."""
    return defaultdict(list)


@pytest.fixture
def serve(settings: Settings, clock: MovableClock, closed_apps: defaultdict[str, list[FastAPI]]) -> Iterator[Serve]:
    """Start a service with other settings than the usual: `serve(refresh_grace=0)`. They share one database."""
    with ExitStack() as stack:

        def start(**changes: Any) -> TestClient:
            changed = Settings.model_validate(settings.model_dump() | changes)
            closed = closed_apps[repr([changes.get(name) for name in WRAPPED])]
            app = closed.pop() if closed else create_app(changed, clock=clock, password_cost=CHEAP)
            app.state.settings, app.state.clock = changed, clock
            stack.callback(closed.append, app)
            return stack.enter_context(TestClient(app, headers={"X-Request-ID": "test"}))

        yield start


@pytest.fixture
def client(serve: Serve) -> TestClient:
    return serve()


@pytest.fixture
def sql(request: pytest.FixtureRequest, database_url: str) -> Sql:
    """Run a statement on the test's database, past the service."""
    url = make_url(database_url)
    if url.drivername == "sqlite":
        return lambda statement: execute(url, statement)
    postgres_sql: Sql = request.getfixturevalue("postgres_sql")
    return postgres_sql


async def migrate(url: URL) -> None:
    async with connect(url) as database:
        await database.write(upgrade)


@contextmanager
def new_database(server: URL) -> Iterator[URL]:
    """A PostgreSQL database that is dropped in the end."""
    url = server.set(database=f"bearer_tasks_test_{uuid4().hex}")
    execute(server, f'CREATE DATABASE "{url.database}"')
    yield url
    execute(server, f'DROP DATABASE "{url.database}" WITH (FORCE)')


def execute(url: URL, statement: str) -> list[tuple[Any, ...]]:
    if url.drivername == "sqlite":
        connection = sqlite3.connect(str(url.database), isolation_level=None)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    async def run() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(url.render_as_string(hide_password=False), command_timeout=60)
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(run())
