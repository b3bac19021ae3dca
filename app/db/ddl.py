"""Changes of tables for migrations. They run on both databases; Alembic's own fail or lose something on SQLite."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic import op
from alembic.operations import BatchOperations
from sqlalchemy import Column, Connection, ForeignKey, ForeignKeyConstraint, MetaData, Table

from app.db.postponed import postpone

DEPENDENTS = (
    "SELECT type, name, sql FROM sqlite_master WHERE tbl_name = ? AND type IN ('index', 'trigger') AND sql IS NOT NULL"
)
REFERRING_TABLES = (
    "SELECT DISTINCT t.name FROM sqlite_master t JOIN pragma_foreign_key_list(t.name) f "
    "WHERE t.type = 'table' AND lower(f.\"table\") = lower(:table)"
)
DELETE_ACTIONS = "SELECT \"from\", nullif(on_delete, 'NO ACTION') FROM pragma_foreign_key_list(?)"


def add_column(table: str, column: Column[Any], references: str | None = None, ondelete: str | None = None) -> None:
    """Add a column to a table, in place. The triggers of the table stay.

    `references` is a column of another table, such as `"projects.id"`. `ondelete` is what happens to the row when the
    referenced row is deleted, such as `"SET NULL"`. SQLite wants NULL as the default of a column with a reference.
    """
    is_sqlite = op.get_context().dialect.name == "sqlite"
    if references is not None:
        name = f"fk_{table}_{column.name}_{references.partition('.')[0]}"
        column.append_foreign_key(ForeignKey(references, name=None if is_sqlite else name, ondelete=ondelete))
    op.add_column(table, column, inline_references=is_sqlite)


def execute_after(statement: str, at_once: str | None = None) -> None:
    """Run a statement of PostgreSQL after the migration's transaction, which would hold its locks until the end.

    The statement may run twice: a process may stop before it has noted that it is done. `at_once` takes its place where
    all migrations share one transaction.
    """
    if op.get_context().opts.get("postpones"):
        postpone(op.get_bind(), "", statement)
    else:
        op.execute(at_once or statement)


@contextmanager
def rebuild_table(table: str) -> Iterator[BatchOperations]:
    """Make changes for which SQLite needs a copy of the table, such as a CHECK on a column that exists.

    Alembic's batch mode makes the copy. This function keeps what batch mode loses: triggers, indexes of expressions
    and ON DELETE. PostgreSQL changes the table in place.

    Raises NotImplementedError if rows of any table reference this one: SQLite would delete them with the old copy.
    """
    if op.get_context().dialect.name != "sqlite":
        with op.batch_alter_table(table) as batch:
            yield batch
        return
    connection = op.get_bind()
    if referring := connection.exec_driver_sql(REFERRING_TABLES, {"table": table}).scalars().all():
        raise NotImplementedError(f"SQLite cannot rebuild {table}: {', '.join(referring)} would lose rows")
    dependents = connection.exec_driver_sql(DEPENDENTS, (table,)).all()
    for kind, name, _ in dependents:
        connection.exec_driver_sql(f'DROP {kind} "{name}"')
    old = Table(table, MetaData(), autoload_with=connection, resolve_fks=False)
    read_ondelete(connection, old.foreign_key_constraints)
    with op.batch_alter_table(table, copy_from=old, recreate="always") as batch:
        yield batch
    for _, _, statement in dependents:
        connection.exec_driver_sql(statement)


def read_ondelete(connection: Connection, constraints: set[ForeignKeyConstraint]) -> None:
    """Set the ON DELETE of constraints read from SQLite: SQLAlchemy overlooks it in columns that were added later."""
    for constraint in constraints:
        found = connection.exec_driver_sql(DELETE_ACTIONS, (constraint.table.name,)).all()
        constraint.ondelete = next((action for column, action in found if column == constraint.column_keys[0]), None)
