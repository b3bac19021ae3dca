"""The doctor's part for PostgreSQL: the server, the database, the role, and a pooler in front of them."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, func, select, text

from app.cli.faults import Fault
from app.clock import Clock
from app.config import Settings
from app.db import errors
from app.db.connect import WAIT
from app.db.database import Database

CLOCK_SKEW: Final = timedelta(seconds=5)
SELECT_CLOCK: Final = select(func.clock_timestamp())
SELECT_LIMITS: Final = text(
    """
    SELECT current_user AS role, current_database() AS database, rolconnlimit AS of_role, datconnlimit AS of_database,
        current_setting('max_connections')::int - CASE WHEN rolsuper THEN 0 ELSE
            current_setting('superuser_reserved_connections')::int
            + coalesce(current_setting('reserved_connections', true), '0')::int
        END AS of_server
    FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()
    """
)
SELECT_TIMES: Final = text("SELECT quote_ident(current_user), setting::int FROM pg_settings WHERE name = :name")
TIMES: Final = {"statement_timeout": WAIT, "idle_in_transaction_session_timeout": 2 * WAIT}
REMEDIES: Final[dict[type[errors.DatabaseUnavailable], str]] = {
    errors.DatabaseIsStandby: "Let DATABASE_URL name the primary, or all servers: the service finds the primary.",
    errors.DatabaseReadOnly: "Find out why, in PostgreSQL's log: a disk may be full.",
    errors.DatabaseForbidden: "As the owner: GRANT USAGE ON SCHEMA public, and GRANT SELECT, INSERT, UPDATE, DELETE ON "
    "ALL TABLES IN SCHEMA public, TO the role.",
    errors.DatabaseNotUTF8: "Dump the data, make the database again, and restore the dump.",
    errors.PoolerForgets: "See the README of app/cli, PgBouncer.",
    errors.PoolerRefuses: "See the README of app/cli, PgBouncer.",
}


async def examine_postgresql(
    database: Database, settings: Settings, clock: Clock, processes: int
) -> AsyncIterator[Fault]:
    from app.db.pooler import check_pooler

    is_pooled = await check_pooler(settings.database, WAIT)
    theirs = await database.read(lambda connection: connection.execute(SELECT_CLOCK).scalar_one())
    off: timedelta = theirs - clock()
    if abs(off) > CLOCK_SKEW:
        yield Fault(
            f"This host's clock and the database's are {abs(off).total_seconds():.0f} seconds apart.",
            "Set both by NTP: tokens and sessions end by the clock.",
        )
    for fault in await database.read(lambda connection: list(_times(connection))):
        yield fault
    if not is_pooled:
        for fault in await database.read(lambda connection: list(_connections(connection, settings, processes))):
            yield fault


def _times(connection: Connection) -> Iterator[Fault]:  # pragma: no cover - in a greenlet alone
    """A pooler that ignores the service's time limits leaves those of the role."""
    for name, seconds in TIMES.items():
        role, milliseconds = connection.execute(SELECT_TIMES, {"name": name}).one()
        if not 0 < milliseconds <= seconds * 1000:
            yield Fault(
                f"{name} is {milliseconds / 1000:g} seconds, and the service asks for {seconds}: a pooler drops it.",
                f"ALTER ROLE {role} SET {name} = '{seconds}s'",
            )


def _connections(  # pragma: no cover - in a greenlet alone
    connection: Connection, settings: Settings, processes: int
) -> Iterator[Fault]:
    limits = connection.execute(SELECT_LIMITS).one()
    allowed = {
        limits.of_server: "max_connections",
        limits.of_role: f"the CONNECTION LIMIT of the role {limits.role}",
        limits.of_database: f"the CONNECTION LIMIT of the database {limits.database}",
    }
    least = min(limit for limit in allowed if limit >= 0)
    if processes * settings.pool_size > least:
        yield Fault(
            f"PostgreSQL allows {least} connections, by {allowed[least]}, and {processes} x POOL_SIZE is "
            f"{processes * settings.pool_size}.",
            "Set POOL_SIZE lower, raise the limit, or use PgBouncer. --processes is the number on all hosts.",
        )
