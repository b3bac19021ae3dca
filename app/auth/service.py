"""Sessions and who they belong to: one row a login, whose generation moves on by one at each refresh."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, bindparam, delete, literal, select, update

from app.auth.callers import CurrentUser
from app.auth.claims import SessionClaims
from app.auth.errors import SessionNotFound
from app.auth.models import LoginSession
from app.pagination.order import SortOrder
from app.pagination.page import Page, PageQuery

# What tokens are made from.
SESSION = (
    LoginSession.id,
    LoginSession.user_id,
    LoginSession.generation,
    LoginSession.scope,
    LoginSession.has_every_scope,
    LoginSession.rotated_at,
    LoginSession.expires_at,
)


def end_session(connection: Connection, claims: SessionClaims, reason: str, now: datetime) -> bool:
    """End the session of a token, and return whether it was live."""
    return _end(connection, [LoginSession.id == claims.sid, LoginSession.user_id == claims.sub], reason, now)


def end_own_session(connection: Connection, user_id: str, session_id: str, now: datetime) -> None:
    """End a session of a user's.

    Raises:
        SessionNotFound: there is none, or it is over, or another's.
    """
    own = [LoginSession.id == session_id, LoginSession.user_id == user_id, LoginSession.expires_at > now]
    if not _end(connection, own, "revoked", now):
        raise SessionNotFound


def end_sessions_of(connection: Connection, user_id: str, reason: str, now: datetime) -> None:
    """End all sessions of a user."""
    _end(connection, [LoginSession.user_id == user_id], reason, now)


def end_sessions_with(connection: Connection, user_id: str, scope: str, reason: str, now: datetime) -> None:
    """End those sessions of a user that have this scope."""
    has_scope = (literal(" ") + LoginSession.scope + " ").contains(f" {scope} ")
    _end(connection, [LoginSession.user_id == user_id, has_scope], reason, now)


def end_other_sessions(connection: Connection, user: CurrentUser, reason: str, now: datetime) -> None:
    """End all sessions of the user's but this one."""
    _end(connection, [LoginSession.user_id == user.user_id, LoginSession.id != user.session_id], reason, now)


BY_LOGIN = SortOrder(LoginSession.id, descending=True)
LIVE_OF_USER = (
    LoginSession.user_id == bindparam("user_id"),
    LoginSession.ended_at.is_(None),
    LoginSession.expires_at > bindparam("now"),
)
LIVE = (
    select(
        LoginSession.id, LoginSession.created_at, LoginSession.rotated_at.label("last_used_at"), LoginSession.expires_at
    )
    .add_columns(LoginSession.user_agent, LoginSession.ip)
    .where(*LIVE_OF_USER)
)
OWN = LIVE.add_columns((LoginSession.id == bindparam("session_id")).label("current"))


def list_live(connection: Connection, user_id: str, query: PageQuery, now: datetime) -> Page:
    """Read a user's live sessions, the latest login first."""
    return BY_LOGIN.page(connection, LIVE, query, "sessions", {"user_id": user_id, "now": now})


def list_sessions(connection: Connection, user: CurrentUser, query: PageQuery, now: datetime) -> Page:
    """Read one's own, with the one that asks marked."""
    values = {"user_id": user.user_id, "session_id": user.session_id, "now": now}
    return BY_LOGIN.page(connection, OWN, query, "sessions", values)


FIRST_ID = "00000000-0000-0000-0000-000000000000"
BATCH = (
    select(LoginSession.id)
    .where(LoginSession.id > bindparam("after_id"))
    .order_by(LoginSession.id)
    .limit(bindparam("limit"))
)


def purge_sessions(connection: Connection, before: datetime, after_id: str, limit: int) -> tuple[str | None, int]:
    """Delete those, of so many sessions with the next ids, that ended or expired before then.

    The id to go on after, None at the end, and how many there were.
    """
    ids = connection.execute(BATCH, {"after_id": after_id, "limit": limit}).scalars().all()
    if not ids:
        return None, 0
    is_over = (LoginSession.ended_at < before) | (LoginSession.expires_at < before)
    purged = connection.execute(delete(LoginSession).where(LoginSession.id.between(ids[0], ids[-1]), is_over))
    return ids[-1], purged.rowcount


def has_sessions(connection: Connection) -> bool:
    """Whether anybody has ever logged in, as far as is known."""
    return connection.execute(select(LoginSession.id).limit(1)).one_or_none() is not None


def _end(connection: Connection, which: Iterable[ColumnElement[bool]], reason: str, now: datetime) -> bool:
    """End those of the sessions that are live; whether there were any."""
    end = update(LoginSession).where(*which, LoginSession.ended_at.is_(None)).values(ended_at=now, end_reason=reason)
    return bool(connection.execute(end).rowcount)
