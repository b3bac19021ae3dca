"""Runs the migrations, on the connection of the service or on the database of its settings, and writes new ones."""

import asyncio
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from alembic import context
from alembic.autogenerate import render_op_text, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.ddl.postgresql import PostgresqlImpl
from alembic.ddl.sqlite import SQLiteImpl
from alembic.operations import ops
from alembic.operations.batch import ApplyBatchImpl
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import (
    DDL,
    CheckConstraint,
    Connection,
    Constraint,
    ForeignKeyConstraint,
    FromClause,
    Index,
    Table,
    TableClause,
    literal,
    select,
    table,
    text,
)
from sqlalchemy.schema import CreateIndex, DropIndex, ExecutableDDLElement

import app
from app.config import Settings, read_settings
from app.db import types
from app.db.connect import connect
from app.db.ddl import read_ondelete
from app.db.locks import LockNotAvailable, in_turn
from app.db.migrations import PATIENCE
from app.db.postponed import postpone, run_postponed
from app.errors import BadSettings, Unavailable

for models in Path(*app.__path__).glob("*/models.py"):
    import_module(f"app.{models.parent.name}.models")


Plan = Callable[[tuple[str, ...], MigrationContext], Iterable[Any]]

SELECT_TABLE = text(
    "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indrelid WHERE indexrelid = to_regclass(:name)"
)


def run(connection: Connection) -> None:
    """Run the migrations: each in a transaction of its own, or all in the one that is open, as on SQLite."""
    is_in_transaction = connection.in_transaction()
    options: dict[str, Any] = {
        "connection": connection,
        "target_metadata": types.Base.metadata,
        "include_object": None if connection.dialect.name == "postgresql" else is_modelled_on_sqlite,
        "process_revision_directives": join_references,
        "render_item": render_type,
        "transactional_ddl": True,
        "transaction_per_migration": True,
        "postpones": not is_in_transaction,
    }
    context.configure(**options)
    if not is_in_transaction:
        context.configure(**options, fn=with_postponed(connection, context.get_context().opts["fn"]))
    with warnings.catch_warnings(), context.begin_transaction():
        warnings.filterwarnings("ignore", message=".*expression-based index")  # it cannot be compared
        context.run_migrations()


def with_postponed(connection: Connection, plan: Plan) -> Plan:
    """Run the statements that a step has postponed after its transaction: Alembic runs each step as it gets it."""

    def steps(heads: tuple[str, ...], migration: MigrationContext) -> Iterator[Any]:
        for step in plan(heads, migration):
            run_postponed(connection)
            yield step
            run_postponed(connection)

    return steps


def write_sql(settings: Settings) -> None:
    """For `alembic upgrade head --sql`."""
    context.configure(dialect_name=settings.database.drivername, transactional_ddl=True, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_run(settings: Settings) -> None:
    async with connect(settings.database, PATIENCE) as database:
        try:
            await in_turn(database, run)
        except Unavailable as error:
            if error.reason or isinstance(error, LockNotAvailable):  # a migration that fails keeps its traceback
                raise CommandError(str(error)) from error
            raise


def load_settings() -> Settings:
    try:
        return read_settings()
    except BadSettings as error:
        raise CommandError("; ".join(error.args)) from error


def is_modelled_on_sqlite(_item: object, name: str | None, *_: object) -> bool:
    """SQLite's index of words is a virtual table with tables of its own. The models do not have these."""
    return not str(name).startswith(("ix_tasks_words", "task_words", "task_numbers"))


class SQLite(SQLiteImpl):
    """SQLite, as Alembic compares it with the models, and without the part of batch mode that loses something."""

    __dialect__ = "sqlite"

    def correct_for_autogen_foreignkeys(
        self,
        conn_fks: set[ForeignKeyConstraint],
        metadata_fks: set[ForeignKeyConstraint],  # noqa: ARG002 - a name of Alembic's
    ) -> None:
        if self.connection is not None:
            read_ondelete(self.connection, conn_fks)

    def prep_table_for_batch(self, batch_impl: ApplyBatchImpl, table: Table) -> None:
        if batch_impl.reflected:  # a copy without triggers and CHECKs, for which the rows that reference it are deleted
            raise NotImplementedError(f"use rebuild_table({table.name!r}) in place of op.batch_alter_table")


class PostgreSQL(PostgresqlImpl):
    """PostgreSQL, where no request waits for work on all rows of a table: that comes after the transaction."""

    __dialect__ = "postgresql"

    def create_index(self, index: Index, **kw: Any) -> None:
        if self.has_rows(index.table):
            index.dialect_options["postgresql"]["concurrently"] = True
            self.postpone(index, CreateIndex(index, if_not_exists=True))
        else:
            super().create_index(index, **kw)

    def drop_index(self, index: Index, **kw: Any) -> None:
        if self.has_rows(self.find_table(index)):
            index.dialect_options["postgresql"]["concurrently"] = True
            self.postpone(index, DropIndex(index, if_exists=True))
        else:
            super().drop_index(index, **kw)

    def add_constraint(self, const: Any, **kw: Any) -> None:
        is_checked = isinstance(const, CheckConstraint | ForeignKeyConstraint) and const.name is not None
        if is_checked and self.has_rows(const.table):
            const.dialect_options["postgresql"]["not_valid"] = True
            super().add_constraint(const, **kw)
            preparer = self.dialect.identifier_preparer
            changed, name = preparer.format_table(const.table), preparer.format_constraint(const)
            self.postpone(const, DDL(f"ALTER TABLE {changed} VALIDATE CONSTRAINT {name}"))  # type: ignore[no-untyped-call]
        else:
            super().add_constraint(const, **kw)

    def find_table(self, index: Index) -> TableClause | None:
        """Find the table of an index by its name, because a migration need not name the table."""
        name = self.dialect.identifier_preparer.format_index(index)
        found = self.postpones and self.connection and self.connection.execute(SELECT_TABLE, {"name": name}).scalar()
        return table(found) if found else None

    def has_rows(self, of: FromClause | None) -> bool:
        """Whether a table has rows, if work on all of them may be postponed."""
        if not self.postpones or self.connection is None or of is None:
            return False
        return self.connection.execute(select(literal(1)).select_from(of).limit(1)).first() is not None

    def postpone(self, item: Index | Constraint, statement: ExecutableDDLElement) -> None:
        if self.connection is not None:
            name = self.dialect.identifier_preparer.format_constraint(item)
            postpone(self.connection, str(name), str(statement.compile(dialect=self.dialect)).strip())

    @property
    def postpones(self) -> bool:
        """Whether the migrations have transactions of their own."""
        return bool(self.context_opts.get("postpones"))


class AddReferenceOp(ops.AddColumnOp):
    """A new column and its reference, which SQLite can only add together."""


@renderers.dispatch_for(AddReferenceOp)
def render_reference(autogen: AutogenContext, operation: AddReferenceOp) -> str:
    autogen.imports.add("from app.db.ddl import add_column")
    (reference,) = operation.column.foreign_keys
    ondelete = "" if reference.ondelete is None else f", ondelete={reference.ondelete!r}"
    plain = ops.AddColumnOp(operation.table_name, operation.column)
    call = render_op_text(autogen, plain).removeprefix("op.").removesuffix(")")
    return f"{call}, references={reference.target_fullname!r}{ondelete})"


def join_references(_context: MigrationContext, _revision: object, scripts: list[ops.MigrationScript]) -> None:
    """Have the new migration add a column together with its reference."""
    upgrade, downgrade = scripts[0].upgrade_ops, scripts[0].downgrade_ops
    if upgrade is None or downgrade is None:
        return
    for changes in upgrade.ops:
        if isinstance(changes, ops.ModifyTableOps):
            changes.ops = list(joined(changes.ops))
    upgrade.reverse_into(downgrade)


def joined(operations: list[ops.MigrateOperation]) -> Iterator[ops.MigrateOperation]:
    added = {operation.column.name for operation in operations if isinstance(operation, ops.AddColumnOp)}
    referring = {
        operation.local_cols[0]
        for operation in operations
        if isinstance(operation, ops.CreateForeignKeyOp) and added.issuperset(operation.local_cols)
    }
    for operation in operations:
        if isinstance(operation, ops.AddColumnOp) and operation.column.name in referring:
            yield AddReferenceOp(operation.table_name, operation.column)
        elif not (isinstance(operation, ops.CreateForeignKeyOp) and referring.issuperset(operation.local_cols)):
            yield operation


def render_type(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    """Write a type of `app.db.types` with its import. Alembic writes the other types."""
    if item is types.Id:
        autogen.imports.add(f"from {types.__name__} import Id")
        return "Id"
    if kind != "type" or type(item).__module__ != types.__name__:
        return False
    autogen.imports.add(f"from {types.__name__} import {type(item).__name__}")
    return repr(item)


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
elif context.is_offline_mode():
    write_sql(load_settings())
else:
    asyncio.run(connect_and_run(load_settings()))
