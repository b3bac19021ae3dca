"""The helpers that migrations change tables with, on both databases."""

from collections.abc import Callable
from io import StringIO

import pytest
import sqlalchemy as sa
from alembic import op
from alembic.migration import MigrationContext
from alembic.operations import Operations
from fastapi.testclient import TestClient
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from app.db.ddl import add_column, rebuild_table
from app.db.types import Base, Id
from app.tasks.triggers import TRIGGERS
from tests.support.accounts import create_task, sign_up
from tests.support.databases import write

InMigration = Callable[[Callable[[Connection], object]], None]

ADVICE = "The triggers of the search are gone, or they have changed: a migration has made the table of tasks again."
SHELF = "00000000-0000-7000-8000-000000000000"


class Undo(Exception):
    """Rolls a test's migration back."""


@pytest.fixture
def in_migration(database_url: str) -> InMigration:
    def in_context(connection: Connection, f: Callable[[Connection], object]) -> None:
        context = MigrationContext.configure(connection, opts={"target_metadata": Base.metadata})
        with Operations.context(context):
            f(connection)
        raise Undo

    def run_and_undo(f: Callable[[Connection], object]) -> None:
        with pytest.raises(Undo):
            write(database_url, lambda connection: in_context(connection, f))

    return run_and_undo


def assert_search_has_its_triggers(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").all()
        assert dict(found) == TRIGGERS, ADVICE


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_migrations_keep_the_triggers_of_the_search(in_migration: InMigration) -> None:
    in_migration(assert_search_has_its_triggers)


def add_shelves() -> None:
    op.create_table("shelves", sa.Column("id", Id, primary_key=True))
    add_column("tasks", sa.Column("shelf_id", Id), references="shelves.id", ondelete="SET NULL")


def assert_project_is_forgotten(connection: Connection) -> None:
    """When it is deleted."""
    connection.exec_driver_sql(f"INSERT INTO shelves VALUES ('{SHELF}')")
    connection.exec_driver_sql(f"UPDATE tasks SET shelf_id = '{SHELF}'")
    with pytest.raises(IntegrityError), connection.begin_nested():
        connection.exec_driver_sql("UPDATE tasks SET shelf_id = id")
    connection.exec_driver_sql("DELETE FROM shelves")
    assert connection.exec_driver_sql("SELECT shelf_id FROM tasks").scalars().all() == [None]


def test_add_column_in_place(client: TestClient, in_migration: InMigration) -> None:
    create_task(client, sign_up(client))

    def migration(connection: Connection) -> None:
        is_urgent = sa.Column("is_urgent", sa.Boolean, server_default=sa.false(), nullable=False)
        add_column("tasks", is_urgent)
        assert connection.exec_driver_sql("SELECT is_urgent FROM tasks").scalars().all() == [False]
        assert_search_has_its_triggers(connection)
        op.drop_column("tasks", "is_urgent")

    in_migration(migration)


def test_add_column_with_a_reference(client: TestClient, in_migration: InMigration) -> None:
    create_task(client, sign_up(client))

    def migration(connection: Connection) -> None:
        add_shelves()
        assert_project_is_forgotten(connection)
        assert_search_has_its_triggers(connection)
        op.drop_column("tasks", "shelf_id")
        op.drop_table("shelves")

    in_migration(migration)


def test_rebuild_keeps_triggers_indexes_and_ondelete(client: TestClient, in_migration: InMigration) -> None:
    create_task(client, sign_up(client))

    def migration(connection: Connection) -> None:
        add_shelves()
        op.create_index("ix_tasks_lower", "tasks", [sa.text("lower(title)")])
        with rebuild_table("tasks") as batch:
            batch.create_check_constraint("title", "length(title) < 20")
        with pytest.raises(IntegrityError), connection.begin_nested():
            connection.exec_driver_sql("UPDATE tasks SET title = 'A title that is too long'")
        assert_project_is_forgotten(connection)
        assert_search_has_its_triggers(connection)
        op.drop_index("ix_tasks_lower")

    in_migration(migration)


def test_rebuild_keeps_a_reference_of_two_columns(in_migration: InMigration) -> None:
    def migration(connection: Connection) -> None:
        reference = sa.ForeignKeyConstraint(["a", "b"], ["pairs.a", "pairs.b"], "fk_notes_pairs", ondelete="CASCADE")
        for table, rule in ("pairs", sa.PrimaryKeyConstraint("a", "b")), ("notes", reference):
            op.create_table(table, sa.Column("a", sa.Integer), sa.Column("b", sa.Integer), rule)
        with rebuild_table("notes") as batch:
            batch.create_check_constraint("a", "a > 0")
        for statement in "INSERT INTO pairs VALUES (1, 2)", "INSERT INTO notes VALUES (1, 2)", "DELETE FROM pairs":
            connection.exec_driver_sql(statement)
        assert connection.exec_driver_sql("SELECT a FROM notes").all() == []

    in_migration(migration)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_rebuild_refuses_a_table_that_is_referenced(in_migration: InMigration) -> None:
    """SQLite deletes each row of the old table, and ON DELETE CASCADE does its work, in the new table too."""

    def migration(connection: Connection) -> None:
        parent = sa.Column("parent_id", Id, sa.ForeignKey("folders.id", ondelete="CASCADE"))
        op.create_table("folders", sa.Column("id", Id, primary_key=True), parent)
        for table, referring in {"users": "sessions, tasks", "folders": "folders"}.items():
            with pytest.raises(NotImplementedError, match=referring), rebuild_table(table):
                pass

    in_migration(migration)


def test_postgresql_rebuilds_no_table() -> None:
    written = StringIO()
    options = {"as_sql": True, "output_buffer": written, "target_metadata": Base.metadata}
    context = MigrationContext.configure(dialect_name="postgresql", opts=options)
    with Operations.context(context), rebuild_table("tasks") as batch:
        batch.create_check_constraint("title", "length(title) < 20")

    assert written.getvalue().strip() == "ALTER TABLE tasks ADD CONSTRAINT ck_tasks_title CHECK (length(title) < 20);"
