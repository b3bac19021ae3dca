"""Accounts in the database: create, list, read, change, recover and delete them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.dml import ReturningUpdate

from app.auth.callers import LOCK_ADMINISTRATORS, CurrentUser, require_fresh_login
from app.auth.counters import Keys, forget
from app.auth.errors import InvalidToken, WrongPassword
from app.auth.models import HAS_LOGIN_NAME, User, normalize_username
from app.auth.sessions import end_other_sessions, end_sessions_of, end_sessions_with
from app.db.constraints import violated_constraint
from app.db.database import AnySelect
from app.db.types import Text, new_id
from app.errors import AppError
from app.pagination.order import SortOrder
from app.pagination.page import Page
from app.users.deletion import end_account
from app.users.errors import LastAdministrator, UsernameTaken, UserNotFound
from app.users.schemas import UserChange, UserQuery, UserRead, UserUpdate

Returning = ReturningUpdate[*tuple[Any, ...]]

PROFILE_COLUMNS = [getattr(User, name) for name in UserRead.model_fields]
LAST_CHARACTER = "\x7f"  # sorts after each character of a username


LOWER_NAME = func.lower(User.username, type_=User.username.type)
BY_NAME = SortOrder(LOWER_NAME, id_of=lambda row: normalize_username(row.username))
SELECT_USERS = select(*PROFILE_COLUMNS).where(User.deleted_at.is_(None))
SELECT_USERS_BY_PREFIX = SELECT_USERS.where(
    LOWER_NAME.between(bindparam("prefix", type_=Text), bindparam("prefix_end", type_=Text))
)
SELECT_USER_BY_NAME = SELECT_USERS.where(HAS_LOGIN_NAME)


def create_user(
    connection: Connection,
    username: str,
    password_hash: str,
    now: datetime,
    *,
    email: str | None = None,
    is_admin: bool = False,
) -> RowMapping:
    """Insert a user.

    Raises:
        UsernameTaken: somebody has the name, in whichever letter case.
    """
    user = {"id": new_id(now), "username": username, "email": email, "password_hash": password_hash}
    rest = {"is_admin": is_admin, "created_at": now, "updated_at": now}
    statement = insert(User).values(user | rest).returning(*PROFILE_COLUMNS)
    try:
        return connection.execute(statement).mappings().one()
    except IntegrityError as error:
        if violated_constraint(error) == "uq_users_username":
            raise UsernameTaken from error
        raise


def require_free_name(connection: Connection, username: str) -> None:
    """Raises UsernameTaken."""
    if connection.execute(SELECT_USER_BY_NAME, {"username": normalize_username(username)}).first():
        raise UsernameTaken


def get_profile(connection: Connection, user: CurrentUser) -> RowMapping:
    return _one(connection, SELECT_USERS.where(User.id == user.user_id))


def update_profile(
    connection: Connection, user: CurrentUser, changes: UserUpdate, now: datetime, fresh_login: int
) -> tuple[RowMapping, bool]:
    """Change the caller's profile. Return it, and whether its e-mail address has changed.

    Raises:
        StaleLogin: the e-mail address would change, and the login is at least `fresh_login` seconds old.
    """
    profile = get_profile(connection, user)
    changed = {name: value for name, value in changes.items() if value != profile[name]}
    if not changed:
        return profile, False
    if "email" in changed:  # pragma: no branch - there is no other field yet
        require_fresh_login(user, fresh_login, now)
    change = update(User).where(*_is(user.user_id)).values(updated_at=now, **changed)
    return _one(connection, change.returning(*PROFILE_COLUMNS)), "email" in changed


def change_password(connection: Connection, user: CurrentUser, old_hash: str, new_hash: str, now: datetime) -> None:
    """Set the caller's password, and end every other session of theirs.

    Raises:
        WrongPassword: the password has changed since `old_hash` was read.
    """
    is_unchanged = (User.id == user.user_id, User.password_hash == old_hash)
    change = update(User).where(*is_unchanged).values(password_hash=new_hash, updated_at=now).returning(User.id)
    if connection.execute(change).one_or_none() is None:
        raise WrongPassword
    end_other_sessions(connection, user, "password_changed", now)


def list_users(connection: Connection, query: UserQuery) -> Page:
    """Read a page of users, sorted by username."""
    prefix = normalize_username(query.username)
    values = {"prefix": prefix, "prefix_end": prefix + LAST_CHARACTER}
    return BY_NAME.page(connection, SELECT_USERS_BY_PREFIX, query, "users", values)


def get_user(connection: Connection, user_id: str) -> RowMapping:
    """Raises UserNotFound."""
    return _one(connection, SELECT_USERS.where(User.id == user_id), UserNotFound)


def get_user_by_name(connection: Connection, username: str) -> RowMapping:
    """Read a user by a name that logs them in. Raises UserNotFound."""
    return _one(connection, SELECT_USER_BY_NAME, UserNotFound, {"username": normalize_username(username)})


def change_user(connection: Connection, user_id: str, changes: UserChange, now: datetime, counters: Keys) -> RowMapping:
    """Change whether a user is active and an administrator.

    Disabling ends every session. Demoting ends the sessions that have the scope `admin`. Enabling deletes the counters
    of failed logins.

    Raises:
        UserNotFound, LastAdministrator
    """
    if not changes:
        return get_user(connection, user_id)
    if False in changes.values():
        _keep_an_administrator(connection, user_id)
    change = update(User).where(*_is(user_id)).values(updated_at=now, **changes)
    user = _one(connection, change.returning(*PROFILE_COLUMNS), UserNotFound)
    if not user["is_active"]:
        end_sessions_of(connection, user_id, "disabled", now)
    if not user["is_admin"]:
        end_sessions_with(connection, user_id, "admin", "demoted", now)
    if changes.get("is_active"):
        forget(connection, counters)
    return user


def unlock(connection: Connection, user_id: str, counters: Keys) -> None:
    """Delete the counters of a user's failed logins. Raises UserNotFound."""
    get_user(connection, user_id)
    forget(connection, counters)


def end_sessions(connection: Connection, user_id: str, now: datetime) -> None:
    """End every session of a user. Raises UserNotFound."""
    _one(connection, SELECT_USERS.where(User.id == user_id).with_for_update(key_share=True), UserNotFound)
    end_sessions_of(connection, user_id, "revoked", now)


def delete_profile(connection: Connection, user: CurrentUser, now: datetime) -> bool:
    """Delete the caller's account. Return whether rows are left for `delete_ended`.

    Raises:
        InvalidToken: another request has deleted it.
        LastAdministrator
    """
    if get_profile(connection, user)["is_admin"]:  # a lock on administrators could wait for one who waits for this user
        _keep_an_administrator(connection, user.user_id)
    return end_account(connection, user.user_id, now, InvalidToken)


def delete_user(connection: Connection, user_id: str, now: datetime) -> bool:
    """Delete a user, with tasks and sessions. Return whether rows are left for `delete_ended`.

    Raises:
        UserNotFound, LastAdministrator
    """
    _keep_an_administrator(connection, user_id)
    return end_account(connection, user_id, now, UserNotFound)


def set_password(
    connection: Connection, user_id: str, new_hash: str, counters: Keys, now: datetime, *conditions: ColumnElement[bool]
) -> None:
    """Set a user's password, end every session, and delete the counters of failed logins.

    Raises:
        UserNotFound: there is no such user, or the user does not meet the conditions.
    """
    values = {"password_hash": new_hash, "reset_id": None, "updated_at": now}
    change = update(User).where(*_is(user_id), *conditions).values(values)
    _one(connection, change.returning(User.id), UserNotFound)
    end_sessions_of(connection, user_id, "password_changed", now)
    forget(connection, counters)


def _is(user_id: str) -> tuple[ColumnElement[bool], ...]:
    return User.id == user_id, User.deleted_at.is_(None)


def _keep_an_administrator(connection: Connection, user_id: str) -> None:
    """Keep the other administrators what they are until the transaction ends.

    Raises:
        LastAdministrator: there is no other one.
    """
    if connection.execute(LOCK_ADMINISTRATORS).scalars().all() == [user_id]:
        raise LastAdministrator


def _one(
    connection: Connection,
    statement: AnySelect | Returning,
    missing: type[AppError] = InvalidToken,
    values: Mapping[str, str] | None = None,
) -> RowMapping:
    """Return the row of a user. The default error is for a caller whose account was deleted a moment ago."""
    row = connection.execute(statement, values).mappings().one_or_none()
    if row is None:
        raise missing
    return row
