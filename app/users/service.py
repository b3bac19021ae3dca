"""Accounts: make, list, read, change, recover, delete."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Update, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.dml import ReturningUpdate

from app.auth.callers import LOCK_ADMINISTRATORS, CurrentUser, require_fresh_login
from app.auth.counters import Keys, forget
from app.auth.errors import InvalidResetToken, InvalidToken, WrongPassword
from app.auth.models import User
from app.auth.service import end_other_sessions, end_sessions_of, end_sessions_with
from app.auth.usernames import normalize_username
from app.db.database import AnyRow, AnySelect
from app.db.types import Text, new_id
from app.errors import AppError
from app.pagination.page import Order, Page
from app.users.deletion import end_account
from app.users.errors import LastAdministrator, UsernameTaken, UserNotFound
from app.users.schemas import UserChange, UserQuery, UserUpdate

Returning = ReturningUpdate[*tuple[Any, ...]]

PROFILE = (User.id, User.username, User.email, User.is_active, User.is_admin, User.created_at, User.updated_at)
AFTER_ALL = "\x7f"  # any character of a username


def _parse_name(text: str) -> str:
    """A username as `BY_NAME` orders them, or ValueError."""
    if not text.isascii() or "\0" in text or normalize_username(text) != text:
        raise ValueError("no folded username")
    return text


FOLDED = func.lower(User.username)
BY_NAME = Order(FOLDED, id_of=lambda row: normalize_username(row.username), parse_id=_parse_name)
USERS = select(*PROFILE).where(User.deleted_at.is_(None))
NAMED = USERS.where(FOLDED.between(bindparam("prefix", type_=Text), bindparam("prefix_end", type_=Text)))


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
        UsernameTaken: somebody has the name, letter case aside.
    """
    user = {"id": new_id(now), "username": username, "email": email, "password_hash": password_hash}
    rest = {"is_admin": is_admin, "created_at": now, "updated_at": now}
    statement = insert(User).values(user | rest).returning(*PROFILE)
    try:
        return connection.execute(statement).mappings().one()
    except IntegrityError as error:
        raise UsernameTaken from error


def insert_users(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert many at once: rows of the table, as they are."""
    connection.execute(insert(User), rows)


def get_profile(connection: Connection, user: CurrentUser) -> RowMapping:
    return _one(connection, USERS.where(User.id == user.user_id))


def update_profile(
    connection: Connection, user: CurrentUser, changes: UserUpdate, now: datetime, fresh_login: int
) -> tuple[RowMapping, bool]:
    """Change the caller's profile. Return it, and whether its e-mail address is another than before.

    Raises:
        StaleLogin: the address would be another, and the login is that many seconds ago, or more.
    """
    profile = get_profile(connection, user)
    changed = {name: value for name, value in changes.items() if value != profile[name]}
    if not changed:
        return profile, False
    if "email" in changed:  # pragma: no branch - there is no other field yet
        require_fresh_login(user, fresh_login, now)
    change = update(User).where(*_is(user.user_id)).values(updated_at=now, **changed)
    return _one(connection, change.returning(*PROFILE)), "email" in changed


def change_password(connection: Connection, user: CurrentUser, old_hash: str, new_hash: str, now: datetime) -> None:
    """Set the password and end every other session.

    Raises:
        WrongPassword: it has been changed since `old_hash` was read.
    """
    is_unchanged = (User.id == user.user_id, User.password_hash == old_hash)
    change = update(User).where(*is_unchanged).values(password_hash=new_hash, updated_at=now).returning(User.id)
    if connection.execute(change).one_or_none() is None:
        raise WrongPassword
    end_other_sessions(connection, user, "password_changed", now)


def list_users(connection: Connection, query: UserQuery) -> Page:
    """Read a page of everyone, by username."""
    prefix = normalize_username(query.username)
    return BY_NAME.page(connection, NAMED, query, "users", {"prefix": prefix, "prefix_end": prefix + AFTER_ALL})


def get_user(connection: Connection, user_id: str) -> RowMapping:
    """Raises UserNotFound."""
    return _one(connection, USERS.where(User.id == user_id), UserNotFound)


def get_named(connection: Connection, username: str) -> RowMapping:
    """Read a user by name, in either letter case.

    Raises:
        UserNotFound
    """
    return _one(connection, USERS.where(func.lower(User.username) == normalize_username(username)), UserNotFound)


def change_user(
    connection: Connection, user_id: str, changes: UserChange, now: datetime, counted: Keys | None = None
) -> RowMapping:
    """Change what a user may do.

    Disabling ends every session, and demoting those that have the scope `admin`. Enabling forgets the failed logins
    that are `counted`.

    Raises:
        UserNotFound, LastAdministrator
    """
    if not changes:
        return get_user(connection, user_id)
    if False in changes.values():
        _keep_an_administrator(connection, user_id)
    change = update(User).where(*_is(user_id)).values(updated_at=now, **changes)
    user = _one(connection, change.returning(*PROFILE), UserNotFound)
    if not user["is_active"]:
        end_sessions_of(connection, user_id, "disabled", now)
    if not user["is_admin"]:
        end_sessions_with(connection, user_id, "admin", "demoted", now)
    if counted and changes.get("is_active"):
        forget(connection, counted)
    return user


def unlock(connection: Connection, user_id: str, counted: Keys) -> None:
    """Forget the failed logins of a user.

    Raises:
        UserNotFound
    """
    get_user(connection, user_id)
    forget(connection, counted)


def end_sessions(connection: Connection, user_id: str, now: datetime) -> None:
    """End every session of a user.

    Raises:
        UserNotFound
    """
    _one(connection, USERS.where(User.id == user_id).with_for_update(key_share=True), UserNotFound)
    end_sessions_of(connection, user_id, "revoked", now)


def delete_profile(connection: Connection, user: CurrentUser, now: datetime) -> bool:
    """Delete one's own account. Whether it has left rows, which are for `Deletions`.

    Raises:
        InvalidToken: another request has done so meanwhile.
        LastAdministrator
    """
    if get_profile(connection, user)["is_admin"]:  # else it would wait for administrators, who may wait for this user
        _keep_an_administrator(connection, user.user_id)
    return end_account(connection, user.user_id, now, InvalidToken)


def delete_user(connection: Connection, user_id: str, now: datetime) -> bool:
    """Delete a user, with tasks and sessions. Whether rows are left, which are for `Deletions`.

    Raises:
        UserNotFound, LastAdministrator
    """
    _keep_an_administrator(connection, user_id)
    return end_account(connection, user_id, now, UserNotFound)


ACCOUNT = select(
    *(User.id, User.username, User.email, User.password_hash, User.is_active, User.updated_at, User.reset_id)
).where(User.id == bindparam("user_id"), User.deleted_at.is_(None))


def get_account(connection: Connection, user_id: str, missing: type[AppError] = UserNotFound) -> AnyRow:
    """Read what a reset token is made from, and checked against.

    Raises:
        AppError: there is no such account; of the given class.
    """
    account = connection.execute(ACCOUNT, {"user_id": user_id}).one_or_none()
    if account is None:
        raise missing
    return account


def note_reset(connection: Connection, user_id: str, reset_id: str) -> None:
    """Note which reset token is the latest. For the account it is no change."""
    connection.execute(update(User).where(User.id == user_id).values(reset_id=reset_id))


def list_hashes(connection: Connection, after_id: str, limit: int) -> Sequence[AnyRow]:
    """Read id, username and password_hash of so many users who can log in, with the next ids."""
    query = select(User.id, User.username, User.password_hash).where(User.id > after_id, User.is_active)
    return connection.execute(query.order_by(User.id).limit(limit)).all()


def replace_password(connection: Connection, account: AnyRow, new_hash: str, counted: Keys, now: datetime) -> None:
    """Set the password of an account as it was read, end every session, and forget the failures to log in.

    Raises:
        InvalidResetToken: it has been changed, disabled or deleted since, or has a newer reset token.
    """
    is_unchanged = (User.password_hash == account.password_hash, User.updated_at == account.updated_at, User.is_active)
    is_latest = User.reset_id.is_not_distinct_from(account.reset_id)
    change = update(User).where(User.id == account.id, *is_unchanged, is_latest)
    _set_password(connection, change, new_hash, counted, now, InvalidResetToken)


def set_password(connection: Connection, user_id: str, new_hash: str, counted: Keys, now: datetime) -> None:
    """Set a user's password, end every session, and forget the failures to log in.

    Raises:
        UserNotFound
    """
    _set_password(connection, update(User).where(*_is(user_id)), new_hash, counted, now, UserNotFound)


def _set_password(
    connection: Connection, change: Update, new_hash: str, counted: Keys, now: datetime, missing: type[AppError]
) -> None:
    change = change.values(password_hash=new_hash, reset_id=None, updated_at=now)
    user = _one(connection, change.returning(User.id), missing)
    end_sessions_of(connection, user["id"], "password_changed", now)
    forget(connection, counted)


def _is(user_id: str) -> tuple[ColumnElement[bool], ...]:
    return User.id == user_id, User.deleted_at.is_(None)


def _keep_an_administrator(connection: Connection, user_id: str) -> None:
    """Raises LastAdministrator where nobody else is one. The others stay so until the transaction ends."""
    if connection.execute(LOCK_ADMINISTRATORS).scalars().all() == [user_id]:
        raise LastAdministrator


def _one(
    connection: Connection, statement: AnySelect | Returning, missing: type[AppError] = InvalidToken
) -> RowMapping:
    """The row of a user, or the error that there is none: by default, that it has been deleted a moment ago."""
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        raise missing
    return row
