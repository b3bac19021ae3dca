"""SQLite as a `Database`: reads on the event loop, writes and long reads on a thread each."""

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import OperationalError

from app.db.database import Database, DatabaseUnavailable, LongRead
from app.db.sqlite_connections import WAL_BYTES, KeptConnection, Worker, make_engine
from app.db.turns import Turns

T = TypeVar("T")

STEPS = 2_000  # instructions of SQLite's virtual machine from one look at a read to the next
LOOKS_ON_LOOP = 10  # that makes about a millisecond
LOCK_PAUSE = 0.001  # seconds
CHECKPOINTS = 20  # tries to empty the WAL, before the next long read
CHECKPOINT_PAUSE = 0.01  # seconds


class SQLite(Database):
    """Reads run on the event loop: in WAL mode a reader waits for nobody, and a thread hop costs ten times the query.

    A read that turns out long is broken off, and starts again on a thread for long reads. A search starts there. Long
    reads run one at a time, and callers take turns. Writes run one at a time on another thread, so that nobody else
    waits with them for another process or for the disk.
    """

    dialect = "sqlite"

    def __init__(self, url: URL, wait: float) -> None:
        self.wait = wait
        on_loop = make_engine(url, wait, wait)
        event.listen(on_loop, "connect", self._watch_steps)
        self._reader = KeptConnection(on_loop.execution_options(refuses={"search"}))
        self._long_reader = Worker("sqlite-reader", make_engine(url, wait, wait))
        self._writer = Worker("sqlite-writer", make_engine(url, 0, wait))
        self._turns = Turns(1, 1)
        self._wal = Path(f"{url.database}-wal")
        self._looks = 0
        self._gives_way = False

    async def _read(self, f: Callable[[Connection], T], caller: str) -> T:
        self._looks = 0
        try:
            return self._reader.run(f)
        except LongRead:
            pass
        except OperationalError as error:
            if not _is_interrupted(error):
                raise
        deadline = time.monotonic() + self.wait
        async with asyncio.timeout(self.wait), self._turns.turn(caller):
            await self._empty_wal(deadline)
            return await self._long_reader.run(f, deadline)

    def _watch_steps(self, connection: sqlite3.Connection, _: object) -> None:
        connection.set_progress_handler(self._is_long, STEPS)

    def _is_long(self) -> bool:
        """Looks are counted for each read: SQLite counts the steps of a statement over all its runs."""
        self._looks += 1
        return self._looks > LOOKS_ON_LOOP

    async def _empty_wal(self, deadline: float) -> None:
        """Empty the WAL if it has grown, while no long read is under way: without a gap between them it grows on."""
        for _ in range(CHECKPOINTS):
            if not self._is_wal_large():
                return
            with suppress(OperationalError, DatabaseUnavailable):
                await self._writer.run(_checkpoint, deadline)
            await asyncio.sleep(CHECKPOINT_PAUSE if self._is_wal_large() else 0)

    def _is_wal_large(self) -> bool:
        return self._wal.exists() and self._wal.stat().st_size > WAL_BYTES

    async def _write(self, f: Callable[[Connection], T]) -> T:
        deadline = time.monotonic() + self.wait
        return await self._writer.run(lambda connection: self._in_transaction(connection, f, deadline), deadline)

    _autocommit = _write

    def _in_transaction(self, connection: Connection, f: Callable[[Connection], T], deadline: float) -> T:
        with connection.begin():
            self._lock(connection, deadline)
            return f(connection)

    def _lock(self, connection: Connection, deadline: float) -> None:
        """Take the lock, and give way to who waits for it: by SQLite's own way to wait some wait for seconds."""
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
                time.sleep(LOCK_PAUSE * random.uniform(0.5, 1.5))  # noqa: S311 - so that two do not keep step
            else:
                return

    def usage(self) -> tuple[int, int]:
        connections = self._reader, self._long_reader, self._writer
        return sum(connection.is_in_use for connection in connections), len(connections)

    async def close(self) -> None:
        self._long_reader.close(at_once=True)
        self._writer.close()
        self._reader.close()


def _is_interrupted(error: OperationalError) -> bool:
    """By a look at it."""
    return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT


def _checkpoint(connection: Connection) -> None:
    with connection.begin():  # the driver begins no transaction
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
