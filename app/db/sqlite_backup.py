"""A consistent copy of SQLite's file while others write, and its way back.

SQLite's backup API copies pages faster than VACUUM INTO writes rows, so the WAL grows less beside it. Functions raise
OSError, sqlite3.Error, and DatabaseDamaged for a copy that is not in order.
"""

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from app.db.errors import DatabaseDamaged

PAGES: Final = 1_000  # copied at once: an interrupt waits for no more
LOCKED_WHILE_OPEN: Final = {"": (0x4000_0002, 510), "-shm": (128, 1)}
"""The bytes that SQLite locks, shared, for as long as a database in WAL mode is open: os_unix.c and wal.c."""


def back_up(source: Path, target: Path) -> None:
    """Copy a database as of one moment, while others read and write. Replace the target when the copy is whole."""
    with _draft(target) as draft:
        _copy(source, draft, "quick_check")
        publish(draft, target)


def put_back(backup: Path, target: Path, kept: Path) -> None:
    """Put a copy of a backup in the place of a database, which moves to `kept`. No process may have it open.

    At each moment there is a whole file at the target. A WAL that stayed would damage the copy, so it moves too.
    """
    with _draft(target) as draft:
        _copy(backup, draft, "integrity_check")
        own_as(draft, target)
        if target.exists():
            with suppress(sqlite3.Error), closing(_open(target)) as old:  # the last one to close it removes the WAL
                old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            kept.hardlink_to(target)
        with suppress(FileNotFoundError):
            Path(f"{target}-wal").rename(f"{kept}-wal")
        Path(f"{target}-shm").unlink(missing_ok=True)
        publish(draft, target)


def is_in_use(path: Path) -> bool:
    """Whether another process has the database open."""
    for suffix, (start, length) in LOCKED_WHILE_OPEN.items():
        with suppress(FileNotFoundError), Path(f"{path}{suffix}").open("r+b") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
            except (BlockingIOError, PermissionError):  # POSIX lets a system choose
                return True
    return False


def has_table(path: Path, name: str) -> bool:
    with closing(_open(path)) as connection:
        return bool(connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (name,)).fetchone())


def copy_file(source: Path, target: Path) -> None:
    """Copy a small file for the owner's eyes only. Replace the target when the copy is whole."""
    with _draft(target) as draft:
        draft.write_bytes(source.read_bytes())
        own_as(draft, target)
        publish(draft, target)


def own_as(draft: Path, target: Path) -> None:
    """Give a file the owner of the one that it replaces, or of the folder. Root can, and nobody else has to."""
    there = (target if target.exists() else target.parent).stat()
    with suppress(PermissionError):
        os.chown(draft, there.st_uid, there.st_gid)


def publish(draft: Path, target: Path) -> None:
    """Move a draft to its place, whole, so that a power cut cannot undo it."""
    _sync(draft)
    draft.replace(target)
    _sync(target.parent)


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """Make a file in the target's folder that only its owner may read. At the end remove what is left of it."""
    draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield draft
    finally:
        for suffix in "", "-journal", "-wal", "-shm":
            Path(f"{draft}{suffix}").unlink(missing_ok=True)


def _copy(source: Path, draft: Path, check: Literal["quick_check", "integrity_check"]) -> None:
    """Copy a database into one file, which needs no -wal file beside it, and check the copy.

    The source's transaction holds the moment. Otherwise each write of another process would start the copy again.
    """
    with closing(_open(source)) as theirs, closing(_open(draft)) as ours:
        ours.execute("PRAGMA synchronous=OFF")  # `publish` syncs it
        theirs.execute("BEGIN")
        theirs.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        theirs.backup(ours, pages=PAGES)
        theirs.execute("ROLLBACK")
        ours.execute("PRAGMA journal_mode=DELETE")
        if ours.execute(f"PRAGMA {check}(1)").fetchone() != ("ok",):
            raise DatabaseDamaged


def _open(path: Path) -> sqlite3.Connection:
    """Open a file that exists, for reading if this user may not write it."""
    connection: sqlite3.Connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None
    )
    return connection


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
