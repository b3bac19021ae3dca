"""The database as three verbs: read, write and write_one.

`await db.read(f, …)` and `await db.write(f, …)` run `f(connection, …)`, a plain function of SQLAlchemy Core, once, in
one go: `read` in autocommit, `write` in one transaction, committed before it returns and rolled back if `f` raises;
`write_one` where each statement may be a transaction by itself, which saves the round trips for one around them.
"""

import logging
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

from fastapi import Depends, Request
from sqlalchemy import Connection, Row, Select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.errors import Unavailable

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
AnyRow = Row[*tuple[Any, ...]]
AnySelect = Select[*tuple[Any, ...]]

UNDEFINED = {"42P01", "42703"}  # PostgreSQL's undefined_table and undefined_column


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
        with _unavailable():
            return await self._read(lambda connection: f(connection, *args, **kwargs))

    async def write(self, f: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `f` in a transaction: committed when it returns, rolled back when it raises.

        Raises:
            DatabaseUnavailable: it cannot be reached, or is too busy to answer in time.
        """
        with _unavailable():
            return await self._write(lambda connection: f(connection, *args, **kwargs))

    async def write_one(self, f: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `f`, no two statements of which must be kept or lost together: each may be a transaction by itself.

        Raises:
            DatabaseUnavailable: it cannot be reached, or is too busy to answer in time.
        """
        with _unavailable():
            return await self._write_one(lambda connection: f(connection, *args, **kwargs))

    @abstractmethod
    async def _read(self, f: Callable[[Connection], T]) -> T: ...

    @abstractmethod
    async def _write(self, f: Callable[[Connection], T]) -> T: ...

    @abstractmethod
    async def _write_one(self, f: Callable[[Connection], T]) -> T: ...

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
    database: Database = request.app.state.database
    return database


Db = Annotated[Database, Depends(get_database)]
