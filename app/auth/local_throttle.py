"""The part of the throttle that a process keeps in memory, so that it need not ask the database each time."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import Final
from weakref import WeakValueDictionary

from app.auth.errors import HashingQueueFull, TooManyAttempts

TURN_SECONDS: Final = 5
REMEMBERED: Final = 10_000  # addresses


class LocalThrottle:
    """Attempts at one account from one network take turns. A refused network is refused again for a second."""

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._refused: dict[str, tuple[datetime, Mapping[str, datetime]]] = {}

    @asynccontextmanager
    async def turn(self, account: str, network: str) -> AsyncIterator[None]:
        """Let one attempt in at a time, so that several right logins at once do not count as several failures.

        Raises HashingQueueFull if an attempt waits too long.
        """
        turn = self._turns.setdefault((account, network), asyncio.Lock())
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await turn.acquire()
        except TimeoutError as error:
            raise HashingQueueFull from error
        try:
            yield
        finally:
            turn.release()

    @contextmanager
    def once_a_second(self, key: str, now: datetime) -> Iterator[None]:
        """Repeat a refusal for a second without the database, so that a flood does not take it from the others.

        `key` is the key of an address. Raises TooManyAttempts.
        """
        since, over = self._refused.get(key, (now, {key: now}))
        if since <= now < min(since + timedelta(seconds=1), over[key]):
            raise TooManyAttempts(over, now)
        try:
            yield
        except TooManyAttempts as refusal:
            if key in refusal.over:
                if len(self._refused) == REMEMBERED:
                    self._refused.clear()
                self._refused[key] = now, refusal.over  # not the error: its traceback would keep the request
            raise
