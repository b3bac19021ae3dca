"""Connections to SQLite's file that stay open, with a thread of their own or without one."""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.pool import NullPool

from app.db.database import DatabaseUnavailable, LongRead
from app.errors import AppError

T = TypeVar("T")

WAL_BYTES = 4 * 1024 * 1024  # SQLite begins the file anew at about this size, unless a read is under way
WAL_PAUSE = 0.01  # seconds
INTERRUPT_PAUSE = 0.01  # seconds


def make_engine(url: URL, timeout: float, wait: float) -> Engine:
    """Make an engine. Its connections wait `timeout` seconds for a lock, and `wait` until another has made the file.

    Without an isolation level the driver begins no transactions. Writers wait properly in no other mode.
    """

    def prepare(connection: Any, _: object) -> None:
        _set_pragmas(connection, wait)

    connect_args = {"isolation_level": None, "timeout": timeout}
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=connect_args)
    event.listen(engine, "do_connect", _make_for_owner)
    event.listen(engine, "connect", prepare)
    return engine


class KeptConnection:
    """A connection that stays open, for one call at a time. To borrow one from a pool takes as long as a query.

    An error closes it, because its state is unknown then, and the next call opens another. After an interrupt the
    driver would also compile that statement again at each use. `AppError` and `LongRead` leave it open.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self.is_in_use = False

    def run(self, f: Callable[[Connection], T]) -> T:
        """Run `f` on it. Open it first, if it is closed."""
        self.is_in_use = True
        try:
            self._connection = self._connection or self._engine.connect()
            return f(self._connection)
        except (AppError, LongRead):
            raise
        except BaseException:
            self.close()
            raise
        finally:
            self.is_in_use = False

    def interrupt(self) -> None:
        """End the statement that runs. Any thread may call this."""
        with suppress(
            AttributeError, sqlite3.ProgrammingError, InvalidRequestError
        ):  # it is closed, or is being closed
            self._connection.connection.driver_connection.interrupt()  # type: ignore[union-attr]

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Worker:
    """A thread with a connection. It runs one function at a time, in the order in which they came."""

    def __init__(self, name: str, engine: Engine) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._kept = KeptConnection(engine)
        self._lock = threading.Lock()  # for `_running`: an interrupt must not hit the call after the one it is for
        self._running: object = None
        self._is_closed = False

    @property
    def is_in_use(self) -> bool:
        return self._kept.is_in_use

    async def run(self, f: Callable[[Connection], T], deadline: float) -> T:
        """Run `f`, or give it up at the deadline. A caller who is cancelled gives it up too.

        Raises:
            DatabaseUnavailable: it waited until the deadline. It does not run later.
            OperationalError: it was interrupted.
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
            return self._kept.run(f)
        finally:
            with self._lock:
                self._running = None

    def _end(self, call: object, future: Future[Any], loop: asyncio.AbstractEventLoop) -> None:
        """See to it that a call does not begin, or ends soon.

        It is interrupted until it is over: between two statements an interrupt does nothing. SQLite's progress handler
        would not do, because FTS5 works for long without a call of it.
        """
        if not future.cancel() and not future.done():
            with self._lock:
                if self._running is call:  # pragma: no branch - it may begin or end at this moment
                    self._kept.interrupt()
            loop.call_later(INTERRUPT_PAUSE, self._end, call, future, loop)

    def close(self, *, at_once: bool = False) -> None:
        """Wait for what has been begun; or `at_once` interrupt it, and begin nothing more."""
        self._is_closed = at_once
        last = self._thread.submit(self._kept.close)
        while at_once and not last.done():
            self._kept.interrupt()
            time.sleep(INTERRUPT_PAUSE / 10)
        self._thread.shutdown()


def _make_for_owner(_dialect: object, _record: object, names: Sequence[str], _options: object) -> None:
    """Let nobody else on this host read the file, nor those that SQLite makes beside it.

    One that exists is not opened: to close it would take this process's locks off it (SQLite's howtocorrupt.html §2.2).
    """
    with suppress(FileExistsError):
        os.close(os.open(names[0], os.O_CREAT | os.O_EXCL, 0o600))


def _set_pragmas(connection: Any, wait: float) -> None:
    """FULL, not NORMAL: a logout or a detected reuse that was answered must survive a power cut.

    Processes that start at once on a new file all switch it to WAL, and SQLite fails where it should wait for a switch.
    """
    for pragma in "synchronous=FULL", "foreign_keys=ON", f"journal_size_limit={WAL_BYTES}":
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
