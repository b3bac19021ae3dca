"""A login: the account that a password is checked against, and the session that a right one starts."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, insert, select, update

from app.auth.account_events import record
from app.auth.callers import CurrentUser
from app.auth.liveness import IS_LOGIN, Moment
from app.auth.models import HAS_LOGIN_NAME, LoginSession, User, normalize_username
from app.auth.networks import LoginOrigin
from app.auth.one_time_codes import OneTimeCodes
from app.auth.passwords import Verdict
from app.auth.scopes import allowed_scopes, grant_scope
from app.auth.second_factor import FACTOR_COLUMNS, use_code
from app.auth.sessions import IS_LIVE_OF_USER, SELECT_SESSION, TOKEN_COLUMNS, end_where
from app.auth.throttle import Attempt, clear
from app.db.database import AnyRow
from app.db.types import new_id

MAX_SESSIONS: Final = 100
ENDED_AT_ONCE: Final = 1_000  # an account from before this limit may have more sessions

ACCOUNT_COLUMNS = User.id, User.password_hash, User.is_active, User.is_admin, User.email, User.email_verified
SELECT_ACCOUNT = select(*ACCOUNT_COLUMNS).where(HAS_LOGIN_NAME, User.deleted_at.is_(None))

# Logins of one account take turns at this lock. Together they would count too few sessions.
LOCK_UNCHANGED_ACCOUNT = (
    select(*FACTOR_COLUMNS)
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


class Started(NamedTuple):
    """A session, and what else its login has done."""

    session: AnyRow
    ended: Sequence[str]
    """The ids of the sessions that ended to make room."""
    used_recovery_code: bool


def find_account(connection: Connection, username: str) -> AnyRow | None:
    """Read the account of a login name: id, password_hash, is_active, is_admin, email, email_verified."""
    return connection.execute(SELECT_ACCOUNT, {"username": normalize_username(username)}).one_or_none()


def start_session(
    connection: Connection,
    account: AnyRow,
    new_hash: str | None,
    codes: OneTimeCodes,
    code: str,
    scopes: Sequence[str],
    origin: LoginOrigin,
    moment: Moment,
    attempt: Attempt,
) -> Started | None:
    """Use the one-time code up, if the account needs one, insert a session, and clear the counters of its attempt.

    None: since `account` was read, the user was disabled, promoted or demoted, or the password hash was replaced.

    Raises MFARequired, InvalidOneTimeCode, InvalidScope.
    """
    was = {"user_id": account.id, "old_hash": account.password_hash, "was_admin": account.is_admin}
    factor = connection.execute(LOCK_UNCHANGED_ACCOUNT, was).one_or_none()
    if factor is None:
        return None
    used_recovery_code = use_code(connection, codes, factor, code, moment.now)
    scope = grant_scope(scopes, allowed_scopes(is_admin=account.is_admin))
    if new_hash:
        connection.execute(update(User).where(User.id == account.id).values(password_hash=new_hash))
    clear(connection, attempt, moment.now)
    ended = _make_room(connection, account.id, moment, origin)
    session = {"id": new_id(moment.now), "user_id": account.id, "scope": scope, "has_every_scope": not scopes}
    session |= {"created_at": moment.now, "rotated_at": moment.now, "expires_at": moment.now + moment.ttl}
    session |= {"network": origin.network, **origin._asdict()}
    record(connection, account.id, "login_succeeded", moment.now, origin, session["id"])
    if used_recovery_code:
        record(connection, account.id, "recovery_code_used", moment.now, origin, session["id"])
    return Started(connection.execute(INSERT_SESSION, session).one(), ended, used_recovery_code)


def renew_session(
    connection: Connection, user: CurrentUser, reason: str, moment: Moment, origin: LoginOrigin
) -> AnyRow:
    """End every login of the caller, and put another session in the place of this one. Personal tokens stay.

    The other one is as old, and ends as soon: nobody has logged in.
    """
    this = {"session_id": user.session_id, "owner_id": user.user_id}
    session = connection.execute(SELECT_SESSION, this).one()
    end_where(connection, [LoginSession.user_id == user.user_id, IS_LOGIN], reason, moment, origin)
    columns = "user_id", "scope", "has_every_scope", "created_at", "expires_at"
    renewed = {name: session._mapping[name] for name in columns}  # noqa: SLF001 - SQLAlchemy's public name
    renewed |= {"id": new_id(session.created_at), "rotated_at": moment.now, "network": origin.network}
    return connection.execute(INSERT_SESSION, renewed | origin._asdict()).one()


def _make_room(connection: Connection, user_id: str, moment: Moment, origin: LoginOrigin) -> Sequence[str]:
    """End the least recently used sessions until there is room for one more. Return their ids."""
    values = {"user_id": user_id, "after_id": new_id(moment.created_after), **moment._asdict()}
    sessions = connection.execute(SELECT_OLDEST_SESSIONS, values).all()
    if len(sessions) < MAX_SESSIONS:
        return []
    by_use = sorted(sessions, key=attrgetter("rotated_at", "id"))
    ended = [session.id for session in by_use[: 1 - MAX_SESSIONS]]
    end_where(connection, [LoginSession.id.in_(ended)], "too_many", moment, origin)
    return ended


def why_failed(account: AnyRow | None, verdict: Verdict) -> str:
    """Say why a login failed, for the log and the owner alone."""
    if account is None:
        return "unknown user"
    if not account.is_active:
        return "disabled user"
    return "corrupt hash" if verdict.is_corrupt else "wrong password"
