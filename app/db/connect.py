"""Open the database of a URL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import URL

from app.db.database import Database
from app.db.sqlite import SQLite

WAIT = 5  # seconds for SQLite's lock, or for a statement of PostgreSQL
POOL_SIZE = 10  # connections to PostgreSQL that a process may have


@asynccontextmanager
async def connect(url: URL, wait: float = WAIT, pool_size: int = POOL_SIZE) -> AsyncIterator[Database]:
    """Make the database. Its first call connects. `wait` is the number of seconds that a call may take."""
    if url.drivername == "sqlite":
        database: Database = SQLite(url, wait)
    else:
        from app.db.postgresql import PostgreSQL  # noqa: PLC0415 - its driver takes time to import

        database = PostgreSQL(url, wait, pool_size)
    try:
        yield database
    finally:
        await database.close()
