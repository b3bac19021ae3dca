"""SQLite as a `Database`: reads on the event loop, writes and long reads on a thread each."""

import asyncio
import os
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from app.database import Database, DatabaseUnavailable
from app.errors import AppError

T = TypeVar("T")
F = TypeVar("F")

STEPS = 2_000  # instructions of SQLite's virtual machine from one look at a read to the next
LOOKS_ON_LOOP = 10  # that makes about a millisecond
WAL_PAUSE = 0.01  # seconds
LOCK_PAUSE = 0.001  # seconds


class SQLite(Database):
    """Reads run on the event loop: in WAL mode a reader waits for nobody, and a thread hop costs ten times the query.

    One that turns out long is broken off, and starts again on a thread for long reads, one at a time. Writes run one at
    a time on another, where to wait for another process or for the disk stalls nobody.
    """

    dialect = "sqlite"

    def __init__(self, url: URL, wait: float) -> None:
        self._wait = wait
        self._reader = KeptConnection(self._engine(url, wait, self._is_long))
        self._long_reader = KeptConnection(self._engine(url, wait, self._is_over))
        self._writer = KeptConnection(self._engine(url, 0))
        self._connections = self._reader, self._long_reader, self._writer
        self._read_thread = ThreadPoolExecutor(1, "sqlite-reader")
        self._write_thread = ThreadPoolExecutor(1, "sqlite-writer")
        self._looks = 0
        self._read_deadline = 0.0
        self._write_deadline = 0.0
        self._gives_way = False

    def _engine(self, url: URL, timeout: float, has_had_its_time: Callable[[], bool] | None = None) -> Engine:
        """Without an isolation level the driver begins no transactions: the one mode in which writers wait properly."""

        def prepare(connection: Any, _: object) -> None:
            _set_pragmas(connection, self._wait)
            connection.set_progress_handler(has_had_its_time, STEPS)

        connect_args = {"isolation_level": None, "timeout": timeout}
        engine = create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=connect_args)
        event.listen(engine, "do_connect", _make_for_owner)
        event.listen(engine, "connect", prepare)
        return engine

    async def _read(self, f: Callable[[Connection], T]) -> T:
        self._looks = 0
        try:
            return self._reader.run(f)
        except OperationalError as error:
            if not _is_interrupted(error):
                raise
        return await self._in_turn(self._read_thread, self._read_by, f)

    def _is_long(self) -> bool:
        """Looks are counted for each read: SQLite counts the steps of a statement over all its runs."""
        self._looks += 1
        return self._looks > LOOKS_ON_LOOP

    def _read_by(self, deadline: float, f: Callable[[Connection], T]) -> T:
        self._read_deadline = deadline
        return self._long_reader.run(f)

    def _is_over(self) -> bool:
        return time.monotonic() > self._read_deadline

    async def _write(self, f: Callable[[Connection], T]) -> T:
        return await self._in_turn(self._write_thread, self._write_by, f)

    _write_one = _write

    def _write_by(self, deadline: float, f: Callable[[Connection], T]) -> T:
        self._write_deadline = deadline
        return self._writer.run(lambda connection: self._in_transaction(connection, f))

    async def _in_turn(self, thread: Executor, run: Callable[[float, F], T], f: F) -> T:
        """Run it with its deadline; give up what has waited until then for those before it."""
        deadline = time.monotonic() + self._wait

        def run_unless_over() -> T:
            if time.monotonic() > deadline:
                raise DatabaseUnavailable
            return run(deadline, f)

        return await asyncio.get_running_loop().run_in_executor(thread, run_unless_over)

    def _in_transaction(self, connection: Connection, f: Callable[[Connection], T]) -> T:
        with connection.begin():
            self._lock(connection)
            return f(connection)

    def _lock(self, connection: Connection) -> None:
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
        return sum(connection.is_in_use for connection in self._connections), len(self._connections)

    async def close(self) -> None:
        self._read_deadline = 0.0
        self._read_thread.shutdown(cancel_futures=True)
        self._write_thread.shutdown()
        for connection in self._connections:
            connection.close()


class KeptConnection:
    """One connection, for one call at a time, that stays open: to be lent one by a pool takes as long as a query.

    Any error but an `AppError` closes it, and the next call opens another: what state it is in is unknown, and after an
    interrupt the driver would compile that statement again at each use.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self.is_in_use = False

    def run(self, f: Callable[[Connection], T]) -> T:
        """Run `f` on it, opened if need be."""
        self.is_in_use = True
        try:
            self._connection = self._connection or self._engine.connect()
            return f(self._connection)
        except AppError:
            raise
        except BaseException:
            self.close()
            raise
        finally:
            self.is_in_use = False

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _make_for_owner(_dialect: object, _record: object, names: Sequence[str], _options: object) -> None:
    """Let nobody else on this host read the file, nor those that SQLite makes beside it.

    One that exists is not opened: to close it would take this process's locks off it (SQLite's howtocorrupt.html §2.2).
    """
    with suppress(FileExistsError):
        os.close(os.open(names[0], os.O_CREAT | os.O_EXCL, 0o600))


def _is_interrupted(error: OperationalError) -> bool:
    """By a look at it."""
    return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT


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
