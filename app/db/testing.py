"""Migrated databases for tests, as fixtures of the pytest kit.

PYTEST_DONT_REWRITE: `app.testing` may be imported before pytest can rewrite this module.
"""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import URL, make_url

from app.db import migrations
from app.db.connect import connect


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database for one test."""
    is_served = os.environ.get("TEST_DATABASE_URL", "").startswith("postgres")
    url: str = request.getfixturevalue("postgres_url" if is_served else "sqlite_url")
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The migrated database that each test gets a copy of."""
    path = tmp_path_factory.mktemp("template") / "tasks.db"
    asyncio.run(migrate(make_url(f"sqlite:///{path}")))
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite database for one test."""
    shutil.copy(sqlite_template, tmp_path / "tasks.db")
    return f"sqlite:///{tmp_path}/tasks.db"


@pytest.fixture(scope="session")
def postgres_server() -> URL:
    """The server of TEST_DATABASE_URL."""
    return make_url(os.environ["TEST_DATABASE_URL"])


@pytest.fixture(scope="session")
def postgres_template(postgres_server: URL) -> Iterator[URL]:
    """The migrated database that each test gets a copy of."""
    with new_database(postgres_server) as url:
        asyncio.run(migrate(url))
        yield url


@pytest.fixture
def postgres_url(postgres_server: URL, postgres_template: URL) -> Iterator[str]:
    """A migrated PostgreSQL database for one test."""
    with new_database(postgres_server, f'TEMPLATE "{postgres_template.database}"') as url:
        yield url.render_as_string(hide_password=False)


async def migrate(url: URL) -> None:
    """Bring a database to the newest migration."""
    async with connect(url, migrations.PATIENCE) as database:
        await migrations.migrate(database)


@contextmanager
def new_database(server: URL, options: str = "") -> Iterator[URL]:
    """Make a PostgreSQL database, and drop it in the end."""
    url = server.set(database=f"bearer_tasks_test_{uuid4().hex}")
    asyncio.run(_execute(server, f'CREATE DATABASE "{url.database}" {options}'))
    try:
        yield url
    finally:
        asyncio.run(_execute(server, f'DROP DATABASE "{url.database}" WITH (FORCE)'))


async def _execute(url: URL, statement: str) -> None:
    async with connect(url, wait=60) as database:
        await database.autocommit(lambda connection: connection.exec_driver_sql(statement))
