"""The database as verbs. Each verb runs a plain function `f(connection, …)` of SQLAlchemy Core.

    await db.read(f, …)               reads; each statement is its own transaction
    await db.read_for(caller, f, …)   the same for a caller, whose long reads take turns with those of other callers
    await db.write(f, …)              one transaction: committed before the call returns, rolled back if `f` raises
    await db.autocommit(f, …)         one write without a transaction around it: on PostgreSQL it saves two round trips

`f` may run again from its beginning: when a read turns out long, and when PostgreSQL has rolled back its write because
of a conflict. Nothing has been written by then.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Annotated, Any, Concatenate, Final, Literal, ParamSpec, Protocol, TypeVar
from weakref import WeakValueDictionary

from fastapi import Depends, Request
from sqlalchemy import Connection, CursorResult, Dialect, Executable, Row, Select

from app.db.errors import unavailable

P = ParamSpec("P")
T = TypeVar("T")
AnyRow = Row[*tuple[Any, ...]]
AnySelect = Select[*tuple[Any, ...]]


class AnyConnection(Protocol):
    """A `Connection`, or one that guards what it executes."""

    @property
    def dialect(self) -> Dialect: ...

    def get_execution_options(self) -> Mapping[str, Any]: ...

    def execute(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None, /
    ) -> CursorResult[*tuple[Any, ...]]: ...


SERVICE: Final = "the service"
ANYONE: Final = "anyone"
"""Callers of reads besides users: the service itself, and all callers without a token together."""


Verb = Literal["read", "write", "autocommit"]


class LongRead(Exception):
    """A long read began where no long read may run. The database runs it again in another place."""


def expect_long(connection: AnyConnection, kind: Literal["search", "walk"]) -> None:
    """Say that the next statement may take long. The function that calls this may run again from its beginning.

    A `search` looks into SQLite's index of words. SQLite cannot interrupt that, so it must not run on the event loop. A
    `walk` goes along a list until it has found enough. SQLite interrupts it when it takes long.
    """
    if kind in connection.get_execution_options().get("refuses", ()):
        raise LongRead


class Database(ABC):
    """A database, as `connect` opens it.

    Each verb raises DatabaseUnavailable if the database cannot be reached or is too busy to answer in time, and
    SchemaBehind if a table or a column is missing.
    """

    dialect: str
    observe: Callable[[Verb], AbstractContextManager[object]] = staticmethod(lambda _: nullcontext())
    """Returns what each call of a verb runs in: the metrics time it, and count its errors."""

    async def read(self, f: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `f`, which only reads, in autocommit mode: each statement is its own transaction."""
        return await self.read_for(SERVICE, f, *args, **kwargs)

    async def read_for(
        self, caller: str, f: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Read for a user, by id, or for `ANYONE`. A caller who has too many long reads gets DatabaseUnavailable."""
        with self.observe("read"), unavailable():
            return await self._read(lambda connection: f(connection, *args, **kwargs), caller)

    async def write(self, f: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `f` in one transaction, committed when `f` returns and rolled back when it raises."""
        with self.observe("write"), unavailable():
            return await self._write(lambda connection: f(connection, *args, **kwargs))

    async def autocommit(self, f: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `f` in autocommit mode. One of its statements may write, and no more: PostgreSQL may run `f` again."""
        with self.observe("autocommit"), unavailable():
            return await self._autocommit(lambda connection: f(connection, *args, **kwargs))

    async def check_writable(self) -> None:
        """Raise DatabaseUnavailable, or a class of it that says why, if the database cannot be written."""
        with unavailable():
            await self._check_writable()

    @abstractmethod
    async def _read(self, f: Callable[[Connection], T], caller: str) -> T: ...

    @abstractmethod
    async def _write(self, f: Callable[[Connection], T]) -> T: ...

    @abstractmethod
    async def _autocommit(self, f: Callable[[Connection], T]) -> T: ...

    @abstractmethod
    async def _check_writable(self) -> None: ...

    @abstractmethod
    def usage(self) -> tuple[int, int]:
        """Count the connections that are in use, and those that may be."""

    @abstractmethod
    async def close(self) -> None: ...


class Turns:
    """At most `total` turns at once, and `each` for one caller. The caller who has waited longest is next.

    A caller who asks for many turns waits for their own turns. Other callers wait for one or two of them.
    """

    def __init__(self, total: int, each: int) -> None:
        self._all = asyncio.Semaphore(total)
        self._each = each
        self._own = WeakValueDictionary[str, asyncio.Semaphore]()

    @asynccontextmanager
    async def turn(self, caller: str) -> AsyncIterator[None]:
        own = self._own.setdefault(caller, asyncio.Semaphore(self._each))
        async with own, self._all:
            yield


async def get_database(request: Request) -> Database:
    database: Database = request.app.state.services.database
    return database


Db = Annotated[Database, Depends(get_database)]
