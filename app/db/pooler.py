"""A pooler between the service and PostgreSQL, such as PgBouncer."""

import asyncpg
from sqlalchemy import URL

from app.db.errors import PoolerForgets, words
from app.db.hosts import POOL_WAIT, Hosts, kind_of

PROBE = "pooler_probe"
SELECT_SERVER = "SELECT pg_backend_pid()"
SELECT_PROBES = "SELECT count(*) FROM pg_prepared_statements WHERE name = $1"


async def check_pooler(url: URL, wait: float) -> bool:
    """Whether there is a pooler: it gives each client a process id of its own making.

    Prepare a statement on one connection, and look for it on the next. PgBouncer in transaction mode leaves it there,
    unless it knows prepared statements (`max_prepared_statements`): then it gives them other names.

    Raises PoolerForgets if the pooler loses prepared statements, and DatabaseUnavailable as `Hosts.connect` does.
    """
    hosts = Hosts(url, wait)
    try:
        connection = await hosts.connect()
        try:
            statement = await connection.prepare(SELECT_SERVER, name=PROBE)
            if await statement.fetchval() == connection.get_server_pid():
                return False
        finally:
            await connection.close(timeout=POOL_WAIT)
        connection = await hosts.connect()
        try:
            if await connection.fetchval(SELECT_PROBES, PROBE):
                raise PoolerForgets
        finally:
            await connection.close(timeout=POOL_WAIT)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        unavailable = kind_of(error)()
        unavailable.reason = words(error)
        raise unavailable from error
    return True
