"""Work on many rows in many short transactions, so that no other writer waits long, also in the background."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from sqlalchemy import Connection, Integer, SQLColumnExpression, bindparam, delete, select
from sqlalchemy.orm import InstrumentedAttribute

from app.db.database import Database

logger = logging.getLogger(__name__)

FIRST_ROWS = 10  # of the first transaction
MAX_ROWS = 1_000  # of a transaction
SECONDS = 0.02  # that a transaction should take
START, PERIOD = 1, 60  # seconds until a process first looks for work in the background, and until it looks again


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


class Purge:
    """Deletes the rows whose key lies from `first` to before `before`, in the order of an index of the key.

    Each batch begins where the last one ended. PostgreSQL keeps what is deleted in the index until a vacuum, and while
    a dump runs: a batch that began at the beginning would read all of it again.
    """

    def __init__(
        self, id_: InstrumentedAttribute[str], key: SQLColumnExpression[Any], first: object, before: object
    ) -> None:
        self._first, self._before = first, before
        found = select(id_).where(key >= bindparam("first"), key < bindparam("before")).order_by(key)
        limited = found.limit(bindparam("limit", type_=Integer))
        self._statement = delete(id_.class_).where(id_.in_(limited)).returning(key)

    def __call__(self, connection: Connection, limit: int) -> int:
        """Delete at most `limit` rows. Return how many."""
        values = {"first": self._first, "before": self._before, "limit": limit}
        keys = connection.execute(self._statement, values).scalars().all()
        self._first = max(keys, default=self._first)
        return len(keys)


async def total(batches: AsyncIterator[int]) -> int:
    """Run all batches, and return the sum of their results."""
    return sum([done async for done in batches])


class Background:
    """Works in the background of a process: each time it is woken, and every minute.

    `work` makes an iterator that does one batch at each step. `left` is what the log says when a batch fails. The next
    look tries again.
    """

    def __init__(self, work: Callable[[], AsyncIterator[int]], left: str) -> None:
        self._work = work
        self._left = left
        self._is_wanted = asyncio.Event()

    def wake(self) -> None:
        """Say that there is work."""
        self._is_wanted.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work until this ends. The batch under way may be rolled back: another process, or the next start, goes on."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        """Look without being woken, too: another process may have stopped before it was done."""
        seconds = START
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._is_wanted.wait()
            seconds = PERIOD
            self._is_wanted.clear()
            try:
                await total(self._work())
            except Exception as error:  # noqa: BLE001 - the next look may find the fault mended
                logger.warning("%s: %r", self._left, error)
