"""The caller of a request: the user and session that a verified access token names.

- `Caller` is what the token says. Nobody has asked the database yet.
- `CurrentUser` is the caller after the database was asked: the session is live, and the user is not disabled.
- `if_live` puts that question inside a statement. `LiveConnection` runs no other statement for a caller.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, CursorResult, Delete, Executable, Insert, Update, bindparam, exists, select
from sqlalchemy.orm import aliased

from app.auth.claims import AccessClaims
from app.auth.errors import InsufficientScope, InvalidToken, StaleLogin
from app.auth.liveness import IS_LIVE_SESSION, Moment
from app.auth.models import LoginSession, User
from app.auth.scopes import allowed_scopes
from app.db.database import AnySelect

Statement = TypeVar("Statement", AnySelect, Update, Delete)
InsertStatement = TypeVar("InsertStatement", bound=Insert)


class Caller(NamedTuple):
    """The user and session that a verified token names: the parameters of each `if_live` statement."""

    user_id: str
    session_id: str
    now: datetime
    created_after: datetime
    used_after: datetime


@dataclass(frozen=True, slots=True)
class CurrentUser:
    """The caller after the database was asked, and what the token may do."""

    user_id: str
    username: str
    session_id: str
    scopes: frozenset[str]
    logged_in_at: datetime | None
    """None with a personal token."""


# SQL evaluates it once for each statement, not once for each row.
IS_LIVE = (
    exists()
    .where(LoginSession.id == bindparam("session_id"), LoginSession.user_id == bindparam("user_id"))
    .where(IS_LIVE_SESSION, User.id == LoginSession.user_id, User.is_active)
    .correlate(None)
)
SELECT_USERNAME = select(User.username).where(User.id == bindparam("user_id")).correlate(None).scalar_subquery()


def if_live(statement: Statement) -> Statement:
    """Make a statement find, change or delete nothing unless the caller's session is live, and mark it as such.

    It takes the parameters of a `Caller`, which `LiveConnection` adds. A statement that counts should count in a
    subquery, or it answers 0 for a session that is over: `if_live(select(count.scalar_subquery()))`.
    """
    return statement.where(IS_LIVE).execution_options(checks_session=True)


def insert_if_live(statement: InsertStatement, columns: Sequence[str]) -> InsertStatement:
    """Make an INSERT of one row insert nothing unless the caller's session is live, and mark it as such.

    Each of the columns needs a parameter of its name.
    """
    values = [bindparam(name, type_=statement.table.c[name].type) for name in columns]
    return statement.from_select(columns, select(*values).where(IS_LIVE)).execution_options(checks_session=True)


class LiveConnection:
    """A connection for one caller. It runs only statements made with `if_live` or `insert_if_live`."""

    __slots__ = ("_connection", "_parameters", "caller", "dialect", "get_execution_options")

    def __init__(self, connection: Connection, caller: Caller) -> None:
        self.caller = caller
        self.dialect = connection.dialect
        self.get_execution_options = connection.get_execution_options
        self._connection = connection
        self._parameters = caller._asdict()

    def execute(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> CursorResult[*tuple[Any, ...]]:
        """Run a statement with its parameters and the caller's. Raises TypeError if it does not check the session."""
        if not statement.get_execution_options().get("checks_session"):
            raise TypeError("the statement does not check the session: use if_live(), or read() or write()")
        return self._connection.execute(statement, {**(parameters or {}), **self._parameters})


SELECT_CURRENT_USER = (
    select(User.id, User.username, User.is_active, User.is_admin, LoginSession.ended_at, LoginSession.end_reason)
    .add_columns(LoginSession.kind, LoginSession.created_at, LoginSession.rotated_at, LoginSession.expires_at)
    .join(User)
    .where(LoginSession.id == bindparam("session_id"), User.id == bindparam("user_id"), User.deleted_at.is_(None))
)
LOCK_CURRENT_USER = SELECT_CURRENT_USER.with_for_update(read=True, of=LoginSession)
LOCK_OWN_ROW = if_live(select(User.id).where(User.id == bindparam("user_id")).with_for_update(key_share=True))
IS_ADMINISTRATOR = User.is_admin & User.is_active
LOCK_ADMINISTRATORS = select(User.id).where(IS_ADMINISTRATOR).order_by(User.id).with_for_update(key_share=True)
CallerRow = aliased(User)
SELECT_OWN_ID = select(CallerRow.id).where(CallerRow.id == bindparam("user_id"))
IDS_FOR_ADMINISTRATORS = select(User.id).where(IS_ADMINISTRATOR, SELECT_OWN_ID.where(CallerRow.is_admin).exists())
LOCK_OWN_ROW_OR_ADMINISTRATORS = (
    select(User.id)
    .where(User.id.in_(SELECT_OWN_ID.union_all(IDS_FOR_ADMINISTRATORS)))
    .order_by(User.id)
    .with_for_update(key_share=True, of=User)
)
"""Locks the caller's row; for an administrator, the rows of all administrators as `LOCK_ADMINISTRATORS` does."""


def read_current_user(
    connection: Connection, claims: AccessClaims, required: Collection[str], moment: Moment, *, lock: bool
) -> CurrentUser:
    """Ask the database who the caller is now. With `lock` the answer stays true until the transaction ends.

    A transaction that ends the session waits for one that has locked it. Transactions that write to accounts or
    sessions lock users before sessions, and administrators before other users, in the order of their ids, so that no
    two transactions wait for each other.

    Raises:
        InvalidToken: the session is over or gone, or its user is disabled.
        InsufficientScope: the token lacks a required scope, or the user may no longer use it.
    """
    if lock and not {"account", "admin"}.isdisjoint(required):
        connection.execute(LOCK_OWN_ROW_OR_ADMINISTRATORS, {"user_id": claims.sub})
    query = LOCK_CURRENT_USER if lock else SELECT_CURRENT_USER
    row = connection.execute(query, {"session_id": claims.sid, "user_id": claims.sub}).one_or_none()
    if row is None:
        raise InvalidToken
    if reason := moment.why_over(row):
        raise InvalidToken(reason)
    if not row.is_active:
        raise InvalidToken("The user is disabled")
    scopes = claims.scopes & allowed_scopes(is_admin=row.is_admin)
    if not scopes.issuperset(required):
        raise InsufficientScope(" ".join(required))
    return CurrentUser(row.id, row.username, claims.sid, scopes, row.created_at if row.kind == "login" else None)


def require_fresh_login(user: CurrentUser, max_age: int, now: datetime) -> None:
    """Raises StaleLogin: the session's login is `max_age` seconds old or older, or it has none.

    A refresh is not a login. Neither is a personal token.
    """
    if user.logged_in_at is None or now - user.logged_in_at >= timedelta(seconds=max_age):
        raise StaleLogin(max_age)
