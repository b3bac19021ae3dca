"""Background work on the database."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from app.db.batches import total

logger = logging.getLogger(__name__)

START, PERIOD = 1, 60  # seconds until a process first looks for work, and until it looks again


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
