"""Logins: the account that a password is checked against, and the session that a right one begins."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, insert, select, update

from app.auth.models import LoginSession, User
from app.auth.networks import network_of
from app.auth.service import LIVE_OF_USER, SESSION
from app.auth.throttle import Attempt, clear
from app.auth.usernames import HAS_LOGIN_NAME, normalize_username
from app.db.database import AnyRow
from app.db.types import new_id

MAX_SESSIONS: Final = 100
ENDED_AT_ONCE: Final = 1_000  # of an account that had more before there was a limit


class LoginOrigin(NamedTuple):
    """Where a login comes from, as its owner will see it."""

    user_agent: str
    ip: str

    @property
    def network(self) -> str:
        return network_of(self.ip)


# Statements are made once: to make one takes longer than to run it.
ACCOUNT = select(User.id, User.password_hash, User.is_active, User.is_admin, User.email).where(
    HAS_LOGIN_NAME, User.deleted_at.is_(None)
)


def find_account(connection: Connection, username: str) -> AnyRow | None:
    """Read what a login is checked against: id, password_hash, is_active, is_admin, email."""
    return connection.execute(ACCOUNT, {"username": normalize_username(username)}).one_or_none()


# The lock lets an account's logins in one by one: together they would see too few sessions.
UNCHANGED = (
    select(User.id)
    .where(User.id == bindparam("user_id"), User.password_hash == bindparam("old_hash"))
    .where(User.is_active, User.is_admin == bindparam("was_admin"))
    .with_for_update(key_share=True)
)
NEW_SESSION = insert(LoginSession).returning(*SESSION)


class Started(NamedTuple):
    session: AnyRow
    ended: Sequence[str]
    """The sessions that made room."""


def start_session(
    connection: Connection,
    account: AnyRow,
    new_hash: str | None,
    scope: str,
    client: LoginOrigin,
    now: datetime,
    ttl: timedelta,
    attempt: Attempt,
) -> Started | None:
    """Insert a session, and have its attempt count no more. It takes the place of the one that was used longest ago.

    None if the account was disabled, promoted or demoted, or its hash replaced, since it was read.
    """
    was = {"user_id": account.id, "old_hash": account.password_hash, "was_admin": account.is_admin}
    if connection.execute(UNCHANGED, was).one_or_none() is None:
        return None
    if new_hash:
        connection.execute(update(User).where(User.id == account.id).values(password_hash=new_hash))
    clear(connection, attempt, now)
    ended = _make_room(connection, account.id, now, ttl)
    session = {
        "id": new_id(now),
        "user_id": account.id,
        "scope": scope,
        "created_at": now,
        "rotated_at": now,
        "expires_at": now + ttl,
        "network": client.network,
        **client._asdict(),
    }
    return Started(connection.execute(NEW_SESSION, session).one(), ended)


# The oldest logins that can be live. It passes over no expired ones, and reads some only where there are very many.
SESSIONS = (
    select(LoginSession.id, LoginSession.rotated_at)
    .where(*LIVE_OF_USER, LoginSession.id > bindparam("after_id"))
    .order_by(LoginSession.id)
    .limit(MAX_SESSIONS - 1 + ENDED_AT_ONCE)
)
END_ONE = (
    update(LoginSession)
    .where(LoginSession.id == bindparam("session_id"), LoginSession.ended_at.is_(None))
    .values(ended_at=bindparam("now"), end_reason="too_many")
)


def _make_room(connection: Connection, user_id: str, now: datetime, ttl: timedelta) -> Sequence[str]:
    """End sessions until there is room for one more, those first that were used longest ago; their ids."""
    values = {"user_id": user_id, "now": now, "after_id": new_id(now - ttl)}
    sessions = connection.execute(SESSIONS, values).all()
    if len(sessions) < MAX_SESSIONS:
        return []
    by_use = sorted(sessions, key=attrgetter("rotated_at", "id"))
    ended = [session.id for session in by_use[: 1 - MAX_SESSIONS]]
    connection.execute(END_ONE, [{"session_id": session_id, "now": now} for session_id in ended])
    return ended
