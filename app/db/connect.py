"""The two databases that there are, each used in the way that costs the least."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import URL

from app.db.database import Database
from app.db.sqlite import SQLite

WAIT = 5  # seconds for a lock of SQLite's, or a statement of PostgreSQL's


@asynccontextmanager
async def connect(url: URL, wait: float = WAIT) -> AsyncIterator[Database]:
    """Open a database, lazily: the first `read` or `write` connects. `wait`: seconds that a statement may take."""
    database: Database
    if url.drivername == "sqlite":
        database = SQLite(url, wait)
    else:
        from app.db.postgresql import PostgreSQL  # noqa: PLC0415 - its driver takes some of the time to start

        database = PostgreSQL(url, wait)
    try:
        yield database
    finally:
        await database.close()
