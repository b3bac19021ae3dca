"""Sessions and who they belong to: one row a login, whose generation moves on by one at each refresh."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, exists, func, insert, select, update

from app.auth.errors import (
    END_REASONS,
    SESSION_EXPIRED,
    InvalidGrant,
    InvalidScope,
    InvalidToken,
    SessionNotFound,
)
from app.auth.models import Session, User
from app.auth.schemas import SCOPES, Introspection
from app.auth.tokens import AccessClaims, Claims, RefreshClaims
from app.columns import new_id
from app.database import AnyRow
from app.pagination import Order, Page, PageQuery


class Client(NamedTuple):
    """Where a login comes from, as its owner will see it."""

    user_agent: str
    ip: str


@dataclass(frozen=True, slots=True)
class Principal:
    """Whose request it is, by which session, and what its token may do."""

    user_id: str
    username: str
    session_id: str
    scopes: frozenset[str]


# What tokens are made from.
SESSION = (Session.id, Session.user_id, Session.generation, Session.scope, Session.rotated_at, Session.expires_at)


def allowed_scopes(*, is_admin: bool) -> frozenset[str]:
    return frozenset(SCOPES) if is_admin else frozenset(SCOPES) - {"admin"}


def grant_scope(requested: Iterable[str], allowed: frozenset[str]) -> str:
    """What was asked for, or everything that may be had where nothing was.

    Raises:
        InvalidScope: more was asked for than may be had.
    """
    granted = frozenset(requested) or allowed
    if not granted or not granted <= allowed:
        raise InvalidScope
    return spell_scope(granted)


def spell_scope(scopes: frozenset[str]) -> str:
    return " ".join(scope for scope in SCOPES if scope in scopes)


def find_account(connection: Connection, username: str) -> AnyRow | None:
    """Read what a login is checked against: id, password_hash, is_active, is_admin."""
    query = select(User.id, User.password_hash, User.is_active, User.is_admin)
    return connection.execute(query.where(func.lower(User.username) == username.lower())).one_or_none()


def start_session(
    connection: Connection,
    account: AnyRow,
    new_hash: str | None,
    scope: str,
    client: Client,
    now: datetime,
    ttl: timedelta,
) -> AnyRow | None:
    """Insert a session; None if the account was disabled, or its hash replaced, since the password was checked."""
    unchanged = (User.id == account.id, User.password_hash == account.password_hash, User.is_active)
    lock = select(User.id).where(*unchanged).with_for_update(read=new_hash is None)
    if connection.execute(lock).one_or_none() is None:
        return None
    if new_hash:
        connection.execute(update(User).where(User.id == account.id).values(password_hash=new_hash))
    session = {
        "id": new_id(now),
        "user_id": account.id,
        "scope": scope,
        "created_at": now,
        "rotated_at": now,
        "expires_at": now + ttl,
        **client._asdict(),
    }
    return connection.execute(insert(Session).values(session).returning(*SESSION)).one()


class Refreshed(NamedTuple):
    session: AnyRow
    scope: str


def refresh_session(
    connection: Connection, claims: RefreshClaims, scopes: Sequence[str], now: datetime, grace: timedelta
) -> Refreshed | InvalidGrant:
    """Move the session on to its next generation, once. A refusal is returned, so that what it records is kept.

    A repeat of the move within `grace` gets the generation that the move made: a lost answer, or a second tab. Any
    older one was copied, and nobody can tell which holder is the owner: it ends the session (RFC 9700 §4.14.2).

    Raises:
        InvalidScope: more was asked for than the session has, or its user may have by now; nothing has moved.
    """

    def granted(session: AnyRow) -> Refreshed:
        allowed = claims.scopes & allowed_scopes(is_admin=session.is_admin)
        return Refreshed(session, grant_scope(scopes, allowed))

    is_current = (
        Session.id == claims.sid,
        Session.generation == claims.gen,
        Session.ended_at.is_(None),
        Session.expires_at > now,
        exists().where(User.id == Session.user_id, User.is_active),
    )
    move = update(Session).where(*is_current).values(generation=Session.generation + 1, rotated_at=now)
    is_admin = select(User.is_admin).where(User.id == Session.user_id).scalar_subquery().label("is_admin")
    moved = connection.execute(move.returning(*SESSION, is_admin)).one_or_none()
    if moved is not None:
        return granted(moved)
    query = select(*SESSION, Session.ended_at, Session.end_reason, User.is_admin)
    query = query.join(User, Session.user_id == User.id)
    session = connection.execute(query.where(Session.id == claims.sid, User.is_active)).one_or_none()
    if session is None:
        return InvalidGrant()
    if reason := _why_over(session, now):
        return InvalidGrant(reason)
    if claims.gen == session.generation - 1 and max(now - session.rotated_at, timedelta()) < grace:
        return granted(session)
    if claims.gen >= session.generation:  # the database is older than the token: restored from a backup
        return InvalidGrant()
    end_session(connection, session.id, "reuse", now)
    return InvalidGrant(END_REASONS["reuse"])


def end_session(connection: Connection, session_id: str, reason: str, now: datetime) -> None:
    """End a session, if it is live."""
    _end(connection, [Session.id == session_id], reason, now)


def end_own_session(connection: Connection, user: Principal, session_id: str, now: datetime) -> None:
    """End a session of the user's.

    Raises:
        SessionNotFound: there is none, or it is over, or another's.
    """
    own = [Session.id == session_id, Session.user_id == user.user_id, Session.expires_at > now]
    if not _end(connection, own, "revoked", now):
        raise SessionNotFound


def end_other_sessions(connection: Connection, user: Principal, reason: str, now: datetime) -> None:
    """End all sessions of the user's but this one."""
    _end(connection, [Session.user_id == user.user_id, Session.id != user.session_id], reason, now)


def list_sessions(connection: Connection, user: Principal, query: PageQuery, now: datetime) -> Page:
    """Read the user's live sessions, the latest login first."""
    live = select(
        Session.id,
        Session.created_at,
        Session.rotated_at.label("last_used_at"),
        Session.expires_at,
        Session.user_agent,
        Session.ip,
        (Session.id == user.session_id).label("current"),
    ).where(Session.user_id == user.user_id, Session.ended_at.is_(None), Session.expires_at > now)
    return Order(Session.id, descending=True).page(connection, live, query, "sessions")


# Made once: every request with a token runs it.
PRINCIPAL = (
    select(User.id, User.username, User.is_active, User.is_admin, Session.ended_at, Session.end_reason)
    .add_columns(Session.expires_at)
    .join(User, Session.user_id == User.id)
    .where(Session.id == bindparam("session_id"), User.id == bindparam("user_id"))
)


def get_principal(connection: Connection, claims: AccessClaims, now: datetime) -> Principal:
    """Read who the holder of an access token is, at this moment: a session that is over takes its tokens along.

    Raises:
        InvalidToken: the session is over or gone, or its user disabled.
    """
    row = connection.execute(PRINCIPAL, {"session_id": claims.sid, "user_id": claims.sub}).one_or_none()
    if row is None:
        raise InvalidToken
    if reason := _why_over(row, now):
        raise InvalidToken(reason)
    if not row.is_active:
        raise InvalidToken("The user is disabled")
    return Principal(row.id, row.username, claims.sid, claims.scopes & allowed_scopes(is_admin=row.is_admin))


def introspect(connection: Connection, claims: Claims, caller: Principal, now: datetime) -> Introspection:
    """Say what an unexpired token of ours is good for at this moment, to its owner or an administrator."""
    query = select(*SESSION, Session.ended_at, Session.end_reason, User.username, User.is_admin)
    is_of = (Session.id == claims.sid, User.id == claims.sub, User.is_active)
    session = connection.execute(query.join(User, Session.user_id == User.id).where(*is_of)).one_or_none()
    is_callers = claims.sub == caller.user_id or "admin" in caller.scopes
    if session is None or not is_callers or _why_over(session, now):
        return Introspection(active=False)
    if isinstance(claims, RefreshClaims) and claims.gen != session.generation:
        return Introspection(active=False)
    token_type: Literal["bearer"] | None = "bearer" if isinstance(claims, AccessClaims) else None
    scope = spell_scope(claims.scopes & allowed_scopes(is_admin=session.is_admin))
    said = claims.model_dump(include={"sub", "iss", "aud", "jti", "iat", "exp"})
    return Introspection(active=True, scope=scope, username=session.username, token_type=token_type, **said)


def _end(connection: Connection, which: Iterable[ColumnElement[bool]], reason: str, now: datetime) -> bool:
    """End those of the sessions that are live; whether there were any."""
    end = update(Session).where(*which, Session.ended_at.is_(None)).values(ended_at=now, end_reason=reason)
    return bool(connection.execute(end.returning(Session.id)).all())


def _why_over(session: AnyRow, now: datetime) -> str | None:
    if session.ended_at is not None:
        return END_REASONS[session.end_reason]
    return SESSION_EXPIRED if session.expires_at <= now else None
