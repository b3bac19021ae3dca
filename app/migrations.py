"""The schema: bring it to the newest migration, and say whether it is there."""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from app.errors import Unavailable

ALEMBIC_INI = Path(__file__).parent.parent / "alembic.ini"
PATIENCE = 24 * 3600  # seconds that a migration may take, or wait for another to be done


class SchemaUnknown(Unavailable):
    detail = "The database's schema is of another version, newer than this one"


def upgrade(connection: Connection) -> None:
    """Bring the schema to the newest migration, all or nothing. Who else is at it waits, and finds nothing to do.

    Raises:
        SchemaUnknown: it is at a migration that is not among ours.
    """
    config = Config(ALEMBIC_INI)
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SchemaUnknown from error


def is_current(connection: Connection) -> bool:
    """Whether the schema is at the newest migration."""
    return MigrationContext.configure(connection).get_current_heads() == _newest()


@cache
def _newest() -> tuple[str, ...]:
    return tuple(ScriptDirectory.from_config(Config(ALEMBIC_INI)).get_heads())
