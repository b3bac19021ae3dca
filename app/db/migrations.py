"""The schema: bring it to the newest migration, and say whether it is there."""

import re
from functools import lru_cache
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from app.errors import Unavailable

ROOT = Path(__file__).parents[2]
ALEMBIC_INI = ROOT / "alembic.ini"
VERSION = text("SELECT version_num FROM alembic_version")
PATIENCE = 24 * 3600  # seconds that a migration, or another statement of an operator's, may take or wait


class SchemaUnknown(Unavailable):
    detail = "The database's schema is of another version, newer than this one"
    code = "schema_unknown"


def upgrade(connection: Connection) -> None:
    """Bring the schema to the newest migration, all or nothing. Who else is at it waits, and finds nothing to do.

    Raises:
        SchemaUnknown: it is at a migration that is not among ours.
    """
    from alembic import command  # noqa: PLC0415 - a fifth of the time to start, and needed but once
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config(ALEMBIC_INI)
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SchemaUnknown from error


def is_current(connection: Connection) -> bool:
    """Whether the schema is at the newest migration."""
    if not inspect(connection).has_table("alembic_version"):
        return False
    return connection.execute(VERSION).scalar_one_or_none() == newest()


@lru_cache(1)
def newest() -> str:
    """The revision that no other builds on."""
    scripts = "".join(path.read_text() for path in (ROOT / "alembic" / "versions").glob("*.py"))
    revisions: list[str] = re.findall(r'^revision = "(.+)"', scripts, re.MULTILINE)
    built_on: list[str] = re.findall(r'^down_revision = "(.+)"', scripts, re.MULTILINE)
    (revision,) = set(revisions) - set(built_on)
    return revision
