"""Work on many rows in many short transactions, so that no other writer waits for long."""

import time
from collections.abc import AsyncIterator, Callable

from sqlalchemy import Connection

from app.db.database import Database

FIRST = 10  # rows of the first transaction
MOST = 1_000  # rows of any
SECONDS = 0.02  # that a transaction should take


async def in_batches(db: Database, f: Callable[..., int], *args: object) -> AsyncIterator[int]:
    """Run `f(connection, *args, limit)` in one transaction after the other until it returns 0. Yields its results.

    `f` works on `limit` rows at most and returns their number. Rows differ in what they cost, so the time that a batch
    took sets the size of the next one.
    """
    limit, began = FIRST, 0.0

    def timed(connection: Connection) -> int:
        nonlocal began
        began = time.monotonic()
        return f(connection, *args, limit)

    while done := await db.write(timed):
        took = max(time.monotonic() - began, 1e-6)
        limit = min(MOST, max(1, int(limit * min(2, SECONDS / took))))
        yield done


async def total(batches: AsyncIterator[int]) -> int:
    """Run them all; the sum of their results."""
    return sum([done async for done in batches])
