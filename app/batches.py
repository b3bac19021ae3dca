"""Work on many rows in many short transactions, so that no other writer waits for long."""

import time
from collections.abc import Callable
from typing import Any

from app.database import Database

FIRST = 10  # rows of the first transaction
MOST = 1_000  # rows of any
SECONDS = 0.02  # that a transaction should take


async def in_batches(db: Database, f: Callable[..., int], *args: object) -> int:
    """Run `f(connection, *args, limit)` in one transaction after the other until it returns 0; the sum of its results.

    `f` works on `limit` rows at most and returns their number. Rows differ in what they cost, so the time that a batch
    took sets the size of the next one.
    """
    total, limit = 0, FIRST
    began = 0.0

    def timed(connection: Any, limit: int) -> int:
        nonlocal began
        began = time.monotonic()
        return f(connection, *args, limit)

    while done := await db.write(timed, limit):
        total += done
        took = max(time.monotonic() - began, 1e-6)
        limit = min(MOST, max(1, int(limit * min(2, SECONDS / took))))
    return total
