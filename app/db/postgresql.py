"""PostgreSQL as a `Database`."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeVar, cast

from sqlalchemy import URL, Connection, event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import greenlet_spawn

from app.db.database import Database, LongRead, Turns
from app.db.errors import DatabaseIsStandby, DatabaseReadOnly, sqlstate
from app.db.hosts import POOL_WAIT, Hosts

T = TypeVar("T")

POOL_SIZE = 10
LONG_READS = 4  # connections that long reads may have at once
LONG_READS_EACH = 2  # of one user, or of all callers without a token
# A conflict, a deadlock, and a plan that a migration made invalid. The statement or transaction has done nothing.
RETRIED_CODES = {"40001", "40P01", "0A000"}
TRIES = 3
SELECT_READ_ONLY = text("SELECT current_setting('transaction_read_only') = 'on', pg_is_in_recovery()")


class PostgreSQL(Database):
    """A pool of connections. Each call runs its function in a greenlet, as if the driver were a blocking one.

    Long reads have a share of the connections, so logins, writes, quick reads and `/health/ready` keep theirs.
    """

    dialect = "postgresql"

    def __init__(self, url: URL, wait: float) -> None:
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=Hosts(url, wait).connect,
            isolation_level="AUTOCOMMIT",  # an option of the connection would be set for each read
            hide_parameters=True,
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=POOL_WAIT,
        )
        self._reader = self._engine.sync_engine
        event.listen(self._reader, "checkout", _refuse_closed)
        self._quick_reader = self._reader.execution_options(refuses={"search", "walk"})
        self._writer = self._reader.execution_options(isolation_level="READ COMMITTED")
        self._free = asyncio.Semaphore(POOL_SIZE)
        self._long_reads = Turns(LONG_READS, LONG_READS_EACH)

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
        is_read_only, is_standby = await self._in_turn(
            self._reader.connect, lambda connection: connection.execute(SELECT_READ_ONLY).one()
        )
        if is_read_only:
            raise DatabaseIsStandby if is_standby else DatabaseReadOnly

    async def _in_turn(
        self, connect: Callable[[], AbstractContextManager[Connection]], f: Callable[[Connection], T]
    ) -> T:
        """Give the next connection to the call that has waited longest. The pool is not fair."""

        def run() -> T:
            with connect() as connection:
                return f(connection)

        async with asyncio.timeout(POOL_WAIT):
            await self._free.acquire()
        try:
            for _ in range(TRIES - 1):
                try:
                    return await greenlet_spawn(run)
                except DBAPIError as error:
                    if sqlstate(error) not in RETRIED_CODES:
                        raise
            return await greenlet_spawn(run)
        finally:
            self._free.release()

    def usage(self) -> tuple[int, int]:
        return cast("QueuePool", self._reader.pool).checkedout(), POOL_SIZE

    async def close(self) -> None:
        """Close the connections, but do not wait long for a server that has gone silent."""
        with suppress(TimeoutError):
            async with asyncio.timeout(POOL_WAIT):
                await self._engine.dispose()


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    """Have the pool replace a connection whose socket has closed. asyncpg knows that without a round trip."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError
