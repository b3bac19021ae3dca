"""Connect to a server of a PostgreSQL URL: to one that serves, whatever the others do.

The last good server is asked first. If it fails, or says nothing for half of the time, all others are asked at once.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from math import ceil
from typing import Any, Final
from urllib.parse import urlencode

import asyncpg
from sqlalchemy import URL

from app.db.errors import (
    POSTGRESQL_ERRORS,
    DatabaseIsStandby,
    DatabaseReadOnly,
    DatabaseUnavailable,
    PoolerRefuses,
    words,
)
from app.db.libpq import Host, Servers, is_address
from app.errors import Unavailable

logger = logging.getLogger(__name__)

POOL_WAIT = 2  # seconds for a connection: for one of the pool to be free, or for a server to answer
MAX_KEEPIDLE, MAX_KEEPCNT = 32_767, 127  # Linux's limits: seconds, and packets
SELECT_STATE = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'"

FITS: Final[dict[str, Callable[[bool, bool], bool]]] = {
    "primary": lambda is_standby, _is_read_only: not is_standby,
    "read-only": lambda _is_standby, is_read_only: is_read_only,
    "read-write": lambda _is_standby, is_read_only: not is_read_only,
    "standby": lambda is_standby, _is_read_only: is_standby,
}
Opening = Callable[[], Coroutine[Any, Any, asyncpg.Connection]]


class Failures(Exception):
    """Why the attempts to connect failed, by words for operators."""

    def __init__(self, causes: Mapping[str, Exception]) -> None:
        self.causes = causes


class Hosts:
    """The servers of a URL. `wait` is the number of seconds that a statement may take.

    A connection on which a server acknowledges nothing for so long is lost.
    """

    def __init__(self, url: URL, wait: float) -> None:
        self._servers = Servers.of(url)
        self._last: tuple[Host, str | None] = self._servers.hosts[0], None
        self._options = list(_socket_options(self._servers.sockets, wait))
        limits = {"statement_timeout": f"{wait}s", "idle_in_transaction_session_timeout": f"{2 * wait}s"}
        self._arguments: dict[str, Any] = {
            **self._servers.account,
            "dsn": "postgresql://?" + urlencode(self._servers.driver, errors="surrogateescape"),
            "ssl": self._servers.verifies_by_system or None,
            "server_settings": self._servers.settings | limits,
            "command_timeout": wait + 1,
        }

    async def connect(self) -> asyncpg.Connection:
        """Open a connection to a server that is what `target_session_attrs` asks for.

        Raises DatabaseUnavailable, or the class of it that says what is wrong with every server.
        """
        began = asyncio.get_running_loop().time()
        targets = ["standby", "any"] if self._servers.target == "prefer-standby" else [self._servers.target]
        causes: Mapping[str, Exception] = {}
        for n, target in enumerate(targets, 1):
            try:
                return await self._connect(target, began + POOL_WAIT * n / len(targets))
            except Failures as failures:
                causes = failures.causes
        kinds = {kind_of(cause) for cause in causes.values()}
        error = kinds.pop()() if len(kinds) == 1 else DatabaseUnavailable()
        error.reason = "; ".join(causes)
        logger.warning("database unavailable: %s", error.reason)
        raise error from max(causes.values(), key=lambda cause: isinstance(cause, asyncpg.PostgresError))

    async def _connect(self, target: str, deadline: float) -> asyncpg.Connection:
        hosts = sorted(self._servers.hosts, key=lambda host: host != self._last[0])
        return await race([partial(self._ask_host, host, target, deadline) for host in hosts], deadline, 2)

    async def _ask_host(self, host: Host, target: str, deadline: float) -> asyncpg.Connection:
        """Ask one address of a host after another: its name may lead to a server that is no longer there."""
        try:
            async with asyncio.timeout_at(deadline):
                addresses = await _addresses(host)
        except Exception as error:
            raise Failures({f"{host}: {words(error)}": error}) from error
        addresses.sort(key=lambda address: (host, address) != self._last)
        attempts = [partial(self._ask, host, address, target, deadline) for address in addresses]
        return await race(attempts, deadline, 4)

    async def _ask(self, host: Host, address: str | None, target: str, deadline: float) -> asyncpg.Connection:
        loop: Any = Loop(address, self._options)
        try:
            async with asyncio.timeout_at(deadline):
                connection = await asyncpg.connect(
                    host=host.name or address, port=host.port, target_session_attrs="any", loop=loop, **self._arguments
                )
                try:
                    await _check(connection, target)
                except BaseException:
                    connection.terminate()
                    raise
        except Exception as error:
            raise Failures({f"{host}: {words(error)}": error}) from error
        self._last = host, address
        return connection


class Loop:
    """The event loop, but it connects to one address of a host, with options for the socket.

    asyncpg knows the host's name still: TLS verifies it, and the file of passwords has it.
    """

    def __init__(self, address: str | None, options: Sequence[tuple[int, int, int]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._address = address
        self._options = options

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(self, protocol: Any, host: str, port: int, **arguments: Any) -> Any:
        if arguments.get("ssl"):
            arguments.setdefault("server_hostname", host)
        transport, made = await self._loop.create_connection(protocol, self._address or host, port, **arguments)
        for option in self._options:
            transport.get_extra_info("socket").setsockopt(*option)
        return transport, made


async def race(attempts: Sequence[Opening], deadline: float, share: int) -> asyncpg.Connection:
    """Start the first attempt. When it fails, or a share of the time is over, start the others, all at once.

    Return the first connection. All others are closed, also those that arrive later.
    """
    head_start = (deadline - asyncio.get_running_loop().time()) / share
    tasks = [asyncio.create_task(attempts[0]())]
    chosen: asyncpg.Connection | None = None
    causes: dict[str, Exception] = {}
    try:
        done, _ = await asyncio.wait(tasks, timeout=head_start if attempts[1:] else None)
        if not done or tasks[0].exception():
            tasks += [asyncio.create_task(attempt()) for attempt in attempts[1:]]
        for finished in asyncio.as_completed(tasks):
            try:
                chosen = await finished
            except Failures as failures:
                causes |= failures.causes
            else:
                return chosen
        raise Failures(causes)
    finally:
        for task in tasks:
            task.cancel()
            task.add_done_callback(partial(_close_others, chosen))


def _close_others(chosen: asyncpg.Connection | None, task: "asyncio.Task[asyncpg.Connection]") -> None:
    if not task.cancelled() and not task.exception() and task.result() is not chosen:
        task.result().terminate()


async def _addresses(host: Host) -> list[str | None]:
    """Look a host's name up each time: it may have moved."""
    if host.address or not host.name or host.name.startswith("/") or is_address(host.name):
        return [host.address]
    found = await asyncio.get_running_loop().getaddrinfo(host.name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address) for *_, (address, *_) in found))


async def _check(connection: asyncpg.Connection, target: str) -> None:
    """Raise DatabaseUnavailable if the server is not what `target_session_attrs` asks for.

    PostgreSQL from 14 on says what it is when it accepts a connection. PgBouncer repeats what it was once told, so the
    server is asked.
    """
    if target == "any":
        return
    is_standby, is_read_only = await connection.fetchrow(SELECT_STATE)
    if not FITS[target](is_standby, is_read_only):
        error = (DatabaseIsStandby if is_standby else DatabaseReadOnly)() if is_read_only else DatabaseUnavailable()
        error.reason = "is a standby" if is_standby else "is read-only" if is_read_only else "takes writes"
        raise error


def kind_of(cause: Exception) -> type[Unavailable]:
    """Return the class of the error that a driver or the system has met."""
    if isinstance(cause, Unavailable):
        return type(cause)
    if "unsupported startup parameter" in str(cause):  # PgBouncer has no SQLSTATE for it
        return PoolerRefuses
    return POSTGRESQL_ERRORS.get(getattr(cause, "sqlstate", None), DatabaseUnavailable)


def _socket_options(given: Mapping[str, int], wait: float) -> Iterator[tuple[int, int, int]]:
    """Translate libpq's parameters. 0 leaves the system's value, as in libpq. Some systems lack some options."""
    seconds = ceil(wait)
    values = {
        "TCP_KEEPIDLE": min(given.get("keepalives_idle", seconds), MAX_KEEPIDLE),
        "TCP_KEEPINTVL": min(given.get("keepalives_interval", 1), MAX_KEEPIDLE),
        "TCP_KEEPCNT": min(given.get("keepalives_count", seconds), MAX_KEEPCNT),
        "TCP_USER_TIMEOUT": given.get("tcp_user_timeout", 1000 * seconds),  # milliseconds
    }
    yield socket.SOL_SOCKET, socket.SO_KEEPALIVE, given.get("keepalives", 1)
    for name, value in values.items():
        if value and hasattr(socket, name):
            yield socket.IPPROTO_TCP, getattr(socket, name), value
