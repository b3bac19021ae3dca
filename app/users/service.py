"""Accounts in the database: create, list, read, change, recover and delete them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, RowMapping, Update, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.dml import ReturningUpdate

from app.auth.callers import LOCK_ADMINISTRATORS, CurrentUser, require_fresh_login
from app.auth.counters import Keys, forget
from app.auth.errors import InvalidResetToken, InvalidToken, WrongPassword
from app.auth.models import User
from app.auth.service import end_other_sessions, end_sessions_of, end_sessions_with
from app.auth.usernames import HAS_LOGIN_NAME, normalize_username
from app.db.constraints import violated_constraint
from app.db.database import AnyRow, AnySelect
from app.db.types import Text, new_id
from app.errors import AppError
from app.pagination.page import Order, Page
from app.users.deletion import end_account
from app.users.errors import LastAdministrator, UsernameTaken, UserNotFound
from app.users.schemas import UserChange, UserQuery, UserRead, UserUpdate

T = TypeVar("T")
Returning = ReturningUpdate[*tuple[Any, ...]]

PROFILE_COLUMNS = [getattr(User, name) for name in UserRead.model_fields]
LAST_CHARACTER = "\x7f"  # sorts after each character of a username


def _parse_name(text: str) -> str:
    """Return the text if it is a username in the form that `BY_NAME` sorts by.

    Raises:
        ValueError
    """
    if not text.isascii() or "\0" in text or normalize_username(text) != text:
        raise ValueError("not a normalized username")
    return text


LOWER_NAME = func.lower(User.username)
BY_NAME = Order(LOWER_NAME, id_of=lambda row: normalize_username(row.username), parse_id=_parse_name)
SELECT_USERS = select(*PROFILE_COLUMNS).where(User.deleted_at.is_(None))
SELECT_USERS_BY_PREFIX = SELECT_USERS.where(
    LOWER_NAME.between(bindparam("prefix", type_=Text), bindparam("prefix_end", type_=Text))
)
SELECT_USER_BY_NAME = SELECT_USERS.where(HAS_LOGIN_NAME)
SELECT_ACCOUNT = select(
    *(User.id, User.username, User.email, User.password_hash, User.is_active, User.updated_at, User.reset_id)
).where(User.id == bindparam("user_id"), User.deleted_at.is_(None))


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


def insert_users(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert many users: whole rows of the table."""
    connection.execute(insert(User), rows)


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
    return BY_NAME.page(
        connection,
        SELECT_USERS_BY_PREFIX,
        query,
        "users",
        {"prefix": prefix, "prefix_end": prefix + LAST_CHARACTER},
    )


def get_user(connection: Connection, user_id: str) -> RowMapping:
    """Raises UserNotFound."""
    return _one(connection, SELECT_USERS.where(User.id == user_id), UserNotFound)


def get_user_by_name(connection: Connection, username: str) -> RowMapping:
    """Read a user by a name that logs them in.

    Raises:
        UserNotFound
    """
    named = connection.execute(SELECT_USER_BY_NAME, {"username": normalize_username(username)}).mappings()
    return _require(named.one_or_none(), UserNotFound)


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
    """Delete the counters of a user's failed logins.

    Raises:
        UserNotFound
    """
    get_user(connection, user_id)
    forget(connection, counters)


def end_sessions(connection: Connection, user_id: str, now: datetime) -> None:
    """End every session of a user.

    Raises:
        UserNotFound
    """
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


def get_account(connection: Connection, user_id: str, missing: type[AppError] = UserNotFound) -> AnyRow:
    """Read the fields of an account that a reset token depends on.

    Raises:
        AppError: of the class `missing`, if there is no such account.
    """
    return _require(connection.execute(SELECT_ACCOUNT, {"user_id": user_id}).one_or_none(), missing)


def store_reset_id(connection: Connection, user_id: str, reset_id: str) -> None:
    """Store which reset token is the latest. `updated_at` stays: the token depends on it."""
    connection.execute(update(User).where(User.id == user_id).values(reset_id=reset_id))


def list_hashes(connection: Connection, after_id: str, limit: int) -> Sequence[AnyRow]:
    """Read id, username and password_hash of the next users who can log in, in the order of their ids."""
    query = select(User.id, User.username, User.password_hash).where(User.id > after_id, User.is_active)
    return connection.execute(query.order_by(User.id).limit(limit)).all()


def replace_password(connection: Connection, account: AnyRow, new_hash: str, counters: Keys, now: datetime) -> None:
    """Set the password of an account that has not changed, end every session, and delete the counters.

    Raises:
        InvalidResetToken: since it was read, the account was changed, disabled or deleted, or got a newer reset token.
    """
    is_unchanged = (User.password_hash == account.password_hash, User.updated_at == account.updated_at, User.is_active)
    is_latest = User.reset_id.is_not_distinct_from(account.reset_id)
    change = update(User).where(User.id == account.id, *is_unchanged, is_latest)
    _set_password(connection, change, new_hash, counters, now, InvalidResetToken)


def set_password(connection: Connection, user_id: str, new_hash: str, counters: Keys, now: datetime) -> None:
    """Set a user's password, end every session, and delete the counters of failed logins.

    Raises:
        UserNotFound
    """
    _set_password(connection, update(User).where(*_is(user_id)), new_hash, counters, now, UserNotFound)


def _set_password(
    connection: Connection, change: Update, new_hash: str, counters: Keys, now: datetime, missing: type[AppError]
) -> None:
    change = change.values(password_hash=new_hash, reset_id=None, updated_at=now)
    user = _one(connection, change.returning(User.id), missing)
    end_sessions_of(connection, user["id"], "password_changed", now)
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
    connection: Connection, statement: AnySelect | Returning, missing: type[AppError] = InvalidToken
) -> RowMapping:
    """Return the row of a user. The default error is for a caller whose account was deleted a moment ago."""
    return _require(connection.execute(statement).mappings().one_or_none(), missing)


def _require(row: T | None, missing: type[AppError]) -> T:
    if row is None:
        raise missing
    return row
