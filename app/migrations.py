"""The schema: bring it to the newest migration, and say whether it is there."""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

ALEMBIC_INI = Path(__file__).parent.parent / "alembic.ini"


def upgrade(connection: Connection) -> None:
    """Bring the schema to the newest migration, all or nothing. Who else is at it waits, and finds nothing to do."""
    if connection.dialect.name == "postgresql":
        # A migration may take its time; the lock's number is any that nobody else uses.
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7009)")
    config = Config(ALEMBIC_INI)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def is_current(connection: Connection) -> bool:
    """Whether the schema is at the newest migration."""
    return MigrationContext.configure(connection).get_current_heads() == _newest()


@cache
def _newest() -> tuple[str, ...]:
    return tuple(ScriptDirectory.from_config(Config(ALEMBIC_INI)).get_heads())
