"""Runs the migrations: on the connection that the service hands over, or else on the database of its settings."""

import asyncio

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection

import app.auth.models
import app.tasks.models  # noqa: F401 - the metadata needs every table
from app.config import Settings, read_settings
from app.db.connect import connect
from app.db.migrations import PATIENCE
from app.db.types import Base
from app.errors import BadSettings


def run(connection: Connection) -> None:
    """Run in the transaction that is open, one process at a time: on SQLite it holds the only writer's lock already."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7009)")  # any number that nobody else uses
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_object=None if connection.dialect.name == "postgresql" else is_modelled_on_sqlite,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def is_modelled_on_sqlite(_item: object, name: str | None, *_: object) -> bool:
    """The index of words is a virtual table there, and what it is made of."""
    return not str(name).startswith(("ix_tasks_words", "task_words", "task_numbers"))


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
        raise CommandError("; ".join(error.messages)) from error


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
elif context.is_offline_mode():
    write_sql(load_settings())
else:
    asyncio.run(connect_and_run(load_settings()))
