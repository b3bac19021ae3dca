"""The database for tests, without a service: its verbs, and the transaction of another client."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import asyncpg
from sqlalchemy import Connection, make_url

from app.db.connect import WAIT, connect
from app.db.database import Database

T = TypeVar("T")


def run(url: str, f: Callable[[Database], Awaitable[T]], wait: float = WAIT) -> T:
    """Open the database of a URL for `f`."""

    async def main() -> T:
        async with connect(make_url(url), wait) as database:
            return await f(database)

    return asyncio.run(main())


def write(url: str, f: Callable[[Connection], T]) -> T:
    """Run `f` in a transaction."""
    return run(url, lambda database: database.write(f))


@contextmanager
def transaction(database_url: str) -> Iterator[Callable[[str], object]]:
    """Another client's, past the service. It is rolled back if it has not been committed."""
    url = make_url(database_url)
    if url.drivername == "sqlite":
        connection = sqlite3.connect(str(url.database), isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection.execute
        finally:
            connection.close()
    else:
        with asyncio.Runner() as runner:
            other = runner.run(asyncpg.connect(database_url))
            try:
                runner.run(other.execute("BEGIN"))
                yield lambda statement: runner.run(other.execute(statement))
            finally:
                runner.run(other.close())
