"""Accounts in the database: create, list, read, change, recover and delete them."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.dml import ReturningUpdate

from app.auth.account_events import record
from app.auth.callers import LOCK_ADMINISTRATORS, CurrentUser, require_fresh_login
from app.auth.counters import forget
from app.auth.errors import InvalidToken, WrongPassword
from app.auth.liveness import Moment
from app.auth.logins import renew_session
from app.auth.models import HAS_LOGIN_NAME, User, normalize_username
from app.auth.networks import LoginOrigin
from app.auth.second_factor import remove
from app.auth.sessions import end_sessions_of, end_sessions_with
from app.db.constraints import violated_constraint
from app.db.database import AnyRow, AnySelect
from app.db.types import Text, new_id
from app.observe.events import Event
from app.pagination.order import SortOrder
from app.pagination.page import Page, PageQuery
from app.users.deletion import end_account
from app.users.errors import LastAdministrator, UsernameTaken, UserNotFound
from app.users.schemas import NewUser, UserChange, UserQuery, UserRead, UserUpdate

PROFILE_COLUMNS = [getattr(User, name) for name in UserRead.model_fields]
LOWER_NAME = func.lower(User.username, type_=User.username.type)
BY_ID = SortOrder(User.id)
BY_NAME = SortOrder(LOWER_NAME, id_of=lambda row: normalize_username(row.username))

INSERT_USER = insert(User).returning(*PROFILE_COLUMNS)
SELECT_USERS = select(*PROFILE_COLUMNS).where(User.deleted_at.is_(None))
SELECT_USERS_BY_PREFIX = SELECT_USERS.where(
    LOWER_NAME.between(bindparam("prefix", type_=Text), bindparam("prefix_end", type_=Text))
)
SELECT_USER_BY_NAME = SELECT_USERS.where(HAS_LOGIN_NAME)
SELECT_USER = SELECT_USERS.where(User.id == bindparam("user_id"))
CHANGES: Final = {
    ("is_active", True): "enabled",
    ("is_active", False): "disabled",
    ("is_admin", True): "promoted",
    ("is_admin", False): "demoted",
}
LOCK_USER = SELECT_USER.with_for_update(key_share=True)
UPDATE_USER = update(User).where(User.id == bindparam("user_id"), User.deleted_at.is_(None)).returning(*PROFILE_COLUMNS)


def create_user(
    connection: Connection, fields: NewUser, password_hash: str, now: datetime, *, is_admin: bool = False
) -> RowMapping:
    """Insert a user. Raises UsernameTaken: somebody has the name, in whichever letter case."""
    user = {"id": new_id(now), "username": fields.username, "email": fields.email, "password_hash": password_hash}
    try:
        values = {**user, "is_admin": is_admin, "created_at": now, "updated_at": now}
        return connection.execute(INSERT_USER, values).mappings().one()
    except IntegrityError as error:
        if violated_constraint(error) == "uq_users_username":
            raise UsernameTaken from error
        raise


def require_free_name(connection: Connection, username: str) -> None:
    """Raises UsernameTaken."""
    if connection.execute(SELECT_USER_BY_NAME, {"username": normalize_username(username)}).first():
        raise UsernameTaken


def get_profile(connection: Connection, user: CurrentUser) -> RowMapping:
    """Read the caller's profile. Raises InvalidToken: the account was deleted a moment ago."""
    try:
        return get_user(connection, user.user_id)
    except UserNotFound as error:
        raise InvalidToken from error


def update_profile(
    connection: Connection, user: CurrentUser, changes: UserUpdate, now: datetime, fresh_login: int, origin: LoginOrigin
) -> tuple[RowMapping, RowMapping]:
    """Change the caller's profile. Return it, and what it was before. Raises StaleLogin.

    Another e-mail address is not verified.
    """
    profile = get_profile(connection, user)
    changed: dict[str, Any] = {name: value for name, value in changes.items() if value != profile[name]}
    if not changed:
        return profile, profile
    if "email" in changed:  # pragma: no branch - there is no other field yet
        require_fresh_login(user, fresh_login, now)
        changed["email_verified"] = False
        record(connection, user.user_id, "email_changed", now, origin, user.session_id)
    return _update(connection, user.user_id, now, **changed), profile


def change_password(
    connection: Connection, user: CurrentUser, old_hash: str, new_hash: str, moment: Moment, origin: LoginOrigin
) -> AnyRow:
    """Set the caller's password, and end every login of theirs. Return the session that takes the place of this one.

    Raises WrongPassword: the password has changed since `old_hash` was read.
    """
    is_unchanged = (User.id == user.user_id, User.password_hash == old_hash)
    change = update(User).where(*is_unchanged).values(password_hash=new_hash, updated_at=moment.now)
    if not connection.execute(change).rowcount:
        raise WrongPassword
    session = renew_session(connection, user, "password_changed", moment, origin)
    record(connection, user.user_id, "password_changed", moment.now, origin, session.id)
    return session


def list_users(connection: Connection, query: UserQuery) -> Page:
    """Read a page of users, sorted by username."""
    prefix = normalize_username(query.username)
    values = {"prefix": prefix, "prefix_end": prefix + "\x7f"}  # sorts after each character of a username
    return BY_NAME.page(connection, SELECT_USERS_BY_PREFIX, query, "users", values)


def list_profile(connection: Connection, user_id: str, query: PageQuery, _: Moment) -> Page:
    """Read a user as the only one of a list, for the export."""
    return BY_ID.page(connection, SELECT_USER, query, "profile", {"user_id": user_id})


def get_user(connection: Connection, user_id: str) -> RowMapping:
    """Raises UserNotFound."""
    return _one(connection, SELECT_USER, user_id=user_id)


def get_user_by_name(connection: Connection, username: str) -> RowMapping:
    """Read a user by a name that logs them in. Raises UserNotFound."""
    return _one(connection, SELECT_USER_BY_NAME, username=normalize_username(username))


def change_user(connection: Connection, user_id: str, changes: UserChange, moment: Moment, counters: str) -> RowMapping:
    """Change whether a user is active and an administrator. Raises UserNotFound, LastAdministrator.

    Disabling ends every session. Demoting ends the sessions that have the scope `admin`. Enabling deletes the counters
    of failed logins.
    """
    if not changes:
        return get_user(connection, user_id)
    if False in changes.values():
        _keep_an_administrator(connection, user_id)
    before = _one(connection, LOCK_USER, user_id=user_id)
    user = _update(connection, user_id, moment.now, **changes)
    for (name, value), word in CHANGES.items():
        if user[name] == value != before[name]:
            record(connection, user_id, "user_changed", moment.now, reason=word)
    if not user["is_active"]:
        end_sessions_of(connection, user_id, "disabled", moment)
    if not user["is_admin"]:
        end_sessions_with(connection, user_id, "admin", "demoted", moment)
    if changes.get("is_active"):
        forget(connection, counters)
    return user


def unlock(connection: Connection, user_id: str, counters: str) -> None:
    """Delete the counters of a user's failed logins. Raises UserNotFound."""
    get_user(connection, user_id)
    forget(connection, counters)


def remove_totp(connection: Connection, user_id: str, now: datetime) -> bool:
    """Remove the second factor of a user. Return whether it was active. Raises UserNotFound."""
    _one(connection, LOCK_USER, user_id=user_id)
    return remove(connection, user_id, now)


def end_sessions(connection: Connection, user_id: str, moment: Moment) -> None:
    """End every session of a user. Raises UserNotFound."""
    _one(connection, LOCK_USER, user_id=user_id)
    end_sessions_of(connection, user_id, "revoked", moment)


def delete_profile(connection: Connection, user: CurrentUser, now: datetime) -> bool:
    """Delete the caller's account. Return whether rows may be left. Raises LastAdministrator."""
    if get_profile(connection, user)["is_admin"]:  # a lock on administrators could wait for one who waits for this user
        _keep_an_administrator(connection, user.user_id)
    return end_account(connection, user.user_id, now)


def delete_user(connection: Connection, user_id: str, now: datetime) -> bool:
    """Delete a user. Return whether rows may be left. Raises UserNotFound, LastAdministrator."""
    _keep_an_administrator(connection, user_id)
    return end_account(connection, user_id, now)


def set_password(
    connection: Connection,
    user_id: str,
    new_hash: str,
    counters: str,
    moment: Moment,
    event: Event = "password_changed",
    origin: LoginOrigin | None = None,
) -> None:
    """Set a user's password, end every session, and delete the counters of failed logins. Raises UserNotFound."""
    _update(connection, user_id, moment.now, password_hash=new_hash, reset_id=None)
    record(connection, user_id, event, moment.now, origin)
    end_sessions_of(connection, user_id, "password_changed", moment, origin)
    forget(connection, counters)


def _keep_an_administrator(connection: Connection, user_id: str) -> None:
    """Lock the other administrators until the transaction ends. Raises LastAdministrator: there is no other one."""
    if connection.execute(LOCK_ADMINISTRATORS).scalars().all() == [user_id]:
        raise LastAdministrator


def _update(connection: Connection, user_id: str, now: datetime, **values: Any) -> RowMapping:
    return _one(connection, UPDATE_USER.values(updated_at=now, **values), user_id=user_id)


def _one(
    connection: Connection, statement: AnySelect | ReturningUpdate[*tuple[Any, ...]], **parameters: str
) -> RowMapping:
    """Return the row of a user. Raises UserNotFound."""
    row = connection.execute(statement, parameters).mappings().one_or_none()
    if row is None:
        raise UserNotFound
    return row
