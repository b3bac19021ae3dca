"""A standby that answers reads in which no session is looked at, while it keeps up with the primary."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Annotated, Concatenate, Final, ParamSpec, Protocol, TypeVar

from fastapi import Depends, Request
from sqlalchemy import URL, Connection, text

from app.db.connect import connect
from app.db.database import Database
from app.errors import Unavailable

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

MAX_LAG: Final = 5  # seconds
LOOK_SECONDS: Final = 1  # from one look at both servers to the next, while the standby serves
PAUSE_SECONDS: Final = 5  # while it does not
ANSWER_SECONDS: Final = 1  # in which the standby must answer

# Positions in the write-ahead log, in bytes.
SELECT_WRITTEN = text("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
SELECT_REPLAYED = text(
    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint END"
)
SELECT_SYSTEM = text("SELECT pg_is_in_recovery(), system_identifier, current_database() FROM pg_control_system()")


class PublicReads(Protocol):
    """A database for statements without a session in them: the primary's, or a `Replica`."""

    async def read_for(
        self, caller: str, f: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...


class Replica:
    """Reads from a standby. While that is away or more than MAX_LAG seconds behind, it reads from the primary.

    The lag is measured by positions in the log, because a clock says nothing while the primary writes nothing.
    """

    def __init__(self, primary: Database, standby: Database) -> None:
        self._primary = primary
        self._standby = standby
        self._serves = False
        self._written = deque[tuple[float, int]]()
        """Positions of the primary, and their times: the latest that is MAX_LAG seconds old, and those since."""

    async def read_for(
        self, caller: str, f: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        if self._serves:
            try:
                return await self._standby.read_for(caller, f, *args, **kwargs)
            except Unavailable:  # pragma: no cover - coverage loses its way in the greenlet before
                self._serve(keeps_up=False)
        return await self._primary.read_for(caller, f, *args, **kwargs)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look again and again whether the standby keeps up."""

        async def watch() -> None:
            while True:
                try:
                    self._serve(keeps_up=await self._keeps_up())
                except Exception:  # without the watch, old answers would stay unseen
                    logger.exception("the replica cannot be watched")
                    self._serve(keeps_up=False)
                await asyncio.sleep(LOOK_SECONDS if self._serves else PAUSE_SECONDS)

        watcher = asyncio.create_task(watch())
        try:
            yield
        finally:
            watcher.cancel()

    def _serve(self, *, keeps_up: bool) -> None:
        if keeps_up != self._serves:
            words = "keeps up, and serves public lists" if keeps_up else "is away or behind: the primary serves"
            logger.log(logging.INFO if keeps_up else logging.WARNING, "the replica %s", words)
        self._serves = keeps_up

    async def _keeps_up(self) -> bool:
        """Whether the standby has what the primary had MAX_LAG seconds ago."""
        with suppress(Unavailable):  # a primary that is away writes nothing
            self._written.append((time.monotonic(), await self._primary.read(_written)))
        while len(self._written) > 1 and self._written[1][0] <= time.monotonic() - MAX_LAG:
            self._written.popleft()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                replayed = await self._standby.read(_replayed)
        except (Unavailable, TimeoutError):
            return False
        return replayed is not None and bool(self._written) and replayed >= self._written[0][1]


async def find_fault(primary: Database, standby: Database) -> str | None:
    """Say why a server does not do as a replica. Raises DatabaseUnavailable if one of them cannot be read."""
    ours = await primary.read(lambda connection: connection.execute(SELECT_SYSTEM).one())
    theirs = await standby.read(lambda connection: connection.execute(SELECT_SYSTEM).one())
    if theirs[1:] != ours[1:]:
        return "is no copy of the database"
    if not theirs.pg_is_in_recovery:
        return "is no standby"
    written, deadline = await primary.read(_written), time.monotonic() + MAX_LAG
    while (await standby.read(_replayed) or 0) < written:
        if time.monotonic() > deadline:
            return f"is more than {MAX_LAG} seconds behind"
        await asyncio.sleep(LOOK_SECONDS)
    return None


def _written(connection: Connection) -> int:
    written: int = connection.execute(SELECT_WRITTEN).scalar_one()
    return written  # pragma: no cover - in a greenlet alone


def _replayed(connection: Connection) -> int | None:
    """None on a server that is no standby."""
    replayed: int | None = connection.execute(SELECT_REPLAYED).scalar_one()
    return replayed  # pragma: no cover - in a greenlet alone


def connect_standby(url: URL, pool_size: int) -> AbstractAsyncContextManager[Database]:
    return connect(url.set(query={"target_session_attrs": "prefer-standby"} | url.query), pool_size=pool_size)


@asynccontextmanager
async def open_replica(url: URL | None, primary: Database, pool_size: int) -> AsyncIterator[PublicReads]:
    """Open the replica of a URL. Without one, the primary does its work."""
    if url is None:
        yield primary
        return
    async with connect_standby(url, pool_size) as standby:
        replica = Replica(primary, standby)
        async with replica.watching():
            yield replica


async def get_public_reads(request: Request) -> PublicReads:
    reads: PublicReads = request.app.state.services.public_reads
    return reads


PublicDb = Annotated[PublicReads, Depends(get_public_reads)]
"""For statements without a session in them: a replica may answer, some seconds behind."""
