"""Migrations of a team's: a copy of the folder, to add some to. And a server of our own, with a database."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url

from app.db import migrations
from tests.conftest import SECRET, migrate, new_database
from tests.support.command_line import Run, run
from tests.support.own_server import Server, durable_database, own_server

Add = Callable[..., None]

REVISION = """
from alembic import op

revision{kind} = {quote}{revision}{quote}
down_revision{kind} = {quote}{parent}{quote}


def upgrade() -> None:
    {upgrade}
"""


@pytest.fixture(scope="session")
def spare_template(postgres_server: URL) -> Iterator[URL]:
    """A migrated PostgreSQL database to copy. The other template has connections, so PostgreSQL does not copy it."""
    with new_database(postgres_server) as url:
        asyncio.run(migrate(url))
        yield url


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the migrations, which the service takes instead of its own."""
    copy = shutil.copytree(migrations.FOLDER, tmp_path / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrations, "FOLDER", copy)
    migrations.scripts.cache_clear()
    yield copy
    migrations.scripts.cache_clear()


@pytest.fixture
def add(folder: Path) -> Add:
    newest = migrations.newest()

    def write(revision: str, upgrade: str, quote: str = '"', kind: str = "", parent: str = newest) -> None:
        text = REVISION.format(revision=revision, upgrade=upgrade, quote=quote, kind=kind, parent=parent)
        (folder / "versions" / f"2099_01_01_{revision}.py").write_text(text)
        migrations.scripts.cache_clear()

    return write


@pytest.fixture
def command(database_url: str) -> Run:
    return lambda *words: run(*words, database_url=database_url, secret_key=SECRET)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with own_server() as server:
        yield server


@pytest.fixture(scope="session")
def url(server: Server) -> Iterator[URL]:
    """A migrated database. The service connects to it whatever the server says of itself."""
    with durable_database(server) as url:
        yield make_url(url).update_query_dict({"target_session_attrs": "any"})
