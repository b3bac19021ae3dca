"""A thread that works on a connection to SQLite's file."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from app.db.database import DatabaseUnavailable
from app.db.sqlite_connections import KeptConnection

T = TypeVar("T")

INTERRUPT_PAUSE = 0.01  # seconds


class Worker:
    """A thread with a connection. It runs one function at a time, in the order of the calls."""

    def __init__(self, name: str, engine: Engine) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._kept = KeptConnection(engine)
        self._lock = threading.Lock()  # for `_running`: an interrupt must not hit the call after the one it is for
        self._running: object = None
        self._is_closed = False

    @property
    def is_in_use(self) -> bool:
        return self._kept.is_in_use

    async def run(self, f: Callable[[Connection], T], deadline: float) -> T:
        """Run `f`, and interrupt it at the deadline or when the caller is cancelled.

        Raises:
            DatabaseUnavailable: `f` waited until the deadline. It does not run later.
            OperationalError: `f` was interrupted.
        """
        call = object()
        future = self._thread.submit(self._run, call, f, deadline)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(deadline - time.monotonic(), self._end, call, future, loop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self._end(call, future, loop)
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            raise DatabaseUnavailable from None
        finally:
            timer.cancel()

    def _run(self, call: object, f: Callable[[Connection], T], deadline: float) -> T:
        if self._is_closed or time.monotonic() > deadline:
            raise DatabaseUnavailable
        with self._lock:
            self._running = call
        try:
            return self._kept.run(f)
        finally:
            with self._lock:
                self._running = None

    def _end(self, call: object, future: Future[Any], loop: asyncio.AbstractEventLoop) -> None:
        """Cancel a call that waits. Interrupt one that runs until it ends, because between statements it has no effect.

        SQLite's progress handler would not do: FTS5 works for long without a call of it.
        """
        if not future.cancel() and not future.done():
            with self._lock:
                if self._running is call:  # pragma: no branch - it may begin or end at this moment
                    self._kept.interrupt()
            loop.call_later(INTERRUPT_PAUSE, self._end, call, future, loop)

    def close(self, *, at_once: bool = False) -> None:
        """Wait for the calls so far, or interrupt them `at_once`. Then close the connection."""
        self._is_closed = at_once
        last = self._thread.submit(self._kept.close)
        while at_once and not last.done():
            self._kept.interrupt()
            time.sleep(INTERRUPT_PAUSE / 10)
        self._thread.shutdown()
