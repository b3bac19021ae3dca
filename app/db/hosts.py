"""Connect to the PostgreSQL server that a URL names."""

import asyncpg
from sqlalchemy import URL

POOL_WAIT = 2  # seconds for a connection: for one of the pool to be free, or for a server to answer


class Hosts:
    """The servers of a URL. `wait` is the number of seconds that a statement may take."""

    def __init__(self, url: URL, wait: float) -> None:
        self._dsn = url.render_as_string(hide_password=False)
        self._wait = wait

    async def connect(self) -> asyncpg.Connection:
        """Open a connection. asyncpg reads the URL: SQLAlchemy does not know libpq's parameters, such as sslmode."""
        limits = {"statement_timeout": f"{self._wait}s", "idle_in_transaction_session_timeout": f"{2 * self._wait}s"}
        return await asyncpg.connect(
            self._dsn, timeout=POOL_WAIT, command_timeout=self._wait + 1, server_settings=limits
        )
