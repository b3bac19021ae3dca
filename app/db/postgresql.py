"""PostgreSQL as a `Database`."""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeVar, cast

import asyncpg
from sqlalchemy import URL, Connection, ExceptionContext, event
from sqlalchemy.exc import DBAPIError, DisconnectionError, InvalidRequestError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool
from sqlalchemy.util import greenlet_spawn

from app.db.connect import POOL_SIZE
from app.db.database import Database, LongRead, Turns
from app.db.errors import DatabaseReadOnly, sqlstate
from app.db.hosts import POOL_WAIT, Hosts
from app.db.postgresql_state import check_state

T = TypeVar("T")

LONG_READS = 4  # connections that long reads may have at once, of a pool of POOL_SIZE
LONG_READS_EACH = 2  # of one user, or of all callers without a token
PAUSE = 1  # seconds between two tries to connect in one place of the pool, and between two times that it is left
TOO_MANY_CONNECTIONS = "53300"
LOST_CODES = {"25006", "57P01", "57P02"}  # read_only_sql_transaction, admin_shutdown, crash_shutdown
# A conflict, a deadlock, and a plan that a migration made invalid. The statement or transaction has done nothing.
RETRIED_CODES = {"40001", "40P01", "0A000"}
TRIES = 3


class PostgreSQL(Database):
    """A pool of connections. Each call runs its function in a greenlet, as if the driver were a blocking one.

    Long reads have a share of the connections, so logins, writes, quick reads and `/health/ready` keep theirs.
    """

    dialect = "postgresql"

    def __init__(self, url: URL, wait: float, pool_size: int) -> None:
        self._size = pool_size
        self._left_at = -math.inf
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=Hosts(url, wait).connect,
            isolation_level="AUTOCOMMIT",  # an option of the connection would be set for each read
            hide_parameters=True,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_WAIT,
        )
        self._reader = self._engine.sync_engine
        self._pool = cast("QueuePool", self._reader.pool)
        event.listen(self._reader, "connect", _note_time)
        event.listen(self._reader, "checkout", self._refuse_closed)
        event.listen(self._reader, "handle_error", _keep_others)
        self._quick_reader = self._reader.execution_options(refuses={"search", "walk"})
        self._writer = self._reader.execution_options(isolation_level="READ COMMITTED")
        self._free = asyncio.Semaphore(pool_size)
        self._long_reads = Turns(*(max(1, pool_size * n // POOL_SIZE) for n in (LONG_READS, LONG_READS_EACH)))

    async def _read(self, f: Callable[[Connection], T], caller: str) -> T:
        with suppress(LongRead):
            return await self._in_turn(self._quick_reader.connect, f)
        async with asyncio.timeout(POOL_WAIT) as waiting, self._long_reads.turn(caller):
            waiting.reschedule(None)
            return await self._in_turn(self._reader.connect, f)

    async def _write(self, f: Callable[[Connection], T]) -> T:
        return await self._in_turn(self._writer.begin, f)

    async def _autocommit(self, f: Callable[[Connection], T]) -> T:
        return await self._in_turn(self._reader.connect, f)

    async def _check_writable(self) -> None:
        await self._in_turn(self._reader.connect, check_state)

    async def _in_turn(
        self, connect: Callable[[], AbstractContextManager[Connection]], f: Callable[[Connection], T]
    ) -> T:
        """Give the next connection to the call that has waited longest. The pool is not fair.

        A call that could not connect gives its place back after a pause, so a server in trouble is not flooded. If the
        server allows no connection more, the call waits for one that this process has.
        """
        is_connected = False

        def run() -> T:
            nonlocal is_connected
            is_connected = False
            try:
                with connect() as connection:
                    is_connected = True
                    return f(connection)
            except (asyncpg.InterfaceError, InvalidRequestError) as error:
                if is_connected:
                    raise
                raise ConnectionAbortedError(
                    "it closed as it opened"
                ) from error  # pragma: no cover - in a greenlet alone

        loop = asyncio.get_running_loop()
        deadline = loop.time() + POOL_WAIT
        while True:
            async with asyncio.timeout_at(deadline):
                await self._free.acquire()
            try:
                return await _with_retries(run)
            except BaseException as error:
                if is_connected and _is_lost(error):
                    self._leave()
                has_others = self._pool.checkedin() + self._pool.checkedout() > 0
                if is_connected or not (has_others and _is_full(error)):  # pragma: no branch - after a greenlet alone
                    raise
            finally:
                if is_connected:
                    self._free.release()
                else:
                    loop.call_later(PAUSE, self._free.release)

    def _leave(self) -> None:
        """Replace each connection before its next use: a server behind it takes no writes any more, or is silent.

        This happens once within a pause: a name may lead to a server that takes no writes for as long as that lasts.
        """
        if time.monotonic() - self._left_at >= PAUSE:
            self._left_at = time.monotonic()

    def _refuse_closed(self, connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
        """Have the pool replace a connection that is left, or whose socket has closed. That takes no round trip."""
        if record.info["opened_at"] <= self._left_at:
            connection.driver_connection.terminate()
        if connection.driver_connection.is_closed():
            raise DisconnectionError

    def usage(self) -> tuple[int, int]:
        return self._pool.checkedout(), self._size

    async def close(self) -> None:
        """Close the connections, but do not wait long for a server that has gone silent."""
        with suppress(TimeoutError):
            async with asyncio.timeout(POOL_WAIT):
                await self._engine.dispose()


async def _with_retries(run: Callable[[], T]) -> T:
    """Run it again where PostgreSQL has rolled it back, and has done nothing."""
    for _ in range(TRIES - 1):
        try:
            return await greenlet_spawn(run)
        except DBAPIError as error:
            if sqlstate(error) not in RETRIED_CODES:
                raise
    return await greenlet_spawn(run)


def _keep_others(context: ExceptionContext) -> None:
    """Leave the pool's other connections to `_refuse_closed`. The pool would take two seconds for each silent one."""
    context.invalidate_pool_on_disconnect = False


def _is_lost(error: BaseException) -> bool:
    """Whether a server stops, refuses writes, or has not answered in time."""
    if isinstance(error, DatabaseReadOnly | TimeoutError | asyncio.CancelledError):
        return True
    code = (sqlstate(error) if isinstance(error, DBAPIError) else None) or ""
    return code in LOST_CODES or code.startswith("08")


def _is_full(error: BaseException | None) -> bool:
    """Whether a server or a pooler has refused one connection more."""
    return error is not None and (
        getattr(error, "sqlstate", None) == TOO_MANY_CONNECTIONS
        or "no more connections allowed" in str(error)
        or _is_full(error.__cause__)
    )


def _note_time(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info["opened_at"] = time.monotonic()
