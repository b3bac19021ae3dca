"""Connections to SQLite's file: how they are made, kept open, and given the lock to write."""

import os
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.pool import NullPool

from app.db.database import DatabaseUnavailable, LongRead
from app.errors import AppError

T = TypeVar("T")

WAL_BYTES = 4 * 1024 * 1024  # SQLite starts the WAL again at about this size, unless a read runs
WAL_PAUSE = 0.01  # seconds
LOCK_PAUSE = 0.001  # seconds


def make_engine(url: URL, timeout: float, wait: float) -> Engine:
    """Make an engine. A connection waits `timeout` seconds for a lock, and `wait` while another process makes the file.

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
    """A connection that stays open, for one call at a time. A pool would take as long as a query.

    An error closes the connection, because its state is unknown then, and the next call opens another. After an
    interrupt the driver would also compile that statement again at each use. `AppError` and `LongRead` leave it open.
    """

    def __init__(self, engine: Engine) -> None:
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
        except BaseException:
            self.close()
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


class WriteLock:
    """SQLite's lock for the one writer, which several processes share fairly.

    A process that has waited for the lock gives way at its next write. SQLite's own way to wait lets some processes
    wait for seconds.
    """

    _gives_way = False

    def take(self, connection: Connection, deadline: float) -> None:
        """Begin a transaction that has the lock.

        Raises:
            sqlite3.OperationalError: another process has held the lock until the deadline.
        """
        if self._gives_way:
            time.sleep(LOCK_PAUSE)
        self._gives_way = False
        while True:
            try:
                connection.connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                self._gives_way = True
                time.sleep(LOCK_PAUSE * random.uniform(0.5, 1.5))  # noqa: S311 - two processes must not keep step
            else:
                return


def _make_for_owner(_dialect: object, _record: object, names: Sequence[str], _options: object) -> None:
    """Make the file so that no other user of this host can read it. SQLite gives its files beside it the same mode.

    A file that exists is not opened: to close it would drop this process's locks (SQLite's howtocorrupt.html §2.2).
    """
    with suppress(FileExistsError):
        os.close(os.open(names[0], os.O_CREAT | os.O_EXCL, 0o600))


def _set_pragmas(connection: Any, wait: float) -> None:
    """Set FULL, not NORMAL, because a logout that was answered must survive a power cut.

    Processes that start at once on a new file all switch it to WAL. SQLite fails where it should wait for a switch.
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
