"""A login: the account that a password is checked against, and the session that a right one starts."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Final

from sqlalchemy import Connection, bindparam, insert, select, update

from app.auth.models import HAS_LOGIN_NAME, LoginSession, User, normalize_username
from app.auth.networks import LoginOrigin
from app.auth.sessions import IS_LIVE_OF_USER, TOKEN_COLUMNS, end_where
from app.auth.throttle import Attempt, clear
from app.db.database import AnyRow
from app.db.types import new_id

MAX_SESSIONS: Final = 100
ENDED_AT_ONCE: Final = 1_000  # an account from before this limit may have more sessions

SELECT_ACCOUNT = select(User.id, User.password_hash, User.is_active, User.is_admin, User.email).where(
    HAS_LOGIN_NAME, User.deleted_at.is_(None)
)

# Logins of one account take turns at this lock. Together they would count too few sessions.
LOCK_UNCHANGED_ACCOUNT = (
    select(User.id)
    .where(User.id == bindparam("user_id"), User.password_hash == bindparam("old_hash"))
    .where(User.is_active, User.is_admin == bindparam("was_admin"))
    .with_for_update(key_share=True)
)
INSERT_SESSION = insert(LoginSession).returning(*TOKEN_COLUMNS)

# The oldest logins first, from the oldest that can be live. It reads few expired sessions.
SELECT_OLDEST_SESSIONS = (
    select(LoginSession.id, LoginSession.rotated_at)
    .where(*IS_LIVE_OF_USER, LoginSession.id > bindparam("after_id"))
    .order_by(LoginSession.id)
    .limit(MAX_SESSIONS - 1 + ENDED_AT_ONCE)
)


def find_account(connection: Connection, username: str) -> AnyRow | None:
    """Read the account of a login name: id, password_hash, is_active, is_admin, email."""
    return connection.execute(SELECT_ACCOUNT, {"username": normalize_username(username)}).one_or_none()


def start_session(
    connection: Connection,
    account: AnyRow,
    new_hash: str | None,
    scope: str,
    origin: LoginOrigin,
    now: datetime,
    ttl: timedelta,
    attempt: Attempt,
    *,
    has_every_scope: bool,
) -> tuple[AnyRow, Sequence[str]] | None:
    """Insert a session, and clear the counters of its attempt. Return it, and the ids of those that ended to make room.

    None: since `account` was read, the user was disabled, promoted or demoted, or the password hash was replaced.
    """
    was = {"user_id": account.id, "old_hash": account.password_hash, "was_admin": account.is_admin}
    if connection.execute(LOCK_UNCHANGED_ACCOUNT, was).one_or_none() is None:
        return None
    if new_hash:
        connection.execute(update(User).where(User.id == account.id).values(password_hash=new_hash))
    clear(connection, attempt, now)
    ended = _make_room(connection, account.id, now, ttl)
    session = {"id": new_id(now), "user_id": account.id, "scope": scope, "has_every_scope": has_every_scope}
    session |= {"created_at": now, "rotated_at": now, "expires_at": now + ttl}
    session |= {"network": origin.network, **origin._asdict()}
    return connection.execute(INSERT_SESSION, session).one(), ended


def _make_room(connection: Connection, user_id: str, now: datetime, ttl: timedelta) -> Sequence[str]:
    """End the least recently used sessions until there is room for one more. Return their ids."""
    values = {"user_id": user_id, "now": now, "after_id": new_id(now - ttl)}
    sessions = connection.execute(SELECT_OLDEST_SESSIONS, values).all()
    if len(sessions) < MAX_SESSIONS:
        return []
    by_use = sorted(sessions, key=attrgetter("rotated_at", "id"))
    ended = [session.id for session in by_use[: 1 - MAX_SESSIONS]]
    end_where(connection, [LoginSession.id.in_(ended)], "too_many", now)
    return ended
