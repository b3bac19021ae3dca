"""Connections to SQLite's file: how they are made, kept open, worked on by a thread, and given the lock to write."""

import asyncio
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.pool import NullPool

from app.db.database import LongRead
from app.db.errors import DatabaseUnavailable
from app.db.sqlite_file import SQLiteFile, inode
from app.errors import AppError

T = TypeVar("T")

WAL_BYTES = 4 * 1024 * 1024  # SQLite starts the WAL again at about this size, unless a read runs
LOCK_PAUSE = 0.001  # seconds
INTERRUPT_PAUSE = 0.01  # seconds


def make_engine(file: SQLiteFile, timeout: float, wait: float) -> Engine:
    """Make an engine. A connection waits `timeout` seconds for a lock, and `wait` while another process makes the file.

    Without an isolation level the driver begins no transactions. Writers wait properly in no other mode.
    """
    options = {"isolation_level": None, "timeout": timeout, "check_same_thread": False}
    engine = create_engine("sqlite://", poolclass=NullPool, hide_parameters=True)
    event.listen(engine, "do_connect", lambda *_: file.connect(**options))

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        _set_pragmas(connection, time.monotonic() + wait)
        record.info["wal"] = inode(file.wal)

    return engine


class KeptConnection:
    """A connection that stays open, for one call at a time. A pool would take as long as a query.

    An error closes the connection, because its state is unknown then, and the next call opens another. After an
    interrupt the driver would also compile that statement again at each use. `AppError` and `LongRead` leave it open.
    """

    def __init__(self, file: SQLiteFile, engine: Engine) -> None:
        self._file = file
        self._engine = engine
        self._connection: Connection | None = None
        self.is_in_use = False

    def run(self, f: Callable[[Connection], T]) -> T:
        """Run `f` on the connection. Open it first if it is closed."""
        self.is_in_use = True
        try:
            self._connection = self._connection or self._engine.connect()
            return f(self._connection)
        except (AppError, LongRead):
            raise
        except BaseException as error:
            self.close()
            if isinstance(error, (DBAPIError, sqlite3.Error, OSError)):
                self._file.note(error)
            raise
        finally:
            self.is_in_use = False

    def interrupt(self) -> None:
        """End the statement that runs. Any thread may call this."""
        # These errors say that the connection is closed, or is closing.
        with suppress(AttributeError, sqlite3.ProgrammingError, InvalidRequestError):
            self._connection.connection.driver_connection.interrupt()  # type: ignore[union-attr]

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Worker:
    """A thread with a connection. It runs one function at a time, in the order of the calls."""

    def __init__(self, name: str, file: SQLiteFile, engine: Engine) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self.kept = KeptConnection(file, engine)
        self._lock = threading.Lock()  # for `_running`: an interrupt must not hit the call after the one it is for
        self._running: object = None
        self._is_closed = False

    async def run(self, f: Callable[[Connection], T], deadline: float) -> T:
        """Run `f`, and interrupt it at the deadline or when the caller is cancelled: it raises OperationalError then.

        Raises DatabaseUnavailable if `f` waited until the deadline. It does not run later.
        """
        call = object()
        future = self._thread.submit(self._run, call, f, deadline)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(deadline - time.monotonic(), self._end, call, future, loop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self._end(call, future, loop)
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            raise DatabaseUnavailable from None
        finally:
            timer.cancel()

    def _run(self, call: object, f: Callable[[Connection], T], deadline: float) -> T:
        if self._is_closed or time.monotonic() > deadline:
            raise DatabaseUnavailable
        with self._lock:
            self._running = call
        try:
            return self.kept.run(f)
        finally:
            with self._lock:
                self._running = None

    def _end(self, call: object, future: Future[Any], loop: asyncio.AbstractEventLoop) -> None:
        """Cancel a call that waits. Interrupt one that runs until it ends, because between statements it has no effect.

        SQLite's progress handler would not do: FTS5 works for long without a call of it.
        """
        if not future.cancel() and not future.done():
            with self._lock:
                if self._running is call:  # pragma: no branch - it may begin or end at this moment
                    self.kept.interrupt()
            loop.call_later(INTERRUPT_PAUSE, self._end, call, future, loop)

    def close(self, *, at_once: bool = False) -> None:
        """Wait for the calls so far, or interrupt them `at_once`. Then close the connection."""
        self._is_closed = at_once
        last = self._thread.submit(self.kept.close)
        while at_once and not last.done():
            self.kept.interrupt()
            time.sleep(INTERRUPT_PAUSE / 10)
        self._thread.shutdown()


def execute_when_free(connection: Any, statement: str, deadline: float) -> bool:
    """Execute a statement that needs a lock of the file. Return whether it had to wait for another process.

    SQLite's own way to wait lets some processes wait for seconds. Raises sqlite3.OperationalError at the deadline.
    """
    has_waited = False
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            has_waited = True
            time.sleep(LOCK_PAUSE * random.uniform(0.5, 1.5))  # noqa: S311 - two processes must not keep step
        else:
            return has_waited


def _set_pragmas(connection: Any, deadline: float) -> None:
    """Set FULL, not NORMAL, because a logout that was answered must survive a power cut.

    Processes that start at once on a new file all switch it to WAL. SQLite fails where it should wait for a switch.
    """
    pragmas = "synchronous=FULL", "foreign_keys=ON", f"journal_size_limit={WAL_BYTES}", "journal_mode=WAL"
    for pragma in pragmas:
        execute_when_free(connection, f"PRAGMA {pragma}", deadline)
