"""SQLite as a `Database`: reads on the event loop, writes and long reads on a thread each."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DBAPIError, OperationalError

from app.db.database import SERVICE, Database, LongRead, Turns
from app.db.errors import DatabaseDamaged, DatabaseDiskFull, DatabaseFileGone, DatabaseFileReplaced, DatabaseUnavailable
from app.db.sqlite_connections import LOCK_PAUSE, WAL_BYTES, KeptConnection, Worker, execute_when_free, make_engine
from app.db.sqlite_file import SQLiteFile, write_page

T = TypeVar("T")

STEPS = 2_000  # instructions of SQLite's virtual machine from one look at a read to the next
LOOKS_ON_LOOP = 10  # that makes about a millisecond
CHECKPOINTS = 20  # tries to empty the WAL, before the next long read
CHECKPOINT_PAUSE = 0.01  # seconds
FILE_PERIOD = 1  # seconds until a read looks again whether the file is there
HUGE_WAL_BYTES = 4 * WAL_BYTES  # to empty more would make a writer wait for tenths of a second
HUGE_WAL_PERIOD = 1  # seconds until the service tries again to empty a huge WAL
HUGE_WAL_PATIENCE = 600  # seconds
COMMIT_PAGES = 1_000  # SQLite's default
LAST_PAGES = 1_000  # of a huge WAL, which writers may wait for


class SQLite(Database):
    """Reads run on the event loop: in WAL mode a reader waits for nobody, and a thread hop costs ten times the query.

    A read that turns out long is interrupted, and starts again on a thread for long reads. A search starts there. Long
    reads run one at a time, and callers take turns. Writes run one at a time on another thread, so that the event loop
    waits neither for another process nor for the disk.
    """

    dialect = "sqlite"

    def __init__(self, url: URL, wait: float) -> None:
        self.wait = wait
        self._looks = 0
        self._file = SQLiteFile(Path(str(url.database)))
        self._next_check = 0.0
        on_loop = make_engine(self._file, wait, wait)
        event.listen(on_loop, "connect", lambda connection, _: connection.set_progress_handler(self._is_long, STEPS))
        self._reader = KeptConnection(self._file, on_loop.execution_options(refuses={"search"}))
        self._long_reader = Worker("sqlite-reader", self._file, make_engine(self._file, wait, wait))
        self._writer = Worker("sqlite-writer", self._file, make_engine(self._file, 0, wait))
        self._checkpointer = Worker("sqlite-checkpointer", self._file, make_engine(self._file, 0, wait))
        self._shrinking: asyncio.Task[None] | None = None
        self._has_waited = False
        self._turns = Turns(1, 1)

    async def _read(self, f: Callable[[Connection], T], caller: str) -> T:
        if (now := time.monotonic()) > self._next_check:
            self._file.check()
            self._next_check = now + FILE_PERIOD
        self._looks = 0
        try:
            return self._reader.run(f)
        except LongRead:
            pass
        except OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:
                raise
        deadline = time.monotonic() + self.wait
        async with asyncio.timeout(self.wait), self._turns.turn(caller):
            await self._empty_wal(deadline)
            return await self._long_reader.run(f, deadline)

    def _is_long(self) -> bool:
        """Interrupt a read on the event loop after about a millisecond.

        This counts the looks at each read, because SQLite counts the steps of a statement over all its runs.
        """
        self._looks += 1
        return self._looks > LOOKS_ON_LOOP

    async def _empty_wal(self, deadline: float) -> None:
        """Empty the WAL if it has grown, while no long read runs: without a gap between long reads it grows on."""
        for _ in range(CHECKPOINTS):
            if not WAL_BYTES < self._file.wal_bytes() <= HUGE_WAL_BYTES:
                return
            with suppress(OperationalError, DatabaseUnavailable):
                await self._writer.run(_checkpoint, deadline)
            await asyncio.sleep(CHECKPOINT_PAUSE if self._file.wal_bytes() > WAL_BYTES else 0)

    async def _shrink_wal(self) -> None:
        """Empty a WAL that grew huge because another process read for long. Writers wait for its last pages only."""
        while self._file.wal_bytes() > HUGE_WAL_BYTES:
            with suppress(DBAPIError, DatabaseUnavailable, TimeoutError):
                left = await self._checkpointer.run(_copy_wal, time.monotonic() + HUGE_WAL_PATIENCE)
                if left <= LAST_PAGES:
                    async with asyncio.timeout(self.wait), self._turns.turn(SERVICE):
                        await self._writer.run(_checkpoint, time.monotonic() + self.wait)
            await asyncio.sleep(HUGE_WAL_PERIOD)

    async def _write(self, f: Callable[[Connection], T]) -> T:
        """Write with SQLite's one lock. A process that has waited for it gives way at its next write."""
        deadline = time.monotonic() + self.wait
        is_huge = self._file.wal_bytes() > HUGE_WAL_BYTES
        if is_huge and (self._shrinking is None or self._shrinking.done()):
            self._shrinking = asyncio.create_task(self._shrink_wal())

        def in_transaction(connection: Connection) -> T:
            self._check_file(connection)
            _let_commits_checkpoint(connection, 0 if is_huge else COMMIT_PAGES)
            if self._has_waited:
                time.sleep(LOCK_PAUSE)
            with connection.begin():
                self._has_waited = execute_when_free(connection.connection, "BEGIN IMMEDIATE", deadline)
                return f(connection)

        return await self._writer.run(in_transaction, deadline)

    _autocommit = _write

    def _check_file(self, connection: Connection) -> None:
        """Refuse to write to a file that is no longer at its path. The pages in its WAL go to the file first.

        So the file is whole where it was moved to. A WAL that stays behind is empty, and damages no other file.
        """
        try:
            self._file.check(connection.info["wal"])
        except (DatabaseFileGone, DatabaseFileReplaced):
            self._file.takes_writes = False
            with suppress(DBAPIError):
                _checkpoint(connection)
            raise

    async def _check_writable(self) -> None:
        """Ask SQLite, by a write of one page, where nothing else can tell."""
        if self._file.is_damaged:
            raise DatabaseDamaged
        if self._file.is_full():
            raise DatabaseDiskFull
        if self._file.may_refuse_writes():
            try:
                await self._write(write_page)
            except (DBAPIError, sqlite3.Error, OSError) as error:
                raise self._file.reason(error) from error
            self._file.saw_write()

    def usage(self) -> tuple[int, int]:
        connections = self._reader, self._long_reader.kept, self._writer.kept
        return sum(connection.is_in_use for connection in connections), len(connections)

    async def close(self) -> None:
        if not self._file.is_in_place():
            with suppress(DatabaseUnavailable):
                await self._writer.run(self._check_file, time.monotonic() + self.wait)
        if self._shrinking:
            self._shrinking.cancel()
        for worker in self._checkpointer, self._long_reader:
            worker.close(at_once=True)
        self._writer.close()
        self._reader.close()


def _let_commits_checkpoint(connection: Connection, pages: int) -> None:
    """Set the number of pages of the WAL from which on a commit copies it to the file. With 0 none does."""
    if connection.info.get("commit_pages", COMMIT_PAGES) != pages:
        connection.info["commit_pages"] = pages
        connection.connection.cursor().execute(f"PRAGMA wal_autocheckpoint={pages}")


def _copy_wal(connection: Connection) -> int:
    """Copy the WAL to the file while others write, as far as no reader needs it. Return the number of pages left."""
    with connection.begin():
        _, pages, copied = connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").one()
    return int(pages - copied)


def _checkpoint(connection: Connection) -> None:
    with connection.begin():  # the driver begins no transaction
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
