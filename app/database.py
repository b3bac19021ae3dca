"""The database as two verbs: read and write.

`await db.read(f, …)` and `await db.write(f, …)` run `f(connection, …)`, a plain function of SQLAlchemy Core, once, in
one go: `read` in autocommit, `write` in one transaction, committed before it returns and rolled back if `f` raises.
"""

import asyncio
import logging
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import asyncpg
from fastapi import Depends, Request
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Row,
    Select,
    create_engine,
    event,
)
from sqlalchemy.exc import DataError, DBAPIError, DisconnectionError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import greenlet_spawn

from app.errors import Unavailable

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
AnyRow = Row[*tuple[Any, ...]]
AnySelect = Select[*tuple[Any, ...]]

WAIT = 5  # seconds for a lock of SQLite's, or a statement of PostgreSQL's
WAL_PAUSE = 0.01  # seconds
POOL_SIZE = 10
POOL_WAIT = 3  # seconds
UNDEFINED = {"42P01", "42703"}  # PostgreSQL's undefined_table and undefined_column


class DatabaseUnavailable(Unavailable):
    detail = "The database is not available"


class SchemaBehind(Unavailable):
    detail = "The database's schema is not this version's: run python -m app migrate"


class Database(ABC):
    """A database as the two verbs that everything else is written in. `connect` makes one."""

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

    @abstractmethod
    async def _read(self, f: Callable[[Connection], T]) -> T: ...

    @abstractmethod
    async def _write(self, f: Callable[[Connection], T]) -> T: ...

    @abstractmethod
    async def close(self) -> None: ...


class SQLite(Database):
    """Reads run on the event loop: in WAL mode a reader waits for nobody, and a thread hop costs ten times the query.

    Writes run one at a time on a thread of their own, where to wait for another process or for the disk stalls nobody.
    """

    dialect = "sqlite"

    def __init__(self, url: URL, wait: float) -> None:
        # Without an isolation level the driver begins no transactions: the one mode in which writers wait properly.
        self._reader = create_engine(url, hide_parameters=True, connect_args={"isolation_level": None, "timeout": wait})
        event.listen(self._reader, "connect", lambda connection, _: _set_pragmas(connection, wait))
        self._writer = self._reader.execution_options()
        event.listen(self._writer, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        self._thread = ThreadPoolExecutor(1, "sqlite-writer")

    async def _read(self, f: Callable[[Connection], T]) -> T:
        with self._reader.connect() as connection:
            return f(connection)

    async def _write(self, f: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, _in_transaction, self._writer, f)

    async def close(self) -> None:
        self._thread.shutdown()
        self._reader.dispose()


class PostgreSQL(Database):
    """One greenlet a call, in which the plain function runs as if the driver were a blocking one."""

    dialect = "postgresql"

    def __init__(self, url: URL, wait: float) -> None:
        dsn = url.render_as_string(hide_password=False)
        server_settings = {
            "statement_timeout": f"{wait}s",
            "idle_in_transaction_session_timeout": f"{2 * wait}s",
        }
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            # asyncpg reads the URL itself: SQLAlchemy does not know libpq's parameters, such as sslmode.
            async_creator=partial(
                asyncpg.connect, dsn, timeout=POOL_WAIT, command_timeout=2 * wait, server_settings=server_settings
            ),
            hide_parameters=True,
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=POOL_WAIT,
        )
        self._writer = self._engine.sync_engine
        event.listen(self._writer, "checkout", _refuse_closed)
        self._reader = self._writer.execution_options(isolation_level="AUTOCOMMIT")

    async def _read(self, f: Callable[[Connection], T]) -> T:
        return await greenlet_spawn(_in_connection, self._reader, f)

    async def _write(self, f: Callable[[Connection], T]) -> T:
        return await greenlet_spawn(_in_transaction, self._writer, f)

    async def close(self) -> None:
        await self._engine.dispose()


@asynccontextmanager
async def connect(url: URL, wait: int = WAIT) -> AsyncIterator[Database]:
    """Open a database, lazily: the first `read` or `write` connects. `wait`: seconds that a statement may take."""
    database = SQLite(url, wait) if url.drivername == "sqlite" else PostgreSQL(url, wait)
    try:
        yield database
    finally:
        await database.close()


def _in_connection(engine: Engine, f: Callable[[Connection], T]) -> T:
    with engine.connect() as connection:
        return f(connection)


def _in_transaction(engine: Engine, f: Callable[[Connection], T]) -> T:
    with engine.begin() as connection:
        return f(connection)


@contextmanager
def _unavailable() -> Iterator[None]:
    """A fault of the database's, rather than of our statement's, is `DatabaseUnavailable` or `SchemaBehind`."""
    try:
        yield
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) in UNDEFINED:
            raise SchemaBehind from error
        raise
    except (IntegrityError, DataError):
        raise
    except (DBAPIError, PoolTimeoutError, OSError, TimeoutError) as error:
        logger.warning("database unavailable: %r", getattr(error, "orig", error))
        raise DatabaseUnavailable from error


def _set_pragmas(connection: Any, wait: float) -> None:
    """FULL, not NORMAL: a logout or a detected reuse that was answered must survive a power cut.

    Processes that start at once on a new file all switch it to WAL, and SQLite fails where it should wait for a switch.
    """
    for pragma in "synchronous=FULL", "foreign_keys=ON":
        connection.execute(f"PRAGMA {pragma}")
    deadline = time.monotonic() + wait
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if time.monotonic() > deadline:
                raise DatabaseUnavailable from error
            time.sleep(WAL_PAUSE)
        else:
            return


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    """Have the pool replace a connection whose socket has closed: asyncpg knows it without pre-ping's round trip."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


async def get_database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


Db = Annotated[Database, Depends(get_database)]
