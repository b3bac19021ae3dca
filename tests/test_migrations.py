"""One set of migrations for both databases, up and down, in step with the models."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from alembic import command
from alembic.config import Config, main
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, inspect, make_url

from app.engines import connect
from app.migrations import ALEMBIC_INI, SchemaUnknown, is_current, newest, upgrade
from tests.conftest import SECRET, new_database

TABLES = {"alembic_version", "users", "sessions", "tasks", "throttle"}

# Neither database's expression indexes can be compared; SQLite's cannot even be read back.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index"),
    pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index"),
]


@pytest.fixture
def postgres_url(postgres_server: URL) -> Iterator[str]:
    """A database that these tests may spoil."""
    with new_database(postgres_server) as url:
        run(url.render_as_string(hide_password=False), upgrade)
        yield url.render_as_string(hide_password=False)


def run(url: str, f: Callable[[Connection], object]) -> None:
    async def write() -> None:
        async with connect(make_url(url)) as database:
            await database.write(f)

    asyncio.run(write())


def alembic(connection: Connection, verb: Callable[..., object], *args: str) -> None:
    config = Config(ALEMBIC_INI)
    config.attributes["connection"] = connection
    verb(config, *args)


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


def test_the_models_agree_with_the_migrations(database_url: str) -> None:
    run(database_url, lambda connection: alembic(connection, command.check))


def test_the_newest_migration_is_alembics_head() -> None:
    assert ScriptDirectory.from_config(Config(ALEMBIC_INI)).get_heads() == [newest()]


def test_down_and_up_again(database_url: str) -> None:
    def down_and_up(connection: Connection) -> None:
        assert tables(connection) == TABLES
        alembic(connection, command.downgrade, "base")
        assert tables(connection) == {"alembic_version"}
        assert not is_current(connection)
        upgrade(connection)
        assert tables(connection) == TABLES
        assert is_current(connection)

    run(database_url, down_and_up)


def test_a_migration_that_fails_leaves_nothing(database_url: str) -> None:
    def fail(connection: Connection) -> None:
        alembic(connection, command.downgrade, "base")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        run(database_url, fail)

    def check(connection: Connection) -> None:
        assert tables(connection) == TABLES
        assert is_current(connection)

    run(database_url, check)


def test_the_alembic_command_reads_the_services_settings(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("SECRET_KEY", SECRET)
    run(database_url, lambda connection: alembic(connection, command.downgrade, "base"))

    main(["-c", str(ALEMBIC_INI), "upgrade", "head"])
    main(["-c", str(ALEMBIC_INI), "upgrade", "head", "--sql"])

    run(database_url, lambda connection: alembic(connection, command.check))
    assert "CREATE TABLE sessions" in capsys.readouterr().out


def test_a_schema_of_a_newer_version_is_left_alone(database_url: str) -> None:
    def upgrade_newer(connection: Connection) -> None:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        upgrade(connection)

    with pytest.raises(SchemaUnknown):
        run(database_url, upgrade_newer)
    run(database_url, upgrade)
