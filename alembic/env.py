"""Runs the migrations, on the connection of the service or on the database of its settings, and writes new ones."""

import asyncio
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from alembic import context
from alembic.autogenerate import render_op_text, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.ddl.sqlite import SQLiteImpl
from alembic.operations import ops
from alembic.operations.batch import ApplyBatchImpl
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, ForeignKeyConstraint, Table

import app
from app.config import Settings, read_settings
from app.db import types
from app.db.connect import connect
from app.db.ddl import read_ondelete
from app.db.migrations import PATIENCE
from app.errors import BadSettings

for models in Path(*app.__path__).glob("*/models.py"):
    import_module(f"app.{models.parent.name}.models")


def run(connection: Connection) -> None:
    """Run in the open transaction, one process at a time. On SQLite the transaction holds the writer's lock already."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7009)")  # any number that nobody else uses
    context.configure(
        connection=connection,
        target_metadata=types.Base.metadata,
        include_object=None if connection.dialect.name == "postgresql" else is_modelled_on_sqlite,
        process_revision_directives=join_references,
        render_item=render_type,
        transactional_ddl=True,
    )
    with warnings.catch_warnings(), context.begin_transaction():
        warnings.filterwarnings("ignore", message=".*expression-based index")  # it cannot be compared
        context.run_migrations()


def write_sql(settings: Settings) -> None:
    """For `alembic upgrade head --sql`."""
    context.configure(dialect_name=settings.database.drivername, transactional_ddl=True, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_run(settings: Settings) -> None:
    async with connect(settings.database, PATIENCE) as database:
        await database.write(run)


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
