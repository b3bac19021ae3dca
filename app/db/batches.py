"""Work on many rows in many short transactions, so that no other writer waits long."""

import time
from collections.abc import AsyncIterator, Callable

from sqlalchemy import Connection

from app.db.database import Database

FIRST_ROWS = 10  # of the first transaction
MAX_ROWS = 1_000  # of a transaction
SECONDS = 0.02  # that a transaction should take


async def in_batches(db: Database, f: Callable[..., int], *args: object) -> AsyncIterator[int]:
    """Run `f(connection, *args, limit)` in one transaction after the other until it returns 0. Yield its results.

    `f` works on `limit` rows at most and returns their number. The time of a batch sets the size of the next one,
    because rows differ in what they cost.
    """
    limit, began = FIRST_ROWS, 0.0

    def timed(connection: Connection) -> int:
        nonlocal began
        began = time.monotonic()
        return f(connection, *args, limit)

    while done := await db.write(timed):
        took = max(time.monotonic() - began, 1e-6)
        limit = min(MAX_ROWS, max(1, int(limit * min(2, SECONDS / took))))
        yield done


async def total(batches: AsyncIterator[int]) -> int:
    """Run all batches, and return the sum of their results."""
    return sum([done async for done in batches])
