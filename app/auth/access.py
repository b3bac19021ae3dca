"""The database in the hands of a caller: nothing is done for them but while they may."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Concatenate, Generic, ParamSpec, TypeVar, cast

from sqlalchemy import Connection

from app.auth.callers import OWN_ROW, Caller, CurrentUser, lock_current_user, read_current_user, require_fresh_login
from app.auth.claims import AccessClaims
from app.db.database import Database
from app.errors import AppError

P = ParamSpec("P")
T = TypeVar("T")
Who = TypeVar("Who", bound=CurrentUser | None)
Held = TypeVar("Held", bound=Caller | None)


@dataclass(frozen=True, slots=True)
class CallerDatabase(Generic[Who, Held]):
    """The database in the hands of the holder of a token: no call does anything for them unless their session is live.

    `read` and `write` look at it first, `find` and `make` with the very statement that does the work. Nothing that
    `write` has looked at changes until its transaction ends. The function gets the caller; None where a token is
    optional and none came.

    Raises:
        InvalidToken, InsufficientScope: as `read_current_user` has it, from each call.
        StaleLogin: the session's login is older than `max_age` seconds.
    """

    database: Database
    claims: AccessClaims | None
    required: Sequence[str]
    now: datetime
    max_age: int | None = None

    async def read(self, f: Callable[Concatenate[Connection, Who, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.database.read_for(
            self._caller, lambda connection: f(connection, self._who(connection), *args, **kwargs)
        )

    async def write(self, f: Callable[Concatenate[Connection, Who, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.database.write(
            lambda connection: f(connection, self._who(connection, lock_current_user), *args, **kwargs)
        )

    async def read_if_live(
        self, f: Callable[Concatenate[Connection, Held, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Read with a function each of whose statements has `IS_LIVE` in it, where there is a token.

        If it finds something, the session is live. If it finds nothing, another statement looks at the session.
        """
        return await self.database.read_for(
            self._caller, self._find, lambda connection, held: f(connection, held, *args, **kwargs)
        )

    async def write_if_live(
        self, f: Callable[Concatenate[Connection, Held, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Write as `read_if_live` reads: whatever the function's statements write or find, `IS_LIVE` is in them."""
        return await self.database.autocommit(self._find, lambda connection, held: f(connection, held, *args, **kwargs))

    async def write_if_live_alone(
        self, f: Callable[Concatenate[Connection, Held, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Make in a transaction, before whose end no other one like it begins for the same holder."""

        def alone(connection: Connection) -> T:
            connection.execute(OWN_ROW, {"user_id": self._caller})
            return self._find(connection, lambda connection, held: f(connection, held, *args, **kwargs))

        return await self.database.write(alone)

    async def current_user(self) -> Who:
        return await self.database.read(self._who)

    @property
    def _caller(self) -> str | None:
        return self.claims.sub if self.claims else None

    def _find(self, connection: Connection, f: Callable[[Connection, Held], T]) -> T:
        holder = Caller(self.claims.sub, self.claims.sid, self.now) if self.claims else None
        if not self._is_enough():
            self._who(connection)
        try:
            found = f(connection, cast("Held", holder))
        except AppError:
            self._who(connection)
            raise
        if not found:
            self._who(connection)
        return found

    def _is_enough(self) -> bool:
        """Whether the scopes of the token are enough to know. That of administrators is not: they may be none now."""
        if self.claims is None:
            return True
        return self.max_age is None and self.claims.scopes.issuperset(self.required) and "admin" not in self.required

    def _who(self, connection: Connection, look: Callable[..., CurrentUser] = read_current_user) -> Who:
        who = self.claims and look(connection, self.claims, self.required, self.now)
        if who and self.max_age is not None:
            require_fresh_login(who, self.max_age, self.now)
        return cast("Who", who)


CallerDb = CallerDatabase[CurrentUser, Caller]
OptionalCallerDb = CallerDatabase[CurrentUser | None, Caller | None]


@dataclass(frozen=True, slots=True)
class AdminDatabase:
    """The database in the hands of an administrator, for functions that need not know who that is."""

    db: CallerDb

    async def read(self, f: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.db.read(lambda connection, _: f(connection, *args, **kwargs))

    async def write(self, f: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.db.write(lambda connection, _: f(connection, *args, **kwargs))
