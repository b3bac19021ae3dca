"""The database as four verbs: read, read_for, write and autocommit.

`await db.read(f, …)` and `await db.write(f, …)` run `f(connection, …)`, a plain function of SQLAlchemy Core, once, in
one go: `read` in autocommit, `write` in one transaction, committed before it returns and rolled back if `f` raises;
`autocommit` where each statement may be a transaction by itself, which saves the round trips for one around them.
`read_for` is `read` for a caller. Long reads take turns by caller.
"""

import logging
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Concatenate, Final, Literal, ParamSpec, Protocol, TypeVar

from fastapi import Depends, Request
from sqlalchemy import Connection, CursorResult, Dialect, Executable, Row, Select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.errors import Unavailable

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
AnyRow = Row[*tuple[Any, ...]]
AnySelect = Select[*tuple[Any, ...]]


class AnyConnection(Protocol):
    """A `Connection`, or one that guards what it executes."""

    @property
    def dialect(self) -> Dialect: ...

    def get_execution_options(self) -> Mapping[str, Any]: ...

    def execute(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None, /
    ) -> CursorResult[*tuple[Any, ...]]: ...


UNDEFINED = {"42P01", "42703"}  # PostgreSQL's undefined_table and undefined_column


SERVICE: Final = "the service"
ANYONE: Final = "anyone"
"""Callers of reads besides users: the service itself, and all callers without a token together."""


class LongRead(Exception):
    """A read that may take long was begun where no long read may run. It begins again elsewhere."""


def expect_long(connection: AnyConnection, kind: Literal["search", "walk"]) -> None:
    """Say that what follows may take long. A function calls it before it does so, and runs again from its beginning.

    A `search` looks into SQLite's index of words, where it cannot be broken off: it must not run on the event loop. A
    `walk` goes along a list until it has found enough: SQLite breaks it off once it takes long.
    """
    if kind in connection.get_execution_options().get("refuses", ()):
        raise LongRead


class DatabaseUnavailable(Unavailable):
    detail = "The database is not available"
    code = "database_unavailable"


class SchemaBehind(Unavailable):
    detail = "The database's schema is not this version's: run python -m app migrate"
    code = "schema_behind"


class Database(ABC):
    """A database as the verbs that everything else is written in. `connect` makes one."""

    dialect: str

    async def read(self, f: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `f` in autocommit.

        Raises:
            DatabaseUnavailable: it cannot be reached, or is too busy to answer in time.
        """
        return await self.read_for(SERVICE, f, *args, **kwargs)

    async def read_for(
        self, caller: str, f: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Read for a user, by id, or for `ANYONE`. A caller's long reads have a share.

        Raises:
            DatabaseUnavailable: as `read`; or the caller has too many long reads.
        """
        with _unavailable():
            return await self._read(lambda connection: f(connection, *args, **kwargs), caller)

    async def write(self, f: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `f` in a transaction: committed when it returns, rolled back when it raises.

        Raises:
            DatabaseUnavailable: it cannot be reached, or is too busy to answer in time.
        """
        with _unavailable():
            return await self._write(lambda connection: f(connection, *args, **kwargs))

    async def autocommit(self, f: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `f`, no two statements of which must be kept or lost together: each may be a transaction by itself.

        Raises:
            DatabaseUnavailable: it cannot be reached, or is too busy to answer in time.
        """
        with _unavailable():
            return await self._autocommit(lambda connection: f(connection, *args, **kwargs))

    @abstractmethod
    async def _read(self, f: Callable[[Connection], T], caller: str) -> T: ...

    @abstractmethod
    async def _write(self, f: Callable[[Connection], T]) -> T: ...

    @abstractmethod
    async def _autocommit(self, f: Callable[[Connection], T]) -> T: ...

    @abstractmethod
    def usage(self) -> tuple[int, int]:
        """How many connections are in use, and how many may be."""

    @abstractmethod
    async def close(self) -> None: ...


@contextmanager
def _unavailable() -> Iterator[None]:
    """A fault of the database's, rather than of our statement's, is `DatabaseUnavailable` or `SchemaBehind`."""
    try:
        yield
    except (DBAPIError, sqlite3.Error, PoolTimeoutError, OSError, TimeoutError) as error:
        if isinstance(error, DBAPIError) and _lacks_a_table(error):
            raise SchemaBehind from error
        if isinstance(error, (ProgrammingError, IntegrityError, DataError)):
            raise
        logger.warning("database unavailable: %r", getattr(error, "orig", error))
        raise DatabaseUnavailable from error


def sqlstate(error: DBAPIError) -> str | None:
    """PostgreSQL's code for what went wrong, from the driver's error: SQLAlchemy's own does not have it each time."""
    return getattr(error.orig and error.orig.__cause__, "sqlstate", None)


def _lacks_a_table(error: DBAPIError) -> bool:
    """Or a column."""
    return sqlstate(error) in UNDEFINED or str(error.orig).startswith("no such ")


async def get_database(request: Request) -> Database:
    database: Database = request.app.state.services.database
    return database


Db = Annotated[Database, Depends(get_database)]
