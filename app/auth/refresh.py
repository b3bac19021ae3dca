"""The generations of a session: a refresh moves it on to the next, and a token says which one it is of."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple

from sqlalchemy import Boolean, Connection, bindparam, exists, select, update

from app.auth.callers import CurrentUser, why_over
from app.auth.claims import AccessClaims, RefreshClaims, SessionClaims
from app.auth.errors import InvalidGrant, TokenReused
from app.auth.models import LoginSession, User
from app.auth.schemas import SCOPES, Introspection
from app.auth.scopes import ADMIN, allowed_scopes, format_scope, grant_scope, session_scopes
from app.auth.service import SESSION, end_session
from app.db.database import AnyRow, Database

REMEMBERED: Final = 4096  # generations


class Refreshed(NamedTuple):
    session: AnyRow
    scope: str


NEEDS_EVERY_SCOPE = bindparam("needs_every_scope", type_=Boolean)
NEEDS_ADMIN = bindparam("needs_admin", type_=Boolean)
ROTATE_SESSION = (
    update(LoginSession)
    .where(
        LoginSession.id == bindparam("session_id"),
        LoginSession.user_id == bindparam("owner_id"),
        LoginSession.generation == bindparam("from_generation"),
        LoginSession.ended_at.is_(None),
        LoginSession.expires_at > bindparam("now"),
        LoginSession.has_every_scope | ~NEEDS_EVERY_SCOPE,
        exists().where(User.id == LoginSession.user_id, User.is_active, User.is_admin | ~NEEDS_ADMIN),
    )
    .values(generation=LoginSession.generation + 1, unused_generation=bindparam("unused"), rotated_at=bindparam("now"))
    .returning(
        *SESSION, select(User.is_admin).where(User.id == LoginSession.user_id).scalar_subquery().label("is_admin")
    )
)
SELECT_SESSION = (
    select(*SESSION, LoginSession.unused_generation, LoginSession.ended_at, LoginSession.end_reason)
    .add_columns(User.username, User.is_admin)
    .join(User)
    .where(LoginSession.id == bindparam("session_id"), LoginSession.user_id == bindparam("owner_id"), User.is_active)
)
MARK_USED = (
    update(LoginSession)
    .where(
        LoginSession.id == bindparam("session_id"),
        LoginSession.unused_generation == bindparam("used"),
        LoginSession.ended_at.is_(None),
    )
    .values(unused_generation=None)
)


def refresh_session(
    connection: Connection, claims: RefreshClaims, scopes: Sequence[str], now: datetime, grace: timedelta
) -> Refreshed | InvalidGrant:
    """Move the session on to its next generation, once. A refusal is returned, so that what it records is kept.

    A repeat of the move gets the generation that the move made: within `grace`, for a second tab, and as long as nobody
    has used that generation, for a lost answer. Without a grace nothing is repeated. Any other token was copied, and
    nobody can tell which holder is the owner: it ends the session (RFC 9700 §4.14.2).

    Each statement may be a transaction of its own: the one that moves the session also checks the scopes.

    Raises:
        InvalidScope: the session lacks a requested scope, or its user may no longer have it. Nothing has moved.
    """

    def granted(session: AnyRow) -> Refreshed:
        allowed = session_scopes(session) & allowed_scopes(is_admin=session.is_admin)
        return Refreshed(session, grant_scope(scopes, allowed))

    whose = {"session_id": claims.sid, "owner_id": claims.sub}
    named = claims.scopes & SCOPES.keys()
    beyond = frozenset(scopes) - named
    if beyond.isdisjoint(ADMIN):
        rotation = {
            **whose,
            "from_generation": claims.gen,
            "unused": claims.gen + 1 if grace else None,
            "now": now,
            "needs_every_scope": bool(beyond) or not named,
            "needs_admin": not ADMIN.isdisjoint(scopes) or named <= ADMIN,
        }
        rotated = connection.execute(ROTATE_SESSION, rotation).one_or_none()
        if rotated is not None:
            return granted(rotated)
    session = connection.execute(SELECT_SESSION, whose).one_or_none()
    if session is None:
        return InvalidGrant()
    if reason := why_over(session, now):
        return InvalidGrant(reason)
    if claims.gen == session.generation:
        granted(session)  # raises the reason why the session has not moved
    if claims.gen == session.generation - 1 and grace:
        is_recent = max(now - session.rotated_at, timedelta()) < grace
        if is_recent or session.unused_generation == session.generation:
            return granted(session)
    if claims.gen >= session.generation:  # the database is older than the token: restored from a backup
        return InvalidGrant()
    end_session(connection, claims, "reuse", now)
    return TokenReused()


class Uses:
    """Notes in the database that a generation is used, before the first token of it that comes does anything.

    After that, a lost answer is no reason any more to repeat it. Each process notes each generation once, but for those
    that it has forgotten: to note one again changes nothing.
    """

    def __init__(self, grace: int) -> None:
        self._is_strict = grace == 0  # nothing is ever repeated
        self.noted: set[tuple[str, int]] = set()

    async def note(self, db: Database, claims: SessionClaims) -> None:
        generation = (claims.sid, claims.generation)
        if self._is_strict or claims.generation == 1 or generation in self.noted:  # the first repeats nothing
            return
        await db.autocommit(mark_used, claims)
        if len(self.noted) >= REMEMBERED:
            self.noted.clear()
        self.noted.add(generation)


def mark_used(connection: Connection, claims: SessionClaims) -> None:
    connection.execute(MARK_USED, {"session_id": claims.sid, "used": claims.generation})


def introspect(connection: Connection, caller: CurrentUser, claims: SessionClaims, now: datetime) -> Introspection:
    """Say what an unexpired token of ours is good for at this moment, to its owner or an administrator."""
    session = connection.execute(SELECT_SESSION, {"session_id": claims.sid, "owner_id": claims.sub}).one_or_none()
    is_callers = claims.sub == caller.user_id or "admin" in caller.scopes
    if session is None or not is_callers or why_over(session, now):
        return Introspection(active=False)
    if isinstance(claims, RefreshClaims) and claims.gen != session.generation:
        return Introspection(active=False)
    token_type: Literal["bearer"] | None = "bearer" if isinstance(claims, AccessClaims) else None
    scopes = session_scopes(session) if isinstance(claims, RefreshClaims) else claims.scopes
    scope = format_scope(scopes & allowed_scopes(is_admin=session.is_admin))
    said = claims.model_dump(include={"sub", "iss", "aud", "jti", "iat", "exp"})
    return Introspection(active=True, scope=scope, username=session.username, token_type=token_type, **said)
