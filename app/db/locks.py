"""How a migration gets its locks on PostgreSQL while requests go on.

A statement that waits for a lock holds up all later requests for the table. So a migration waits for `LOCK_TIMEOUT` at
most, and gives way. It tries again once the transactions in its way have ended.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import TypeVar

from sqlalchemy import ARRAY, Connection, Integer, String, bindparam, event, text
from sqlalchemy.exc import DBAPIError

from app.db.database import Database
from app.db.errors import DatabaseUnavailable, sqlstate
from app.errors import Unavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOCK_TIMEOUT = 1_500  # milliseconds: requests bear 2,000, and PostgreSQL stops an autovacuum in the way after 1,000
LOCK_PATIENCE = 600  # seconds in which the locks of a migration must become free
REST = 5  # seconds between two tries, in which the requests that have waited are answered
PAUSE = 0.4  # seconds from one look to the next
NOT_GRANTED = {"55P03", "40P01"}  # PostgreSQL's lock_not_available and deadlock_detected

TAKE_TURN = text("SELECT pg_try_advisory_xact_lock(7009)")  # any number that nobody else uses
SET_NO_LIMIT = text("SET LOCAL idle_in_transaction_session_timeout = 0")
LIMIT = text("SELECT set_config('lock_timeout', :limit, true)")
SELECT_PROCESS = text("SELECT pg_backend_pid()")
SELECT_BLOCKERS = text(
    "SELECT DISTINCT transaction, coalesce(nullif(application_name, ''), 'role ' || usename, 'PostgreSQL') || "
    "' (process ' || blocker || ')' AS name "
    "FROM unnest(:processes) AS ours, unnest(pg_blocking_pids(ours)) AS blocker "
    "JOIN (SELECT pid, min(virtualtransaction) AS transaction FROM pg_locks GROUP BY pid) AS locks ON pid = blocker "
    "LEFT JOIN pg_stat_activity AS activity ON activity.pid = blocker"
).bindparams(bindparam("processes", type_=ARRAY(Integer)))
SELECT_RUNNING = text("SELECT 1 FROM pg_locks WHERE virtualtransaction = ANY(:transactions) LIMIT 1").bindparams(
    bindparam("transactions", type_=ARRAY(String))
)


class LockNotAvailable(Unavailable):
    detail = "PostgreSQL gave no lock in time, and this migration is rolled back: run it again"
    code = "lock_not_available"


class LockHeld(Unavailable):
    """The patience of `migrate` is over."""

    code = "lock_held"

    def __init__(self, holders: str) -> None:
        self.detail = (
            f"{holders} has held a lock for {LOCK_PATIENCE // 60} minutes, and this migration is rolled back: "
            "run python -m app migrate again"
        )


class TurnTaken(Unavailable):
    detail = "Another process migrates the database"
    code = "turn_taken"


async def when_locks_are_free(database: Database, f: Callable[[Connection], T]) -> T:
    """Run `f` in turn. When it gets a lock too late, wait for the transactions in its way, and run it again.

    Raises LockHeld.
    """
    deadline = monotonic() + LOCK_PATIENCE
    while True:
        watch = Watch(database)
        try:
            async with watch.running():
                return await in_turn(database, f, watch.processes)
        except LockNotAvailable:
            if monotonic() > deadline:
                raise LockHeld(watch.holders) from None
        await watch.until_free(deadline)


async def in_turn(database: Database, f: Callable[[Connection], T], processes: list[int] | None = None) -> T:
    """Run `f` as the only process that migrates. On SQLite it runs in the transaction, which has the only lock.

    On PostgreSQL a transaction has the turn, and `f` gets another connection, to begin a transaction for each
    migration. `processes` learns which process of PostgreSQL works for `f`.

    Raises LockNotAvailable.
    """
    if database.dialect != "postgresql":
        return await database.write(f)
    level = logging.WARNING
    while True:
        try:
            return await database.write(_with_turn, f, [] if processes is None else processes)
        except TurnTaken as error:
            logger.log(level, "waiting: %s", error.detail)
            level = logging.DEBUG  # once is enough
        await asyncio.sleep(PAUSE)


def _with_turn(  # pragma: no cover - in a greenlet alone
    connection: Connection, f: Callable[[Connection], T], processes: list[int]
) -> T:
    """Take the turn, and have `f` work beside this transaction.

    An index that is built waits for each transaction that has a snapshot. So a transaction does not wait for its turn,
    and the last statement of the one that has it is SET: after a SELECT, the snapshot would stay.
    """
    if not connection.execute(TAKE_TURN).scalar_one():
        raise TurnTaken
    connection.execute(SET_NO_LIMIT)
    with connection.engine.connect() as worker:
        event.listen(worker, "begin", lambda begun: begun.execute(LIMIT, {"limit": str(LOCK_TIMEOUT)}))
        processes.append(worker.execute(SELECT_PROCESS).scalar_one())
        worker.rollback()
        try:
            return f(worker)
        except DBAPIError as error:
            if sqlstate(error) in NOT_GRANTED:
                raise LockNotAvailable from error
            raise


class Watch:
    """Looks who holds the locks that `processes` of PostgreSQL wait for. Holders are those who stay for two looks."""

    def __init__(self, database: Database) -> None:
        self.processes: list[int] = []
        self._database = database
        self._holders: dict[str, str] = {}

    @property
    def holders(self) -> str:
        return ", ".join(self._holders.values()) or "another transaction"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        seen = dict[str, str]()
        while True:
            await asyncio.sleep(PAUSE)
            with suppress(DatabaseUnavailable):
                found = await self._database.read(_read_blockers, self.processes) if self.processes else {}
                if holders := {key: name for key, name in found.items() if key in seen}:
                    if holders != self._holders:
                        logger.warning("waiting for %s, which holds a lock", ", ".join(holders.values()))
                    self._holders = holders
                seen = found

    async def until_free(self, deadline: float) -> None:
        """Rest, and wait until the holders have ended their transactions."""
        await asyncio.sleep(REST)
        while monotonic() < deadline and await self._database.read(_are_running, list(self._holders)):  # noqa: ASYNC110 - the database has no event for it
            await asyncio.sleep(PAUSE)


def _read_blockers(connection: Connection, processes: list[int]) -> dict[str, str]:
    return {row.transaction: row.name for row in connection.execute(SELECT_BLOCKERS, {"processes": processes})}


def _are_running(connection: Connection, transactions: list[str]) -> bool:
    return connection.execute(SELECT_RUNNING, {"transactions": transactions}).first() is not None
