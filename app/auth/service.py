"""Sessions and who they belong to: one row a login, whose generation moves on by one at each refresh."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, delete, exists, func, insert, select, update

from app.auth.errors import (
    InvalidGrant,
    InvalidScope,
    SessionNotFound,
    TokenReused,
)
from app.auth.holders import Principal, allowed_scopes, spell_scope, why_over
from app.auth.models import Session, User
from app.auth.schemas import Introspection
from app.auth.throttle import Attempt, clear, fold
from app.auth.tokens import AccessClaims, RefreshClaims, SessionClaims
from app.columns import Text, new_id
from app.database import AnyRow
from app.pagination import Order, Page, PageQuery


class Client(NamedTuple):
    """Where a login comes from, as its owner will see it."""

    user_agent: str
    ip: str


# What tokens are made from.
SESSION = (Session.id, Session.user_id, Session.generation, Session.scope, Session.rotated_at, Session.expires_at)


def grant_scope(requested: Iterable[str], allowed: frozenset[str]) -> str:
    """What was asked for, or everything that may be had where nothing was.

    Raises:
        InvalidScope: more was asked for than may be had.
    """
    granted = frozenset(requested) or allowed
    if not granted or not granted <= allowed:
        raise InvalidScope
    return spell_scope(granted)


# Statements are made once: to make one takes longer than to run it.
ACCOUNT = select(User.id, User.password_hash, User.is_active, User.is_admin).where(
    func.lower(User.username) == bindparam("username", type_=Text), User.deleted_at.is_(None)
)


def find_account(connection: Connection, username: str) -> AnyRow | None:
    """Read what a login is checked against: id, password_hash, is_active, is_admin."""
    return connection.execute(ACCOUNT, {"username": fold(username)}).one_or_none()


UNCHANGED = select(User.id).where(
    User.id == bindparam("user_id"), User.password_hash == bindparam("old_hash"), User.is_active
)
UNCHANGED_FOR_UPDATE, UNCHANGED_FOR_SHARE = UNCHANGED.with_for_update(), UNCHANGED.with_for_update(read=True)
NEW_SESSION = insert(Session).returning(*SESSION)


def start_session(
    connection: Connection,
    account: AnyRow,
    new_hash: str | None,
    scope: str,
    client: Client,
    now: datetime,
    ttl: timedelta,
    attempt: Attempt,
) -> AnyRow | None:
    """Insert a session, and have its attempt count no more.

    None if the account was disabled, or its hash replaced, since the password was checked.
    """
    lock = UNCHANGED_FOR_UPDATE if new_hash else UNCHANGED_FOR_SHARE
    if connection.execute(lock, {"user_id": account.id, "old_hash": account.password_hash}).one_or_none() is None:
        return None
    if new_hash:
        connection.execute(update(User).where(User.id == account.id).values(password_hash=new_hash))
    clear(connection, attempt, now)
    session = {
        "id": new_id(now),
        "user_id": account.id,
        "scope": scope,
        "created_at": now,
        "rotated_at": now,
        "expires_at": now + ttl,
        **client._asdict(),
    }
    return connection.execute(NEW_SESSION, session).one()


class Refreshed(NamedTuple):
    session: AnyRow
    scope: str


MOVE = (
    update(Session)
    .where(
        Session.id == bindparam("session_id"),
        Session.generation == bindparam("from_generation"),
        Session.ended_at.is_(None),
        Session.expires_at > bindparam("now"),
        exists().where(User.id == Session.user_id, User.is_active),
    )
    .values(generation=Session.generation + 1, rotated_at=bindparam("now"))
    .returning(*SESSION, select(User.is_admin).where(User.id == Session.user_id).scalar_subquery().label("is_admin"))
)


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

    values = {"session_id": claims.sid, "from_generation": claims.gen, "now": now}
    moved = connection.execute(MOVE, values).one_or_none()
    if moved is not None:
        return granted(moved)
    query = select(*SESSION, Session.ended_at, Session.end_reason, User.is_admin).join(User)
    session = connection.execute(query.where(Session.id == claims.sid, User.is_active)).one_or_none()
    if session is None:
        return InvalidGrant()
    if reason := why_over(session, now):
        return InvalidGrant(reason)
    if claims.gen == session.generation - 1 and max(now - session.rotated_at, timedelta()) < grace:
        return granted(session)
    if claims.gen >= session.generation:  # the database is older than the token: restored from a backup
        return InvalidGrant()
    end_session(connection, session.id, "reuse", now)
    return TokenReused()


def end_session(connection: Connection, session_id: str, reason: str, now: datetime) -> bool:
    """End a session; whether it was live."""
    return _end(connection, [Session.id == session_id], reason, now)


def end_own_session(connection: Connection, user_id: str, session_id: str, now: datetime) -> None:
    """End a session of a user's.

    Raises:
        SessionNotFound: there is none, or it is over, or another's.
    """
    own = [Session.id == session_id, Session.user_id == user_id, Session.expires_at > now]
    if not _end(connection, own, "revoked", now):
        raise SessionNotFound


def end_sessions_of(connection: Connection, user_id: str, reason: str, now: datetime) -> None:
    """End all sessions of a user."""
    _end(connection, [Session.user_id == user_id], reason, now)


def end_other_sessions(connection: Connection, user: Principal, reason: str, now: datetime) -> None:
    """End all sessions of the user's but this one."""
    _end(connection, [Session.user_id == user.user_id, Session.id != user.session_id], reason, now)


BY_LOGIN = Order(Session.id, descending=True)
LIVE = (
    select(Session.id, Session.created_at, Session.rotated_at.label("last_used_at"), Session.expires_at)
    .add_columns(Session.user_agent, Session.ip)
    .where(Session.user_id == bindparam("user_id"), Session.ended_at.is_(None), Session.expires_at > bindparam("now"))
)
OWN = LIVE.add_columns((Session.id == bindparam("session_id")).label("current"))


def list_live(connection: Connection, user_id: str, query: PageQuery, now: datetime) -> Page:
    """Read a user's live sessions, the latest login first."""
    return BY_LOGIN.page(connection, LIVE, query, "sessions", {"user_id": user_id, "now": now})


def list_sessions(connection: Connection, user: Principal, query: PageQuery, now: datetime) -> Page:
    """Read one's own, with the one that asks marked."""
    values = {"user_id": user.user_id, "session_id": user.session_id, "now": now}
    return BY_LOGIN.page(connection, OWN, query, "sessions", values)


FIRST_ID = "00000000-0000-0000-0000-000000000000"
BATCH = select(Session.id).where(Session.id > bindparam("after_id")).order_by(Session.id).limit(bindparam("limit"))


def purge_sessions(connection: Connection, before: datetime, after_id: str, limit: int) -> tuple[str | None, int]:
    """Delete those, of so many sessions with the next ids, that ended or expired before then.

    The id to go on after, None at the end, and how many there were.
    """
    ids = connection.execute(BATCH, {"after_id": after_id, "limit": limit}).scalars().all()
    if not ids:
        return None, 0
    is_over = (Session.ended_at < before) | (Session.expires_at < before)
    purged = connection.execute(delete(Session).where(Session.id.between(ids[0], ids[-1]), is_over))
    return ids[-1], purged.rowcount


def has_sessions(connection: Connection) -> bool:
    """Whether anybody has ever logged in, as far as is known."""
    return connection.execute(select(Session.id).limit(1)).one_or_none() is not None


def introspect(connection: Connection, claims: SessionClaims, caller: Principal, now: datetime) -> Introspection:
    """Say what an unexpired token of ours is good for at this moment, to its owner or an administrator."""
    query = select(*SESSION, Session.ended_at, Session.end_reason, User.username, User.is_admin).join(User)
    is_of = (Session.id == claims.sid, User.id == claims.sub, User.is_active)
    session = connection.execute(query.where(*is_of)).one_or_none()
    is_callers = claims.sub == caller.user_id or "admin" in caller.scopes
    if session is None or not is_callers or why_over(session, now):
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
    return bool(connection.execute(end).rowcount)
