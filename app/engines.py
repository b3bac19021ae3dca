"""The two databases that there are: SQLite and PostgreSQL, each in the way that costs the least."""

import asyncio
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar, cast

import asyncpg
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import greenlet_spawn

from app.database import Database, DatabaseUnavailable, sqlstate

T = TypeVar("T")
F = TypeVar("F")

WAIT = 5  # seconds for a lock of SQLite's, or a statement of PostgreSQL's
STEPS_ON_LOOP = 20_000  # instructions of SQLite's virtual machine, in a statement: about a millisecond
STEPS_IN_TURN = 1_000_000
WAL_PAUSE = 0.01  # seconds
LOCK_PAUSE = 0.001  # seconds
POOL_SIZE = 10
POOL_WAIT = 2  # seconds
AGAIN = {"40001", "40P01", "0A000"}  # a conflict, a deadlock, a plan that a migration made invalid: nothing was done
TRIES = 3


class SQLite(Database):
    """Reads run on the event loop: in WAL mode a reader waits for nobody, and a thread hop costs ten times the query.

    One that turns out long is broken off, and begins anew on a thread for such, one at a time. Writes run one at a time
    on another, where to wait for another process or for the disk stalls nobody.
    """

    dialect = "sqlite"

    def __init__(self, url: URL, wait: float) -> None:
        self._wait = wait
        self._reader = self._engine(url, wait, STEPS_ON_LOOP, lambda: True)
        self._long_reader = self._engine(url, wait, STEPS_IN_TURN, lambda: time.monotonic() > self._read_deadline)
        self._writer = self._engine(url, 0)
        event.listen(self._writer, "begin", self._begin)
        self._read_thread, self._write_thread = (ThreadPoolExecutor(1, f"sqlite-{name}") for name in ("read", "write"))
        self._read_deadline = self._write_deadline = 0.0
        self._gives_way = False

    def _engine(self, url: URL, timeout: float, steps: int = 0, is_over: Callable[[], bool] | None = None) -> Engine:
        """Without an isolation level the driver begins no transactions: the one mode in which writers wait properly."""

        def prepare(connection: Any, _: object) -> None:
            _set_pragmas(connection, self._wait)
            connection.set_progress_handler(is_over, steps)

        engine = create_engine(url, hide_parameters=True, connect_args={"isolation_level": None, "timeout": timeout})
        event.listen(engine, "connect", prepare)
        return engine

    async def _read(self, f: Callable[[Connection], T]) -> T:
        try:
            return _in_connection(self._reader, f)
        except OperationalError as error:
            if cast("sqlite3.Error", error.orig).sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
        return await self._in_turn(self._read_thread, self._read_by, f)

    def _read_by(self, deadline: float, f: Callable[[Connection], T]) -> T:
        self._read_deadline = deadline
        return _in_connection(self._long_reader, f)

    async def _write(self, f: Callable[[Connection], T]) -> T:
        return await self._in_turn(self._write_thread, self._write_by, f)

    _write_one = _write

    def _write_by(self, deadline: float, f: Callable[[Connection], T]) -> T:
        self._write_deadline = deadline
        return _in_transaction(self._writer, f)

    async def _in_turn(self, thread: Executor, run: Callable[[float, F], T], f: F) -> T:
        """Run it with its deadline; give up what has waited until then for those before it."""
        deadline = time.monotonic() + self._wait

        def run_unless_over() -> T:
            if time.monotonic() > deadline:
                raise DatabaseUnavailable
            return run(deadline, f)

        return await asyncio.get_running_loop().run_in_executor(thread, run_unless_over)

    def _begin(self, connection: Connection) -> None:
        """Take the lock, and give way to who waits for it: by SQLite's own way to wait some wait for seconds."""
        if self._gives_way:
            time.sleep(LOCK_PAUSE)
        self._gives_way = False
        while True:
            try:
                connection.connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > self._write_deadline:
                    raise
                self._gives_way = True
                time.sleep(LOCK_PAUSE * random.uniform(0.5, 1.5))  # noqa: S311 - so that two do not keep step
            else:
                return

    def usage(self) -> tuple[int, int]:
        engines = (self._reader, self._long_reader, self._writer)
        return sum(map(_used, engines)), len(engines)

    async def close(self) -> None:
        for thread in self._read_thread, self._write_thread:
            thread.shutdown()
        for engine in self._reader, self._long_reader, self._writer:
            engine.dispose()


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
                asyncpg.connect, dsn, timeout=POOL_WAIT, command_timeout=wait + 1, server_settings=server_settings
            ),
            isolation_level="AUTOCOMMIT",  # of the engine, not an option: that would be set anew for each read
            hide_parameters=True,
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=POOL_WAIT,
        )
        self._reader = self._engine.sync_engine
        event.listen(self._reader, "checkout", _refuse_closed)
        self._writer = self._reader.execution_options(isolation_level="READ COMMITTED")

    async def _read(self, f: Callable[[Connection], T]) -> T:
        return await self._again(_in_connection, self._reader, f)

    async def _write(self, f: Callable[[Connection], T]) -> T:
        return await self._again(_in_transaction, self._writer, f)

    _write_one = _read

    async def _again(
        self, run: Callable[[Engine, Callable[[Connection], T]], T], engine: Engine, f: Callable[[Connection], T]
    ) -> T:
        for _ in range(TRIES - 1):
            try:
                return await greenlet_spawn(run, engine, f)
            except DBAPIError as error:
                if sqlstate(error) not in AGAIN:
                    raise
        return await greenlet_spawn(run, engine, f)

    def usage(self) -> tuple[int, int]:
        return _used(self._reader), POOL_SIZE

    async def close(self) -> None:
        """Say goodbye, but not for long: a server that has gone silent would be waited for at each connection."""
        with suppress(TimeoutError):
            async with asyncio.timeout(POOL_WAIT):
                await self._engine.dispose()


@asynccontextmanager
async def connect(url: URL, wait: float = WAIT) -> AsyncIterator[Database]:
    """Open a database, lazily: the first `read` or `write` connects. `wait`: seconds that a statement may take."""
    database = SQLite(url, wait) if url.drivername == "sqlite" else PostgreSQL(url, wait)
    try:
        yield database
    finally:
        await database.close()


def _used(engine: Engine) -> int:
    return cast("QueuePool", engine.pool).checkedout()


def _in_connection(engine: Engine, f: Callable[[Connection], T]) -> T:
    with engine.connect() as connection:
        return f(connection)


def _in_transaction(engine: Engine, f: Callable[[Connection], T]) -> T:
    with engine.begin() as connection:
        return f(connection)


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
