"""Who holds an access token, at this moment: each request with one asks."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, exists, select, union_all
from sqlalchemy.orm import aliased

from app.auth.claims import AccessClaims
from app.auth.errors import END_REASONS, SESSION_EXPIRED, SESSION_OVER, InsufficientScope, InvalidToken, StaleLogin
from app.auth.models import LoginSession, User
from app.auth.scopes import allowed_scopes
from app.db.database import AnyRow, AnySelect


@dataclass(frozen=True, slots=True)
class CurrentUser:
    """Whose request it is, by which session, and what its token may do."""

    user_id: str
    username: str
    session_id: str
    scopes: frozenset[str]
    logged_in_at: datetime


SELECT_CURRENT_USER = (
    select(User.id, User.username, User.is_active, User.is_admin, LoginSession.ended_at, LoginSession.end_reason)
    .add_columns(LoginSession.created_at, LoginSession.expires_at)
    .join(User)
    .where(LoginSession.id == bindparam("session_id"), User.id == bindparam("user_id"), User.deleted_at.is_(None))
)
LOCK_CURRENT_USER = {
    "postgresql": SELECT_CURRENT_USER.with_for_update(read=True, of=LoginSession),
    "sqlite": SELECT_CURRENT_USER,
}
OWN_ROW = select(User.id).where(User.id == bindparam("user_id")).with_for_update(key_share=True)
IS_ADMINISTRATOR = User.is_admin & User.is_active
ADMINISTRATORS = select(User.id).where(IS_ADMINISTRATOR).order_by(User.id).with_for_update(key_share=True)
Own = aliased(User)
OWN = select(Own.id).where(Own.id == bindparam("user_id"))
IF_OWN_IS_ONE = select(User.id).where(IS_ADMINISTRATOR, OWN.where(Own.is_admin).exists())
OWN_OR_ADMINISTRATORS = (
    select(User.id)
    .where(User.id.in_(union_all(OWN, IF_OWN_IS_ONE)))
    .order_by(User.id)
    .with_for_update(key_share=True, of=User)
)
"""The caller's row; where the caller is an administrator, the rows of all of them, in the order of `ADMINISTRATORS`."""


class Caller(NamedTuple):
    """The holder whom a token names, before the database is asked: the parameters of `IS_LIVE`."""

    user_id: str
    session_id: str
    now: datetime


# For a statement that must find nothing unless the holder's session is live. It is evaluated once, not for each row.
IS_LIVE = (
    exists()
    .where(
        LoginSession.id == bindparam("session_id"),
        LoginSession.user_id == bindparam("user_id"),
        LoginSession.ended_at.is_(None),
        LoginSession.expires_at > bindparam("now"),
        User.id == LoginSession.user_id,
        User.is_active,
    )
    .correlate(None)
)
USERNAME = select(User.username).where(User.id == bindparam("user_id")).correlate(None).scalar_subquery()


def read_current_user(
    connection: Connection, claims: AccessClaims, required: Collection[str], now: datetime
) -> CurrentUser:
    """Read who the holder of an access token is, at this moment: a session that is over takes its tokens along.

    Raises:
        InvalidToken: the session is over or gone, or its user disabled.
        InsufficientScope: the token may not do what is required, or its user may no longer.
    """
    return _read_principal(connection, SELECT_CURRENT_USER, claims, required, now)


def lock_current_user(
    connection: Connection, claims: AccessClaims, required: Collection[str], now: datetime
) -> CurrentUser:
    """Read it as `read_current_user` does, and keep it true until the transaction ends.

    A transaction that ends the session waits for this one. Transactions that write to accounts or sessions lock users
    before sessions, and administrators before other users, by their ids. So no two of them wait for each other.

    Raises:
        InvalidToken, InsufficientScope
    """
    if not {"account", "admin"}.isdisjoint(required):
        connection.execute(OWN_OR_ADMINISTRATORS, {"user_id": claims.sub})
    return _read_principal(connection, LOCK_CURRENT_USER[connection.dialect.name], claims, required, now)


def require_fresh_login(user: CurrentUser, max_age: int, now: datetime) -> None:
    """Raises StaleLogin: the session's login is that many seconds ago, or more. A refresh is no login."""
    if now - user.logged_in_at >= timedelta(seconds=max_age):
        raise StaleLogin(max_age)


def _read_principal(
    connection: Connection, query: AnySelect, claims: AccessClaims, required: Collection[str], now: datetime
) -> CurrentUser:
    row = connection.execute(query, {"session_id": claims.sid, "user_id": claims.sub}).one_or_none()
    if row is None:
        raise InvalidToken
    if reason := why_over(row, now):
        raise InvalidToken(reason)
    if not row.is_active:
        raise InvalidToken("The user is disabled")
    scopes = claims.scopes & allowed_scopes(is_admin=row.is_admin)
    if not scopes.issuperset(required):
        raise InsufficientScope(" ".join(required))
    return CurrentUser(row.id, row.username, claims.sid, scopes, row.created_at)


def why_over(session: AnyRow, now: datetime) -> str | None:
    if session.ended_at is not None:
        return END_REASONS.get(session.end_reason, SESSION_OVER)
    return SESSION_EXPIRED if session.expires_at <= now else None
