"""Turns, so that each caller has a fair share of few connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class Turns:
    """At most `total` turns at once, and `each` for one caller. The caller who has waited longest is next.

    A caller who asks for many turns waits for their own turns. Other callers wait for one or two of them.
    """

    def __init__(self, total: int, each: int) -> None:
        self._all = asyncio.Semaphore(total)
        self._each = each
        self._own = WeakValueDictionary[str, asyncio.Semaphore]()

    @asynccontextmanager
    async def turn(self, caller: str) -> AsyncIterator[None]:
        own = self._own.setdefault(caller, asyncio.Semaphore(self._each))
        async with own, self._all:
            yield
