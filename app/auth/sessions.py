"""Sessions: one row for each login. This module lists, describes (RFC 7662), ends and deletes them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, bindparam, delete, literal, select, update

from app.auth.callers import CurrentUser
from app.auth.claims import RefreshClaims, SessionClaims
from app.auth.errors import SessionNotFound
from app.auth.liveness import IS_LIVE_SESSION, IS_LOGIN, Moment
from app.auth.models import LoginSession, User
from app.auth.schemas import Introspection
from app.auth.scopes import allowed_scopes, format_scope, session_scopes
from app.pagination.order import SortOrder
from app.pagination.page import Page, PageQuery

COLUMNS = LoginSession.__table__.c
TOKEN_COLUMNS = [
    *COLUMNS["id", "user_id", "generation", "scope", "has_every_scope"],
    *COLUMNS["kind", "created_at", "rotated_at", "expires_at"],
]
"""The columns that tokens are made from."""

IS_OF_OWNER = (LoginSession.id == bindparam("session_id"), LoginSession.user_id == bindparam("owner_id"))
SELECT_SESSION = (
    select(*TOKEN_COLUMNS, LoginSession.unused_generation, LoginSession.ended_at, LoginSession.end_reason)
    .add_columns(User.username, User.is_admin)
    .join(User)
    .where(*IS_OF_OWNER, User.is_active)
)
IS_LIVE_OF_USER = (LoginSession.user_id == bindparam("user_id"), IS_LOGIN, IS_LIVE_SESSION)
SELECT_LIVE_SESSIONS = select(
    *(LoginSession.id, LoginSession.created_at, LoginSession.rotated_at.label("last_used_at"), LoginSession.expires_at),
    *(LoginSession.user_agent, LoginSession.ip),
).where(*IS_LIVE_OF_USER)
SELECT_OWN_SESSIONS = SELECT_LIVE_SESSIONS.add_columns((LoginSession.id == bindparam("session_id")).label("current"))
BY_LOGIN = SortOrder(LoginSession.id, descending=True)

FIRST_ID: Final = "00000000-0000-0000-0000-000000000000"
INACTIVE: Final = Introspection(active=False)
SELECT_IDS_AFTER = select(LoginSession.id).where(LoginSession.id > bindparam("after_id")).order_by(LoginSession.id)


def list_live(connection: Connection, user_id: str, query: PageQuery, moment: Moment) -> Page:
    """Read a page of a user's live sessions, the latest login first."""
    return BY_LOGIN.page(connection, SELECT_LIVE_SESSIONS, query, "sessions", {"user_id": user_id, **moment._asdict()})


def list_sessions(connection: Connection, user: CurrentUser, query: PageQuery, moment: Moment) -> Page:
    """Read a page of the caller's live sessions. `current` marks the session of the request."""
    values = {"user_id": user.user_id, "session_id": user.session_id, **moment._asdict()}
    return BY_LOGIN.page(connection, SELECT_OWN_SESSIONS, query, "sessions", values)


def introspect(connection: Connection, user: CurrentUser, claims: SessionClaims, moment: Moment) -> Introspection:
    """Describe a token of ours that has not expired. Only its owner and administrators learn more than `active`."""
    session = connection.execute(SELECT_SESSION, {"session_id": claims.sid, "owner_id": claims.sub}).one_or_none()
    may_ask = claims.sub == user.user_id or "admin" in user.scopes
    if session is None or not may_ask or moment.why_over(session):
        return INACTIVE
    if isinstance(claims, RefreshClaims):
        if claims.gen != session.generation:
            return INACTIVE
        scopes, token_type = session_scopes(session), None
    else:
        scopes, token_type = claims.scopes, "bearer"
    return Introspection(
        active=True,
        scope=format_scope(scopes & allowed_scopes(is_admin=session.is_admin)),
        username=session.username,
        token_type=token_type,
        exp=min(claims.exp, int(moment.end_of(session).timestamp())),
        **claims.model_dump(include={"sub", "iss", "aud", "jti", "iat"}),
    )


def end_session(connection: Connection, claims: SessionClaims, reason: str, now: datetime) -> bool:
    """End the session of a token. Return whether it had not been ended before."""
    return end_where(connection, [LoginSession.id == claims.sid, LoginSession.user_id == claims.sub], reason, now)


def end_own_session(connection: Connection, user_id: str, session_id: str, moment: Moment) -> None:
    """Raises SessionNotFound: the user has no live session of that id."""
    own = [LoginSession.id == session_id, LoginSession.user_id == user_id, IS_LOGIN, IS_LIVE_SESSION]
    if not end_where(connection, own, "revoked", moment.now, moment):
        raise SessionNotFound


def end_sessions_of(connection: Connection, user_id: str, reason: str, now: datetime) -> None:
    end_where(connection, [LoginSession.user_id == user_id], reason, now)


def end_sessions_with(connection: Connection, user_id: str, scope: str, reason: str, now: datetime) -> None:
    """End the sessions of a user that name a scope."""
    names_scope = (literal(" ") + LoginSession.scope + " ").contains(f" {scope} ")
    end_where(connection, [LoginSession.user_id == user_id, names_scope], reason, now)


def end_other_sessions(connection: Connection, user: CurrentUser, reason: str, now: datetime) -> None:
    """End the caller's logins but the one of the request. Personal tokens stay."""
    others = [LoginSession.user_id == user.user_id, LoginSession.id != user.session_id, IS_LOGIN]
    end_where(connection, others, reason, now)


def purge_sessions(connection: Connection, before: datetime, after_id: str, limit: int) -> tuple[str | None, int]:
    """Look at `limit` sessions, those with the next ids, and delete the ones that were over before a moment.

    Return the last id, None at the end, and the number of deleted sessions.
    """
    ids = connection.execute(SELECT_IDS_AFTER.limit(limit), {"after_id": after_id}).scalars().all()
    if not ids:
        return None, 0
    is_over = (LoginSession.ended_at < before) | (LoginSession.expires_at < before)
    purged = connection.execute(delete(LoginSession).where(LoginSession.id.between(ids[0], ids[-1]), is_over))
    return ids[-1], purged.rowcount


def has_sessions(connection: Connection) -> bool:
    return connection.execute(select(LoginSession.id).limit(1)).one_or_none() is not None


def end_where(
    connection: Connection,
    which: Sequence[ColumnElement[bool]],
    reason: str,
    now: datetime,
    moment: Moment | None = None,
) -> bool:
    """End the sessions that are not ended yet. Return whether there were any."""
    end = update(LoginSession).where(*which, LoginSession.ended_at.is_(None)).values(ended_at=now, end_reason=reason)
    return bool(connection.execute(end, moment._asdict() if moment else {}).rowcount)
