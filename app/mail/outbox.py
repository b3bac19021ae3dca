"""The queue of mails. They leave after the answer, and a mail server that is away changes no answer."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from app.mail.templates import Mail

MOST: Final = 1_000  # mails that wait
AT_ONCE: Final = 4  # connections to the mail server
SECONDS: Final = 15  # for one try
PAUSES = 2, 10, 60  # seconds between the tries
STOP_SECONDS: Final = 10
REFUSED: Final = 500  # from this code on, another try is of no use (RFC 5321 §4.2.1)

logger = logging.getLogger(__name__)


class Outbox:
    """Sends mails in the background of a process. A mail is lost, with a log line, when its last try fails."""

    def __init__(self, transport: Callable[[Mail], Awaitable[None]]) -> None:
        self._transport = transport
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._is_stopping = asyncio.Event()

    def send(self, mail: Mail) -> None:
        """Send a mail soon."""
        self.after_answer(lambda: self._deliver(mail))

    def after_answer(self, job: Callable[[], Awaitable[None]]) -> None:
        """Do something soon that may send a mail. An answer that does not wait for it does not tell what it does."""
        if len(self._tasks) >= MOST:
            logger.error("a mail is lost: %d are waiting", MOST)
            return
        task = asyncio.create_task(self._run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def send_now(self, mail: Mail) -> None:
        """Try once. Raises what the transport raises, or TimeoutError."""
        async with self._turn, asyncio.timeout(SECONDS):
            await self._transport(mail)

    async def drained(self) -> None:
        """Wait until nothing waits: no mail, and no job that may send one."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """At the end, each mail that waits is tried once more."""
        try:
            yield
        finally:
            self._is_stopping.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self.drained()
            for task in self._tasks:
                logger.error("a mail is lost: the process stops")
                task.cancel()
            await self.drained()

    async def _run(self, job: Callable[[], Awaitable[None]]) -> None:
        try:
            await job()
        except Exception as error:  # noqa: BLE001 - the answer has gone out
            logger.warning("a mail was not made: %s", type(error).__name__)

    async def _deliver(self, mail: Mail) -> None:
        pauses = iter(PAUSES)
        while True:
            try:
                await self.send_now(mail)
            except Exception as error:  # noqa: BLE001 - a hook may raise anything
                logger.warning("a mail was not sent: %s", cause(error))
                pause = next(pauses, None)
                if pause is None or self._is_stopping.is_set() or smtp_code(error) >= REFUSED:
                    break
            else:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._is_stopping.wait()
        logger.error("a mail is lost: the mail server did not take it (%s)", mail.kind)


def cause(error: Exception) -> str:
    """Name an error by its class and the mail server's code. Its text may have the address or the token."""
    code = smtp_code(error)
    return f"{type(error).__name__} {code}" if code else type(error).__name__


def smtp_code(error: Exception) -> int:
    """Return the code with which a mail server refused a mail, or 0."""
    code = getattr(error, "code", 0)
    return code if isinstance(code, int) else 0
