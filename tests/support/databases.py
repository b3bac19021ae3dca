"""The verbs of the database for tests, without a service."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

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
