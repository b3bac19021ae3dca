"""The refresh grant (RFC 6749 §6): each refresh moves the session on to its next generation."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import Boolean, Connection, bindparam, select, update

from app.auth.claims import RefreshClaims, SessionClaims
from app.auth.errors import InvalidGrant, TokenReused
from app.auth.liveness import IS_LIVE_SESSION, Moment
from app.auth.models import LoginSession, User
from app.auth.schemas import SCOPES
from app.auth.scopes import ADMIN, allowed_scopes, grant_scope, session_scopes
from app.auth.sessions import IS_OF_OWNER, SELECT_SESSION, TOKEN_COLUMNS
from app.db.database import AnyRow, Database

REMEMBERED: Final = 4096  # generations

OWNER = select(User.is_admin).where(User.id == LoginSession.user_id)
ROTATE_SESSION = (
    update(LoginSession)
    .where(*IS_OF_OWNER, LoginSession.generation == bindparam("from_generation"), IS_LIVE_SESSION)
    .where(LoginSession.has_every_scope | ~bindparam("needs_every_scope", type_=Boolean))
    .where(OWNER.where(User.is_active, User.is_admin | ~bindparam("needs_admin", type_=Boolean)).exists())
    .values(generation=LoginSession.generation + 1, unused_generation=bindparam("unused"), rotated_at=bindparam("now"))
    .returning(*TOKEN_COLUMNS, OWNER.scalar_subquery().label("is_admin"))
)
MARK_USED = (
    update(LoginSession)
    .where(LoginSession.id == bindparam("session_id"), LoginSession.unused_generation == bindparam("used"))
    .where(LoginSession.ended_at.is_(None))
    .values(unused_generation=None)
)


def refresh_session(
    connection: Connection, claims: RefreshClaims, scopes: Sequence[str], moment: Moment, grace: timedelta
) -> tuple[AnyRow, str] | InvalidGrant:
    """Move the session on to its next generation. Return its row and the scope of the access token.

    A refusal is returned. The caller must end the session if it is TokenReused.

    The token before the current one gets the current generation again: within `grace`, for a second tab, and as long as
    nobody has used that generation, for a lost answer. Without a grace it gets nothing. Any other token was copied, and
    nobody can tell the owner from the thief, so the session must end (RFC 9700 §4.14.2).

    No statement needs a transaction with another. The one that moves the session also checks the scopes.

    Raises InvalidScope if the session lacks a requested scope, or its user may no longer have it. Nothing has moved.
    """

    def granted(session: AnyRow) -> tuple[AnyRow, str]:
        allowed = session_scopes(session) & allowed_scopes(is_admin=session.is_admin)
        return session, grant_scope(scopes, allowed)

    session_and_owner = {"session_id": claims.sid, "owner_id": claims.sub}
    named = claims.scopes & SCOPES.keys()
    beyond = frozenset(scopes) - named
    if beyond.isdisjoint(ADMIN):
        needs_admin = not ADMIN.isdisjoint(scopes) or named <= ADMIN
        needs = {"needs_every_scope": bool(beyond) or not named, "needs_admin": needs_admin}
        step = {"from_generation": claims.gen, "unused": claims.gen + 1 if grace else None, **moment._asdict()}
        rotated = connection.execute(ROTATE_SESSION, {**session_and_owner, **needs, **step}).one_or_none()
        if rotated is not None:
            return granted(rotated)
    session = connection.execute(SELECT_SESSION, session_and_owner).one_or_none()
    if session is None:
        return InvalidGrant()
    if reason := moment.why_over(session):
        return InvalidGrant(reason)
    if claims.gen == session.generation:
        granted(session)  # raises InvalidScope if that is why the session has not moved
    if claims.gen == session.generation - 1 and grace:
        is_recent = max(moment.now - session.rotated_at, timedelta()) < grace
        if is_recent or session.unused_generation == session.generation:
            return granted(session)
    if claims.gen >= session.generation:  # somebody has restored an older backup of the database
        return InvalidGrant()
    return TokenReused()


class Uses:
    """Notes in the database that a generation is used, before its first token is accepted.

    After that no answer was lost, and the token before gets nothing again. A process notes each generation once. It may
    forget and note one again, which changes nothing.
    """

    def __init__(self, grace: int) -> None:
        self._is_strict = grace == 0  # no answer is ever repeated
        self.noted: set[tuple[str, int]] = set()

    async def note(self, db: Database, claims: SessionClaims) -> None:
        generation = (claims.sid, claims.generation)
        if self._is_strict or claims.generation == 1 or generation in self.noted:  # the first has none before it
            return
        used = {"session_id": claims.sid, "used": claims.generation}
        await db.autocommit(lambda connection: connection.execute(MARK_USED, used))
        if len(self.noted) >= REMEMBERED:
            self.noted.clear()
        self.noted.add(generation)
