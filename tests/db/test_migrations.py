"""One set of migrations for both databases, up and down, in step with the models."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic import command
from alembic.config import Config, main
from alembic.script import ScriptDirectory
from fastapi.testclient import TestClient
from pydantic import SecretStr
from pyotp import TOTP
from sqlalchemy import URL, Connection, inspect, make_url

from app.config import Settings
from app.db.connect import WAIT
from app.db.database import Database
from app.db.migrations import FOLDER, SchemaUnknown, bring_up_to_date, is_current, upgrade
from app.db.types import Base
from app.main import create_app
from app.tasks.search import BACKFILL, index_batch
from tests.conftest import CHEAP, SECRET, MovableClock, Sql, new_database, on_postgresql
from tests.support.accounts import bearer, create_task, log_in, refresh, sign_up
from tests.support.databases import run, write

BEFORE_ACCOUNTS = "0010"
TABLES = {"alembic_version", *Base.metadata.tables}


@pytest.fixture
def postgres_url(postgres_server: URL) -> Iterator[str]:
    """A database that these tests may spoil."""
    with new_database(postgres_server) as url:
        write(url.render_as_string(hide_password=False), upgrade)
        yield url.render_as_string(hide_password=False)


ALEMBIC_INI = FOLDER.parent / "alembic.ini"


def upgrade_all(url: str, wait: float = WAIT) -> bool:
    """Run the migrations and the backfill, as the service does."""

    async def upgrade_and_look(database: Database) -> bool:
        await bring_up_to_date(database, make_url(url), BACKFILL)
        return await database.read(is_current)

    return run(url, upgrade_and_look, wait)


def alembic(connection: Connection, verb: Callable[..., object], *args: str) -> None:
    config = Config(ALEMBIC_INI)
    config.attributes["connection"] = connection
    verb(config, *args)


def tables(connection: Connection) -> set[str]:
    """Without the tables of SQLite's index of words."""
    found = inspect(connection).get_table_names()
    return {name for name in found if not name.startswith(("task_words", "task_numbers"))}


def test_the_models_agree_with_the_migrations(database_url: str) -> None:
    write(database_url, lambda connection: alembic(connection, command.check))


@on_postgresql
def test_tables_are_stored_as_the_models_say(database_url: str, sql: Sql) -> None:
    """Alembic does not compare that."""
    stored = sql("SELECT relname::text, unnest(reloptions) FROM pg_class WHERE relkind = 'r'")

    modelled = [(name, each.dialect_options["postgresql"]["with"] or {}) for name, each in Base.metadata.tables.items()]
    assert {(name, f"{key}={value}") for name, options in modelled for key, value in options.items()} == set(stored)
    assert stored


def test_down_and_up_again(database_url: str) -> None:
    def down_and_up(connection: Connection) -> None:
        assert tables(connection) == TABLES
        alembic(connection, command.downgrade, "base")
        assert tables(connection) == {"alembic_version"}
        assert not is_current(connection)
        upgrade(connection)
        assert tables(connection) == TABLES
        assert is_current(connection)

    write(database_url, down_and_up)


def test_tasks_from_before_there_was_a_search_are_found(client: TestClient, database_url: str) -> None:
    """They are more than one batch. A second run finds the tasks that an older version made during the first."""
    ada = sign_up(client)
    create_task(client, ada, "First", description="Ça va", is_public=True)
    write(database_url, lambda connection: alembic(connection, command.downgrade, "0003"))
    write(database_url, lambda connection: make_old_tasks(connection, range(1_100)))
    upgrade_all(database_url)
    write(database_url, lambda connection: make_old_tasks(connection, range(2_000, 2_003)))

    def found(q: str, path: str = "/tasks/mine") -> list[str]:
        page = client.get(path, params={"q": q}, headers=ada.headers).json()
        return [task["title"] for task in page["items"]]

    assert [found(q) for q in ("ca", "0", "1099", "2000")] == [["First"], ["Task 0"], ["Task 1099"], []]
    assert [found(q, "/tasks/public") for q in ("va", "task")] == [["First"], []]
    client.patch(f"/tasks/{UUID(int=2_000)}", json={"description": "new"}, headers=ada.headers)
    client.patch(f"/tasks/{UUID(int=2_001)}", json={"is_public": True}, headers=ada.headers)
    client.delete(f"/tasks/{UUID(int=2_002)}", headers=ada.headers)
    assert found("new task") == ["Task 2000"]
    assert found("2001") == found("2002") == []
    upgrade_all(database_url)
    assert [found(q) for q in ("2000", "2001", "2002")] == [["Task 2000"], ["Task 2001"], []]
    assert found("task", "/tasks/public") == ["Task 2001"]
    write(database_url, lambda connection: index_batch(connection, 1))  # as a process does when another one was faster


def test_words_by_older_rules_are_written_again(client: TestClient, database_url: str) -> None:
    def sql(statement: str) -> None:
        write(database_url, lambda connection: connection.exec_driver_sql(statement))

    ada = sign_up(client)
    for title in "Łódź", "ซื้อนม", "Land\u00adschaft", "Plain", "Café":
        create_task(client, ada, title, description="kept", is_public=True)
    write(database_url, lambda connection: alembic(connection, command.downgrade, "0008"))
    for title, words in ("Łódź", "łodz"), ("ซื้อนม", "ซื้อนม"), ("Land\u00adschaft", "land schaft"), ("Plain", "mine"):
        sql(f"UPDATE tasks SET words = ' {words} kept ' WHERE title = '{title}'")

    def found(path: str = "/tasks/mine") -> list[int]:
        words = ("lodz", "นม", "landschaft", "plain", "mine", "caf", "kept")
        return [len(client.get(path, params={"q": q}, headers=ada.headers).json()["items"]) for q in words]

    upgrade_all(database_url)

    assert found() == found("/tasks/public") == [1, 1, 1, 0, 1, 1, 5]
    if database_url.startswith("sqlite"):
        sql("INSERT INTO task_words (task_words) VALUES ('integrity-check')")
    write(database_url, lambda connection: alembic(connection, command.downgrade, "0008"))
    upgrade_all(database_url)
    assert found() == [1, 1, 1, 0, 1, 1, 5]


@pytest.mark.parametrize("text", ["a", "É", "ß", "Ж", "λ", "漢字", "かな", "한국어", "हिन्दी", "\U0001f331", "İ", "ﬁ"])
def test_words_that_stay_are_not_written_again(text: str) -> None:
    """To write those of millions of tasks takes a while."""
    scripts = ScriptDirectory.from_config(Config(ALEMBIC_INI))
    changed = re.compile(f"[{scripts.get_revision('0009').module.CHANGED}]")

    assert (changed.search(text) is not None) == (text == "İ")


def make_old_tasks(connection: Connection, numbers: Iterable[int]) -> None:
    for number in numbers:
        connection.exec_driver_sql(
            "INSERT INTO tasks (id, owner_id, title, status, created_at, updated_at) "
            f"SELECT '{UUID(int=number)}', owner_id, 'Task {number}', status, created_at, updated_at FROM tasks "
            "WHERE title = 'First'"
        )


def migrate_to(database_url: str, revision: str) -> None:
    verb = command.downgrade if revision == BEFORE_ACCOUNTS else command.upgrade
    write(database_url, lambda connection: alembic(connection, verb, revision))


def columns(database_url: str, table: str) -> str:
    found = write(database_url, lambda connection: inspect(connection).get_columns(table))
    return ", ".join(column["name"] for column in found)


def execute(database_url: str, statement: str) -> list[tuple[Any, ...]]:
    def run_it(connection: Connection) -> list[tuple[Any, ...]]:
        result = connection.exec_driver_sql(statement)
        return [tuple(row) for row in result] if result.returns_rows else []

    return write(database_url, run_it)


def test_accounts_of_the_version_before_live_on(client: TestClient, database_url: str) -> None:
    """Two of them have one address. Processes of that version go on: they insert without the new columns."""
    logins = [sign_up(client, name) for name in ("ada", "eve")]
    migrate_to(database_url, BEFORE_ACCOUNTS)
    execute(database_url, "UPDATE users SET email = 'ada@example.com'")
    tables = ("users", "sessions")
    before = {table: columns(database_url, table) for table in tables}
    kept = [execute(database_url, f"SELECT {before[table]} FROM {table} ORDER BY id") for table in tables]

    migrate_to(database_url, "head")

    assert [execute(database_url, f"SELECT {before[table]} FROM {table} ORDER BY id") for table in tables] == kept
    assert {row[0] for row in execute(database_url, "SELECT kind FROM sessions")} == {"login"}
    for login in logins:
        profile = client.get("/users/me", headers=login.headers).json()
        assert (profile["email"], profile["email_verified"], profile["totp"]) == ("ada@example.com", False, False)
        assert refresh(client, login.refresh_token).status_code == 200
    for table, name in ("users", "username"), ("sessions", "user_agent"):
        copied = before[table].replace(name, "'old'", 1).replace("id", f"'{UUID(int=1)}'", 1)
        execute(database_url, f"INSERT INTO {table} ({before[table]}) SELECT {copied} FROM {table} LIMIT 1")
    assert execute(database_url, "SELECT kind FROM sessions WHERE user_agent = 'old'") == [("login",)]
    assert log_in(client, "old")


def test_a_way_back_keeps_what_the_version_before_knows(
    client: TestClient, database_url: str, clock: MovableClock
) -> None:
    ada = sign_up(client)
    eve = sign_up(client, "eve")
    secret = client.post("/users/me/totp", headers=ada.headers).json()["secret"]
    code = {"code": TOTP(secret).at(clock.now)}
    assert client.put("/users/me/totp", json=code, headers=ada.headers).status_code == 200
    token = client.post("/auth/tokens", json={"name": "Backup"}, headers=ada.headers).json()["token"]
    kept = execute(database_url, "SELECT id, generation, expires_at FROM sessions WHERE kind = 'login' ORDER BY id")

    migrate_to(database_url, BEFORE_ACCOUNTS)

    assert execute(database_url, "SELECT id, generation, expires_at FROM sessions ORDER BY id") == kept
    migrate_to(database_url, "head")
    write(database_url, lambda connection: alembic(connection, command.check))
    assert client.get("/tasks/mine", headers=bearer(token)).status_code == 401
    for login in ada, eve:
        assert client.get("/users/me", headers=login.headers).json()["totp"] is False
    assert log_in(client)


def test_a_migration_that_fails_leaves_nothing(database_url: str) -> None:
    def fail(connection: Connection) -> None:
        alembic(connection, command.downgrade, "base")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write(database_url, fail)

    def check(connection: Connection) -> None:
        assert tables(connection) == TABLES
        assert is_current(connection)

    write(database_url, check)


def test_the_alembic_command_reads_the_services_settings(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("SECRET_KEY", SECRET)
    write(database_url, lambda connection: alembic(connection, command.downgrade, "base"))

    main(["-c", str(ALEMBIC_INI), "upgrade", "head"])
    main(["-c", str(ALEMBIC_INI), "upgrade", "head", "--sql"])

    write(database_url, lambda connection: alembic(connection, command.check))
    assert "CREATE TABLE sessions" in capsys.readouterr().out


def test_the_alembic_command_tells_that_no_server_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://ada:l0velace@127.0.0.1:1/tasks")
    monkeypatch.setenv("SECRET_KEY", SECRET)

    with pytest.raises(SystemExit):
        main(["-c", str(ALEMBIC_INI), "upgrade", "head"])

    assert "FAILED: The database is not available: 127.0.0.1:1: Connection refused\n" in capsys.readouterr().out


def test_a_migration_may_take_longer_than_other_writes() -> None:
    assert upgrade_all("sqlite:///new.db", wait=0)


def test_a_schema_of_a_newer_version_is_left_alone(database_url: str) -> None:
    def upgrade_newer(connection: Connection) -> None:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        upgrade(connection)

    with pytest.raises(SchemaUnknown):
        write(database_url, upgrade_newer)
    write(database_url, upgrade)


def test_a_service_in_an_empty_folder_makes_its_schema(tmp_path: Path) -> None:
    settings = Settings(database_url=f"sqlite:///{tmp_path}/new.db", secret_key=SecretStr(SECRET))
    with TestClient(create_app(settings, password_cost=CHEAP)) as client:
        assert client.get("/health/ready").status_code == 200
        sign_up(client)
