"""Guesses as this process sees them, so that it need not ask the database each time."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import Final
from weakref import WeakValueDictionary

from app.auth.errors import HashingQueueFull, TooManyAttempts

TURN_SECONDS: Final = 5
SECOND: Final = timedelta(seconds=1)
REMEMBERED: Final = 10_000  # addresses


class Guesses:
    """Attempts at one name from one network come one by one. A network that is refused is refused for a second more."""

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._refused: dict[str, tuple[datetime, Mapping[str, datetime]]] = {}

    @asynccontextmanager
    async def turn(self, name: str, network: str) -> AsyncIterator[None]:
        """Let attempts in one by one: several right logins at once are not several failures.

        Raises:
            HashingQueueFull: there are too many before this one.
        """
        turn = self._turns.setdefault((name, network), asyncio.Lock())
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
        """Refuse under the key of an address again for a second: a flood shall not take the database from the others.

        Raises:
            TooManyAttempts
        """
        since, over = self._refused.get(key, (now, {key: now}))
        if since <= now < min(since + SECOND, over[key]):
            raise TooManyAttempts(over, now)
        try:
            yield
        except TooManyAttempts as refusal:
            if key in refusal.over:
                if len(self._refused) == REMEMBERED:
                    self._refused.clear()
                self._refused[key] = now, refusal.over  # the error would keep the request, by its traceback
            raise
