"""PostgreSQL is migrated while requests, dumps and other hosts go on."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.command import downgrade, upgrade
from alembic.config import Config
from alembic.util import CommandError
from fastapi.testclient import TestClient
from sqlalchemy import URL, make_url

from app.db import locks
from app.db.testing import migrate
from tests.conftest import SECRET, Sql, new_database, on_postgresql
from tests.db.conftest import Add
from tests.support.accounts import create_task, sign_up
from tests.support.command_line import Run
from tests.support.databases import write
from tests.support.processes import ROOT, environment, wait_for

pytestmark = on_postgresql

ADD_COLUMN = 'op.execute("ALTER TABLE tasks ADD COLUMN weight integer")'
CREATE_INDEX = 'op.create_index("ix_tasks_title", "tasks", ["title"], unique=True)'
IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_tasks_title')"
WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

KEY = (
    "CREATE UNIQUE INDEX uq_tasks_owner_id_idempotency_key ON public.tasks USING btree (owner_id, idempotency_key) "
    "WHERE (idempotency_key IS NOT NULL)"
)

Start = Callable[[], Future[None]]


@pytest.fixture
def postgres_url(postgres_server: URL, spare_template: URL) -> Iterator[str]:
    """A database that these tests may spoil."""
    with new_database(postgres_server, f'TEMPLATE "{spare_template.database}"') as url:
        yield url.render_as_string(hide_password=False)


@contextmanager
def connection(url: str) -> Iterator[Sql]:
    with asyncio.Runner() as runner:
        named = {"application_name": "pg_dump"}
        connected = runner.run(asyncpg.connect(url, server_settings=named, command_timeout=60))
        yield lambda statement: [tuple(row) for row in runner.run(connected.fetch(statement))]
        runner.run(connected.close())


@pytest.fixture
def sql(database_url: str) -> Iterator[Sql]:
    with connection(database_url) as sql:
        yield sql


@pytest.fixture
def other(database_url: str) -> Iterator[Sql]:
    """Another connection, in a transaction."""
    with connection(database_url) as sql:
        sql("BEGIN")
        yield sql


@pytest.fixture
def start(database_url: str) -> Iterator[Start]:
    """Begin to migrate."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda: pool.submit(lambda: asyncio.run(migrate(make_url(database_url))))


def test_requests_go_on_while_a_dump_holds_up_a_migration(
    add: Add,
    client: TestClient,
    start: Start,
    sql: Sql,
    other: Sql,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They wait for the migration until it gives way. It does not come back before the dump has ended."""
    monkeypatch.setattr(locks, "REST", 0)
    ada = sign_up(client)
    add("weight", ADD_COLUMN)
    other("LOCK TABLE tasks IN ACCESS SHARE MODE")
    migrating = start()

    wait_for(lambda: sql(WAITING))
    assert client.get("/tasks/mine", headers=ada.headers).status_code == 200
    create_task(client, ada)
    wait_for(lambda: "waiting for pg_dump (process " in caplog.text)
    wait_for(lambda: not sql(WAITING))
    for _ in range(20):
        assert client.get("/tasks/public").status_code == 200
    assert not sql(WAITING)
    assert client.get("/health/ready").json()["code"] == "schema_behind"

    other("COMMIT")
    migrating.result(60)
    assert client.get("/health/ready").status_code == 200
    assert sql("SELECT weight FROM tasks") == [(None,)]


def test_migrate_gives_up_and_leaves_nothing(
    add: Add, command: Run, other: Sql, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LOCK_PATIENCE", 0)
    monkeypatch.setattr(locks, "REST", 0)
    add("weight", f'op.execute("CREATE TABLE early (n integer)"); {ADD_COLUMN}')
    other("LOCK TABLE tasks IN ACCESS SHARE MODE")

    result = command("migrate")

    assert result.exit_code == 1
    (error,) = [line for line in result.stderr.splitlines() if not line.startswith("waiting")]
    assert error.startswith("error: pg_dump (process ")
    assert error.endswith(
        " has held a lock for 0 minutes, and this migration is rolled back: run python -m app migrate again"
    )
    assert sql("SELECT to_regclass('early')") == [(None,)]


def test_an_index_is_built_while_tasks_are_written(
    add: Add, client: TestClient, command: Run, start: Start, sql: Sql, other: Sql
) -> None:
    """The process that builds it dies. The next one builds it again."""
    ada = sign_up(client)
    create_task(client, ada, "Read")
    add("index", CREATE_INDEX)
    other("LOCK TABLE tasks IN ROW EXCLUSIVE MODE")
    migrating = start()

    wait_for(lambda: sql(WAITING))
    create_task(client, ada, "Write")
    assert client.get("/health/ready").json()["code"] == "schema_behind"
    [(process,)] = sql(WAITING)
    sql(f"SELECT pg_terminate_backend({process})")
    assert migrating.exception(60)

    assert sql(IS_VALID) == [(False,)]
    assert client.get("/health/ready").json()["code"] == "schema_behind"
    other("COMMIT")
    assert command("migrate").exit_code == 0
    assert sql(IS_VALID) == [(True,)]
    assert client.get("/health/ready").status_code == 200
    add("drop", 'op.drop_index("ix_tasks_title")', parent="index")
    assert command("migrate").exit_code == 0
    assert sql(IS_VALID) == []


def test_rows_that_break_a_constraint_are_not_shown(add: Add, client: TestClient, command: Run, sql: Sql) -> None:
    """The constraint holds for what is written from then on."""
    ada = sign_up(client)
    create_task(client, ada, "Secret")
    create_task(client, ada, "Secret")
    add("index", CREATE_INDEX)

    result = command("migrate")

    assert result.exit_code == 1
    statement = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS ix_tasks_title ON tasks (title)"
    assert result.stderr == f'error: {statement}: could not create unique index "ix_tasks_title"\n'
    assert client.get("/health/ready").status_code == 503
    sql("UPDATE tasks SET title = id::text")
    assert command("migrate").exit_code == 0
    assert client.get("/health/ready").status_code == 200


def test_a_constraint_is_checked_without_a_lock(add: Add, client: TestClient, command: Run, sql: Sql) -> None:
    create_task(client, sign_up(client))
    sql("COMMENT ON TABLE alembic_version IS 'Ask the team first'")
    assert client.get("/health/ready").status_code == 200
    checks = 'op.create_check_constraint("title", "tasks", "length(title) > 0")'
    refers = 'op.create_foreign_key("again", "tasks", "users", ["owner_id"], ["id"])'
    add("constraints", f"{checks}; {refers}")

    assert command("migrate").exit_code == 0

    assert sql("SELECT count(*) FROM pg_constraint WHERE NOT convalidated") == [(0,)]
    assert sql("SELECT count(*) FROM pg_constraint WHERE conname IN ('ck_tasks_title', 'again')") == [(2,)]


def test_an_index_is_replaced_by_one_that_is_built_before(client: TestClient, database_url: str, sql: Sql) -> None:
    """A migration of old makes the index of idempotency keys smaller. They stay unique."""
    create_task(client, sign_up(client))
    write(
        database_url,
        lambda connection: downgrade(Config(ROOT / "alembic.ini", attributes={"connection": connection}), "0002"),
    )

    asyncio.run(migrate(make_url(database_url)))

    keys = sql("SELECT indexdef FROM pg_indexes WHERE indexname ~ 'idempotency_key'")
    assert keys == [(KEY,)]


def test_one_host_migrates_at_a_time(
    add: Add, start: Start, sql: Sql, other: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    add("weight", ADD_COLUMN)
    other("SELECT pg_advisory_xact_lock(7009)")
    migrating = start()

    wait_for(lambda: "waiting: Another process migrates the database" in caplog.text)
    assert sql("SELECT version_num FROM alembic_version") != [("weight",)]

    other("COMMIT")
    migrating.result(60)
    assert sql("SELECT version_num FROM alembic_version") == [("weight",)]


@pytest.mark.long
def test_three_hosts_migrate_at_once(client: TestClient, database_url: str) -> None:
    create_task(client, sign_up(client))
    python = [sys.executable, "-m"]
    shell: dict[str, Any] = {"env": environment(database_url=database_url, secret_key=SECRET), "cwd": ROOT}
    subprocess.run([*python, "alembic", "downgrade", "0010"], check=True, capture_output=True, **shell)

    hosts = [
        subprocess.Popen([*python, "app", "migrate"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **shell)
        for _ in range(3)
    ]

    said = [host.communicate(timeout=120)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0, 0], said
    assert client.get("/health/ready").status_code == 200


def test_alembics_own_command_gives_way_once(
    add: Add, folder: Path, client: TestClient, database_url: str, other: Sql, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be told to go one step up or down, so it does not try again."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("SECRET_KEY", SECRET)
    config = Config()
    config.set_main_option("script_location", str(folder))
    create_task(client, sign_up(client))
    add("index", CREATE_INDEX)
    add("weight", ADD_COLUMN, parent="index")
    other("LOCK TABLE tasks IN ACCESS SHARE MODE")

    with pytest.raises(CommandError, match="PostgreSQL gave no lock in time"):
        upgrade(config, "head")

    assert sql(IS_VALID) == [(True,)]
    other("COMMIT")
    upgrade(config, "head")
    assert client.get("/health/ready").status_code == 200
