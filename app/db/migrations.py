"""The schema: bring it to the newest migration, with a backfill, and say whether it is there."""

import traceback
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import URL, Connection, inspect, text

from app.db.batches import in_batches, total
from app.db.connect import connect
from app.db.database import Database
from app.db.locks import when_locks_are_free
from app.db.postponed import read_postponed, run_postponed, words
from app.db.types import Base
from app.errors import Unavailable

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

APP = Path(__file__).parents[1]
FOLDER = next(folder for folder in (APP / "alembic", APP.parent / "alembic") if folder.is_dir())
"""The migrations: inside the package where a wheel has installed it, and beside it in a clone."""
VERSION = text("SELECT version_num FROM alembic_version")
PATIENCE = 24 * 3600  # seconds that a migration, or another statement of an operator's, may take or wait


class SchemaUnknown(Unavailable):
    detail = "The database's schema is not known and lacks what this version needs: run the version that made it"
    code = "schema_unknown"


class SeveralHeads(Unavailable):
    """No other migration builds on these: two branches of the code were merged."""

    code = "several_heads"

    def __init__(self, heads: list[str]) -> None:
        self.detail = f"{len(heads)} migrations are the newest, {' and '.join(heads)}: run alembic merge heads"


class MigrationFailed(Unavailable):
    code = "migration_failed"

    def __init__(self, revision: str, place: str, cause: BaseException) -> None:
        self.detail = f"{revision}: {words(cause)} ({place})"


class Backfill(NamedTuple):
    """Work on older rows that takes too long for a migration. It runs in short transactions, so nobody waits long."""

    is_pending: Callable[[Connection], bool]
    batch: Callable[[Connection, int], int]
    """Works on so many rows at most, and returns their number."""


async def bring_up_to_date(database: Database, url: URL, backfill: Backfill) -> bool:
    """Migrate, on a connection that waits longer than others. Then run the backfill, if it is pending.

    Return False, and leave the database alone, if its schema is of a newer version.
    """
    if await database.read(is_ahead):
        return False
    if not await database.read(is_current):
        async with connect(url, PATIENCE) as patient:
            await migrate(patient)
    if await database.read(backfill.is_pending):
        await total(in_batches(database, backfill.batch))
    return True


async def migrate(database: Database) -> None:
    """Bring the schema to the newest migration. Another process waits, and finds nothing to do.

    On PostgreSQL each migration is a transaction. On SQLite all of them are one.

    Raises MigrationFailed, PostponedFailed, LockHeld, SchemaUnknown, SeveralHeads.
    """
    try:
        await when_locks_are_free(database, upgrade)
    except Exception as error:
        cause = error.__cause__ if isinstance(error, Unavailable) and error.__cause__ else error
        for frame, line in reversed(list(traceback.walk_tb(cause.__traceback__))):
            if "down_revision" in frame.f_globals:
                place = f"{Path(frame.f_code.co_filename).name}, line {line}"
                raise MigrationFailed(frame.f_globals["revision"], place, cause) from error
        raise


def upgrade(connection: Connection) -> None:
    """Run the migrations that lack. `migrate` says more where one fails."""
    from alembic import command  # noqa: PLC0415 - only this function needs it
    from alembic.config import Config  # noqa: PLC0415

    is_in_transaction = connection.in_transaction()
    newest()
    if not is_known(connection):
        raise SchemaUnknown
    if not is_in_transaction:
        run_postponed(connection)
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    command.upgrade(config, "head")


def is_usable(connection: Connection) -> bool:
    """Whether the schema is at least this version's."""
    return is_current(connection) or is_ahead(connection)


def is_current(connection: Connection) -> bool:
    """Whether the schema is at the newest migration, and nothing of it is left to do."""
    return versions(connection) == {newest()} and not read_postponed(connection)


def is_ahead(connection: Connection) -> bool:
    """Whether a newer version has migrated the schema. Newer migrations only add, so this version can work with it.

    Raises SchemaUnknown if tables or columns lack: the schema may be much newer, or that of another program.
    """
    if is_known(connection):
        return False
    found = inspect(connection).get_multi_columns(filter_names=list(Base.metadata.tables))
    for name, table in Base.metadata.tables.items():
        if not set(table.columns.keys()) <= {column["name"] for column in found.get((None, name), [])}:
            raise SchemaUnknown
    return True


def is_known(connection: Connection) -> bool:
    """Whether this version has the migrations that the schema is at."""
    return versions(connection) <= {script.revision for script in scripts().walk_revisions()}


def versions(connection: Connection) -> set[str]:
    """The migrations that the schema is at: none at first, one, or several before Alembic merges them."""
    if not inspect(connection).has_table("alembic_version"):
        return set()
    return set(connection.execute(VERSION).scalars())


def newest() -> str:
    """The migration that no other builds on. Raises SeveralHeads if there are several."""
    heads = scripts().get_heads()
    if len(heads) != 1:
        raise SeveralHeads(heads)
    return heads[0]


@lru_cache(1)
def scripts() -> "ScriptDirectory":
    """The migrations. Alembic takes 80 ms of CPU to import, and 5 ms to read them."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - most commands do without it

    return ScriptDirectory(str(FOLDER))
