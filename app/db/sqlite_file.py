"""SQLite's file: open it, tell whether it is still at its path, and what is wrong with it or with its disk."""

import logging
import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.db.errors import (
    DatabaseDamaged,
    DatabaseDiskFull,
    DatabaseFileGone,
    DatabaseFileReadOnly,
    DatabaseFileReplaced,
    DatabaseUnavailable,
    DatabaseWALAlone,
)

logger = logging.getLogger(__name__)

DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
OF_DISK: Final = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY}
SPARE_BYTES: Final = 1024 * 1024  # a disk with less free space may be full

Inode = tuple[int, int] | None


class SQLiteFile:
    """The file of a database. All connections of this process open it here.

    SQLite goes on with a file that was deleted or moved away. Every write would be acknowledged, and lost.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wal = Path(f"{path.resolve()}-wal")  # beside the file that a link leads to
        self.is_damaged = False
        self.takes_writes = False  # whether a write has succeeded since the last one that met a fault of the disk
        self._was_full = False
        self._opened: Inode = None

    def connect(self, **options: Any) -> sqlite3.Connection:
        """Open the file. The first connection makes it if there is none.

        Raises DatabaseFileGone, DatabaseFileReplaced, DatabaseWALAlone.
        """
        self.check()
        if self._opened is None:
            self._make()
        name = f"{self.path.absolute().as_uri()}?mode=rw"  # it makes no file
        connection: sqlite3.Connection = sqlite3.connect(name, uri=True, **options)
        self._opened = self._opened or inode(self.path)
        return connection

    def check(self, wal: Inode = None) -> None:
        """Check that the file that was opened is still at its path, and a connection's WAL too. It takes microseconds.

        Raises DatabaseFileGone, DatabaseFileReplaced.
        """
        is_in_place = self.is_in_place()
        if is_in_place and wal in {None, inode(self.wal)}:
            return
        fault = DatabaseFileReplaced if is_in_place or self.path.exists() else DatabaseFileGone
        logger.error("%s", fault.detail)
        raise fault

    def is_in_place(self) -> bool:
        """Whether the file that was opened, if one was, is still at its path."""
        return self._opened in {None, inode(self.path)}

    def wal_bytes(self) -> int:
        """Return the size of the WAL."""
        try:
            return self.wal.stat().st_size
        except FileNotFoundError:
            return 0

    def may_refuse_writes(self) -> bool:
        """Whether only a write can tell if the disk takes it. It may also do so with little space."""
        return not (self.takes_writes and self.is_in_place() and os.access(self.path, os.W_OK)) or self._is_short()

    def is_full(self) -> bool:
        """Whether a write has met a full disk that has no room yet. A small write could succeed where others fail."""
        return self._was_full and self._is_short()

    def saw_write(self) -> None:
        """Remember that the disk takes writes."""
        self.takes_writes, self._was_full = True, False

    def note(self, error: Exception) -> None:
        """Remember a fault of the file or of its disk. Raises DatabaseDamaged."""
        code = _code(error)
        if code in DAMAGED:
            self.is_damaged = True
            logger.error("the database's file is damaged: %r", getattr(error, "orig", error))
            raise DatabaseDamaged from error
        if code in OF_DISK or isinstance(error, OSError):
            self.takes_writes = False
            self._was_full |= code == sqlite3.SQLITE_FULL

    def reason(self, error: Exception) -> DatabaseUnavailable:
        """Say why a write has failed."""
        code = _code(error)
        if code not in OF_DISK and not isinstance(error, OSError):
            return DatabaseUnavailable()
        around = [self.wal.parent, *([self.path] if self.path.exists() else [])]
        if code == sqlite3.SQLITE_READONLY or not all(os.access(path, os.W_OK) for path in around):
            return DatabaseFileReadOnly()
        return DatabaseDiskFull() if code == sqlite3.SQLITE_FULL or self._is_short() else DatabaseUnavailable()

    def _is_short(self) -> bool:
        return shutil.disk_usage(self.wal.parent).free < SPARE_BYTES

    def _make(self) -> None:
        """Make the file so that no other user of this host can read it. SQLite gives its files beside it the same mode.

        A file that exists is not opened: to close it would drop this process's locks (SQLite's howtocorrupt.html §2.2).
        SQLite would delete the WAL beside an empty file.
        """
        if self.wal.exists() and self.wal.stat().st_size and not self.path.exists():
            raise DatabaseWALAlone
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL, 0o600))


def inode(path: Path) -> Inode:
    """Return what tells a file from every other one, or None if there is none."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return None
    return there.st_dev, there.st_ino


def check_pages(connection: Connection) -> None:
    """Read and check every page, in a second or so for each gigabyte. Raises DatabaseDamaged."""
    if connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one() != "ok":
        raise DatabaseDamaged


def write_page(connection: Connection) -> None:
    """Write a page, and change nothing."""
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    connection.exec_driver_sql(f"PRAGMA user_version={version}")


def _code(error: Exception) -> int:
    """Return SQLite's primary result code, or 0 for an error of another kind."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF
