"""A service for each test, on a fresh database that the migrations made: SQLite, and then PostgreSQL again."""

import asyncio
import gc
import inspect
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, cast

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2._transports import default as transports
from sqlalchemy import URL, make_url

from app.config import Settings
from app.db.testing import migrate, new_database
from app.testing import CHEAP, SECRET, MakeApp, MovableClock, Serve
from tests.support import postgres
from tests.support.transport import quicken

__all__ = ["CHEAP", "SECRET", "MovableClock", "Serve", "migrate", "new_database"]

pytest_plugins = ["app.testing", "pytester", "tests.support.rfc", "tests.support.statement_cache"]

Sql = Callable[[str], list[tuple[Any, ...]]]

MEMORY = Path("/dev/shm")

CLIENT_SECONDS = 60  # a machine may be slow: this is for what hangs, where httpx2 would give up after five

on_one_database = pytest.mark.on_one_database
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def pytest_configure() -> None:
    """Keep the environment out, and the tests' databases in memory: SQLite waits for the disk at each commit."""
    for name in Settings.model_fields:
        for form in name.upper(), f"{name.upper()}_FILE":
            os.environ.pop(form, None)  # the developer's settings reach no test
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2**30:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for a job in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # or the processes that tests start would ignore it
    vars(transports)["create_ssl_context"] = cache(httpx2.create_ssl_context)  # each client made one, in 35 ms
    usual = inspect.signature(httpx2.Client).parameters["timeout"].default
    usual.connect = usual.read = usual.write = usual.pool = CLIENT_SECONDS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test with a database on both. If it depends little on the database, PostgreSQL is for `-m long`."""
    own_marks = metafunc.definition.iter_markers("parametrize")
    if "database_url" in metafunc.fixturenames and not any("database_url" in mark.args[0] for mark in own_marks):
        marks = [pytest.mark.long] if metafunc.definition.get_closest_marker("on_one_database") else []
        metafunc.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=marks)], indirect=True)


def pytest_collection_finish() -> None:
    """Exempt all objects made so far from garbage collection. To search them again takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(autouse=True)
def _no_settings_file_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No .env file reaches a test."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _nothing_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test meets the statements of a background task that begins by the wall clock."""
    monkeypatch.setattr("app.db.batches.START", 3600)


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
def postgres_sql(postgres_template: URL) -> Iterator[Sql]:
    """Run a statement on the PostgreSQL database, over one connection: to make one takes 10 ms."""
    with asyncio.Runner() as runner:
        url = postgres_template.render_as_string(hide_password=False)
        named = {"application_name": "tests"}
        connection = runner.run(asyncpg.connect(url, statement_cache_size=0, command_timeout=60, server_settings=named))
        yield lambda statement: [tuple(row) for row in runner.run(connection.fetch(statement))]
        runner.run(connection.close())


@pytest.fixture
def postgres_url(postgres_template: URL, postgres_sql: Sql) -> str:
    """A migrated, empty PostgreSQL database: one for all, as it takes 300 ms to copy one, and one to empty it."""
    postgres_sql("WITH none AS (DELETE FROM throttle) DELETE FROM users")
    return postgres_template.render_as_string(hide_password=False)


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of the test's own; the test runs on each kind."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


class NotedSettings:
    """Settings that note what `create_app` reads of them. Afterwards they refuse to be read: an app is used again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.noted: dict[str, object] = {}
        self.is_open = True

    def __getattr__(self, name: str) -> object:
        assert self.is_open, f"create_app kept the settings for {name}: let the app read app.state.settings"
        return self.noted.setdefault(name, getattr(self._settings, name))


@pytest.fixture(scope="session")
def closed_apps() -> list[tuple[dict[str, object], FastAPI]]:
    """Apps that another test is done with, and the settings that they were made of: FastAPI takes 40 ms to make one."""
    return []


@pytest.fixture
def make_app(
    make_app: MakeApp, clock: MovableClock, closed_apps: list[tuple[dict[str, object], FastAPI]]
) -> Iterator[MakeApp]:
    with ExitStack() as stack:

        def make(settings: Settings) -> FastAPI:
            closed = next((each for each in closed_apps if is_made_of(each[0], settings)), None)
            if closed:
                closed_apps.remove(closed)
            else:
                noted = NotedSettings(settings)
                app = make_app(cast("Settings", noted))
                noted.is_open = False
                closed = noted.noted, app
            closed[1].state.settings, closed[1].state.clock = settings, clock
            stack.callback(closed_apps.append, closed)
            return closed[1]

        yield make


def is_made_of(noted: dict[str, object], settings: Settings) -> bool:
    return all(getattr(settings, name) == value for name, value in noted.items())


@pytest.fixture
def serve(serve: Serve) -> Serve:
    """With an id of every request's, so that answers may be compared whole."""

    def start(**changes: Any) -> TestClient:
        client = serve(**changes)
        quicken(client)
        client.headers["X-Request-ID"] = "test"
        return client

    return start


@pytest.fixture
def sql(request: pytest.FixtureRequest, database_url: str) -> Sql:
    """Run a statement on the test's database, past the service."""
    url = make_url(database_url)
    if url.drivername == "sqlite":
        return lambda statement: execute(url, statement)
    postgres_sql: Sql = request.getfixturevalue("postgres_sql")
    return postgres_sql


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
