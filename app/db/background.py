"""Background work on the database."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress

logger = logging.getLogger(__name__)

START, PERIOD = 1, 60  # seconds until a process first looks for work, and until it looks again
PATIENCE = 2  # seconds that a process waits at its end for the batch under way


class Background:
    """Works in the background of a process: each time it is woken, and every minute.

    `work` makes an iterator that does one batch at each step. `left` is what the log says when a batch fails. The next
    look tries again.
    """

    def __init__(self, work: Callable[[], AsyncGenerator[int, None]], left: str) -> None:
        self._work = work
        self._left = left
        self._is_wanted = asyncio.Event()
        self._is_over = asyncio.Event()

    def wake(self) -> None:
        """Say that there is work."""
        self._is_wanted.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work until this ends, and then stop after a batch. Another process, or the next start, goes on."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._is_over.set()
            self._is_wanted.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await task

    async def _run(self) -> None:
        """Look without being woken, too: another process may have stopped before it was done."""
        seconds = START
        while not self._is_over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._is_wanted.wait()
            seconds = PERIOD
            self._is_wanted.clear()
            try:
                async with aclosing(self._work()) as batches:
                    while not self._is_over.is_set() and (await anext(batches, 0)) > 0:
                        pass
            except Exception as error:  # noqa: BLE001 - the next look may find the fault mended
                logger.warning("%s: %r", self._left, error)
