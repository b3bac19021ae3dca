"""Accounts: make, read, change, delete."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.dml import ReturningDelete, ReturningUpdate

from app.auth.errors import InvalidToken, WrongPassword
from app.auth.holders import Principal
from app.auth.models import User
from app.auth.service import end_other_sessions
from app.columns import new_id
from app.database import AnySelect
from app.users.errors import UsernameTaken
from app.users.schemas import UserUpdate

Returning = ReturningUpdate[*tuple[Any, ...]] | ReturningDelete[*tuple[Any, ...]]

PROFILE = (User.id, User.username, User.email, User.is_active, User.is_admin, User.created_at, User.updated_at)


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


def get_profile(connection: Connection, user: Principal) -> RowMapping:
    return _one(connection, select(*PROFILE).where(User.id == user.user_id))


def update_profile(connection: Connection, user: Principal, changes: UserUpdate, now: datetime) -> RowMapping:
    change = update(User).where(User.id == user.user_id).values(updated_at=now, **changes)
    return _one(connection, change.returning(*PROFILE))


def change_password(connection: Connection, user: Principal, old_hash: str, new_hash: str, now: datetime) -> None:
    """Set the password and end every other session.

    Raises:
        WrongPassword: it has been changed since `old_hash` was read.
    """
    is_unchanged = (User.id == user.user_id, User.password_hash == old_hash)
    change = update(User).where(*is_unchanged).values(password_hash=new_hash, updated_at=now).returning(User.id)
    if connection.execute(change).one_or_none() is None:
        raise WrongPassword
    end_other_sessions(connection, user, "password_changed", now)


def delete_user(connection: Connection, user_id: str) -> None:
    """Delete a user; tasks and sessions go along.

    Raises:
        InvalidToken: another request has done so meanwhile.
    """
    _one(connection, delete(User).where(User.id == user_id).returning(User.id))


def _one(connection: Connection, statement: AnySelect | Returning) -> RowMapping:
    """The row of a user who was there a moment ago.

    Raises:
        InvalidToken: the user has been deleted meanwhile.
    """
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        raise InvalidToken
    return row
