"""The errors of a database: each says one thing that can be wrong with it. All are answered with 503."""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.errors import Unavailable

logger = logging.getLogger(__name__)

MAX_WORDS = 300  # characters of a message of a driver's


class DatabaseUnavailable(Unavailable):
    detail = "The database is not available"
    code = "database_unavailable"


class DatabaseReadOnly(DatabaseUnavailable):
    detail = "The database is read-only"
    code = "database_read_only"


class DatabaseIsStandby(DatabaseReadOnly):
    detail = "The database server is a standby, which takes no writes"
    code = "database_is_standby"


class SchemaBehind(Unavailable):
    detail = "The database's schema is not this version's: run python -m app migrate"
    code = "schema_behind"


class DatabaseForbidden(DatabaseUnavailable):
    detail = (
        "The database's role lacks privileges: it needs USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE on "
        "every table"
    )
    code = "database_forbidden"


class DatabaseNotUTF8(DatabaseUnavailable):
    detail = "The database's encoding is not UTF-8: make it with createdb --encoding UTF8 --template template0"
    code = "database_not_utf8"


class PoolerForgets(DatabaseUnavailable):
    detail = (
        "The pooler in front of PostgreSQL loses prepared statements: use PgBouncer 1.21 or newer with "
        "max_prepared_statements, or pool_mode = session"
    )
    code = "pooler_forgets"


class DatabaseFileReadOnly(DatabaseReadOnly):
    detail = "The database's file, its folder or their file system is read-only"
    code = "database_file_read_only"


class DatabaseDiskFull(DatabaseUnavailable):
    detail = "The disk of the database is full"
    code = "database_disk_full"


class DatabaseDamaged(DatabaseUnavailable):
    detail = "The database's file is damaged: restore a backup"
    code = "database_damaged"
    headers = {}  # noqa: RUF012 - to wait does not help


class DatabaseFileGone(DatabaseUnavailable):
    detail = "The database's file is gone: put it back, or restore a backup and restart the service"
    code = "database_file_gone"
    headers = {}  # noqa: RUF012


class DatabaseFileReplaced(DatabaseUnavailable):
    detail = "The database's file or its WAL is another one than the service has opened: restart the service"
    code = "database_file_replaced"
    headers = {}  # noqa: RUF012


class DatabaseWALAlone(DatabaseUnavailable):
    detail = (
        "The database's file is gone, and the -wal file beside it has its last writes: put it back, or remove the "
        "-wal file to begin with an empty database"
    )
    code = "database_wal_alone"
    headers = {}  # noqa: RUF012


class PoolerRefuses(DatabaseUnavailable):
    detail = (
        "The pooler in front of PostgreSQL refuses the service's time limits: add statement_timeout and "
        "idle_in_transaction_session_timeout to its ignore_startup_parameters"
    )
    code = "pooler_refuses"


POSTGRESQL_ERRORS: Final[dict[str | None, type[Unavailable]]] = {
    "22P05": DatabaseNotUTF8,  # untranslatable_character
    "25006": DatabaseReadOnly,  # read_only_sql_transaction
    "26000": PoolerForgets,  # invalid_sql_statement_name
    "42501": DatabaseForbidden,  # insufficient_privilege
    "42703": SchemaBehind,  # undefined_column
    "42P01": SchemaBehind,  # undefined_table
    "42P05": PoolerForgets,  # duplicate_prepared_statement
}
"""SQLSTATEs that say what is wrong: PostgreSQL's manual, appendix A."""


@contextmanager
def unavailable() -> Iterator[None]:
    """Turn faults of the database into the errors of this module, and keep faults of a statement."""
    try:
        yield
    except (DBAPIError, sqlite3.Error, PoolTimeoutError, OSError, TimeoutError) as error:
        cause = getattr(error, "orig", error)
        fault = POSTGRESQL_ERRORS.get(sqlstate(error)) if isinstance(error, DBAPIError) else None
        if str(cause).startswith("no such "):  # table or column of SQLite
            fault = SchemaBehind
        if fault is None and isinstance(error, (ProgrammingError, IntegrityError, DataError)):
            raise
        logger.warning("database unavailable: %r", cause)
        raise (fault or DatabaseUnavailable) from error


def words(error: BaseException) -> str:
    """Say in one line, without a secret, what a driver or the system has met."""
    if isinstance(error, TimeoutError):
        return "does not answer"
    if isinstance(error, Unavailable):
        return error.reason
    if isinstance(error, OSError) and error.errno and type(error).__module__ == "builtins":
        return os.strerror(error.errno)  # asyncio's text repeats the address
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error).partition("\n")[0]
    return "".join(filter(str.isprintable, text))[:MAX_WORDS]


def sqlstate(error: DBAPIError) -> str | None:
    """Return PostgreSQL's code of an error, from the driver's error, because SQLAlchemy's does not always have it."""
    return getattr(error.orig and error.orig.__cause__, "sqlstate", None)
