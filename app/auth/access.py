"""The database for one caller: every call checks the caller's session."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from app.auth.callers import LOCK_OWN_ROW, Caller, CurrentUser, LiveConnection, read_current_user, require_fresh_login
from app.auth.claims import AccessClaims
from app.auth.liveness import Moment
from app.db.database import Database
from app.errors import AppError

P = ParamSpec("P")
T = TypeVar("T")
Function = Callable[Concatenate[Connection, P], T]
UserFunction = Callable[Concatenate[Connection, CurrentUser, P], T]
LiveFunction = Callable[Concatenate[LiveConnection, P], T]


@dataclass(frozen=True, slots=True)
class CallerDatabase:
    """The database for a caller with a verified token. No call does anything unless the caller's session is live.

    - `read` and `write` check the session first. Their functions get the user, and may run any statement. `write`
      keeps what it has checked true until its transaction ends.
    - `read_if_live` and `write_if_live` save that look: each statement checks the session (see `if_live`).

    Raises:
        InvalidToken, InsufficientScope: from each call, as `read_current_user` raises them.
        StaleLogin: the session's login is `max_age` seconds old or older.
    """

    database: Database
    claims: AccessClaims
    required: Sequence[str]
    moment: Moment
    max_age: int | None = None

    async def read(self, f: UserFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.database.read_for(
            self.claims.sub, lambda connection: f(connection, self._current_user(connection), *args, **kwargs)
        )

    async def write(self, f: UserFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.database.write(
            lambda connection: f(connection, self._current_user(connection, lock=True), *args, **kwargs)
        )

    async def read_if_live(self, f: LiveFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Read with a function whose statements check the session.

        If the function returns something, its statements have found the session live. If it returns nothing (None, an
        empty page), another statement looks at the session.
        """
        return await self.database.read_for(
            self.claims.sub, self._if_live, lambda connection: f(connection, *args, **kwargs)
        )

    async def write_if_live(self, f: LiveFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Write as `read_if_live` reads. Each statement may be a transaction of its own."""
        return await self.database.autocommit(self._if_live, lambda connection: f(connection, *args, **kwargs))

    async def write_if_live_alone(self, f: LiveFunction[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Write as `write_if_live` does, in one transaction: until it ends, no other such call of this user begins."""

        def alone(connection: LiveConnection) -> T:
            connection.execute(LOCK_OWN_ROW)
            return f(connection, *args, **kwargs)  # pragma: no cover - in a greenlet alone

        return await self.database.write(self._if_live, alone)

    async def current_user(self) -> CurrentUser:
        return await self.database.read(self._current_user)

    def _if_live(self, connection: Connection, f: Callable[[LiveConnection], T]) -> T:
        # A token that lacks a scope is refused here. An administrator may have been demoted since the login.
        if self.max_age is not None or "admin" in self.required or not self.claims.scopes.issuperset(self.required):
            self._current_user(connection)
        try:
            found = f(LiveConnection(connection, Caller(self.claims.sub, self.claims.sid, *self.moment)))
        except AppError:
            self._current_user(connection)
            raise
        if not found:
            self._current_user(connection)
        return found

    def _current_user(self, connection: Connection, *, lock: bool = False) -> CurrentUser:
        user = read_current_user(connection, self.claims, self.required, self.moment, lock=lock)
        if self.max_age is not None:
            require_fresh_login(user, self.max_age, self.moment.now)
        return user


@dataclass(frozen=True, slots=True)
class AdminDatabase:
    """The database for an administrator, for functions that need not know which one."""

    db: CallerDatabase

    async def read(self, f: Function[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.db.read(lambda connection, _: f(connection, *args, **kwargs))

    async def write(self, f: Function[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.db.write(lambda connection, _: f(connection, *args, **kwargs))
