"""Tasks: three lists, and one at a time."""

import hashlib
from contextlib import nullcontext
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, SQLColumnExpression, delete, insert, literal, or_, select, update
from sqlalchemy.exc import IntegrityError

from app.auth.errors import InvalidToken
from app.auth.models import User
from app.auth.service import Principal
from app.columns import new_id
from app.database import AnyRow, AnySelect
from app.pagination import Order, Page
from app.tasks.errors import IdempotencyKeyReused, TaskChanged, TaskNotFound
from app.tasks.models import Task
from app.tasks.schemas import TaskCreate, TaskQuery, TaskUpdate

ORDERS: Final = {
    "created_at": Order(Task.id),
    "-created_at": Order(Task.id, descending=True),
    "due_at": Order(Task.id, Task.due_at),
    "-due_at": Order(Task.id, Task.due_at, descending=True),
    "updated_at": Order(Task.id, Task.updated_at),
    "-updated_at": Order(Task.id, Task.updated_at, descending=True),
}


def list_own(connection: Connection, user: Principal, query: TaskQuery) -> Page:
    """Read a page of the user's tasks."""
    tasks = _filtered(select(*_columns(literal(user.username))), query).where(Task.owner_id == user.user_id)
    return ORDERS[query.sort].page(connection, tasks, query, f"own {user.user_id}")


def list_public(connection: Connection, query: TaskQuery) -> Page:
    """Read a page of everyone's public tasks."""
    tasks = select(*_columns(User.username)).join(User, Task.owner_id == User.id)
    return ORDERS[query.sort].page(connection, _filtered(tasks, query).where(Task.is_public), query, "public")


def get_task(connection: Connection, task_id: str, user: Principal | None) -> AnyRow:
    """Read a task that the user, or anyone, may see.

    Raises:
        TaskNotFound
    """
    may_see = or_(Task.is_public, Task.owner_id == user.user_id) if user else Task.is_public
    query = select(*_columns(User.username), Task.version).join(User, Task.owner_id == User.id)
    task = connection.execute(query.where(Task.id == task_id, may_see)).one_or_none()
    if task is None:
        raise TaskNotFound
    return task


def create_task(
    connection: Connection, user: Principal, fields: TaskCreate, idempotency_key: str | None, now: datetime
) -> AnyRow:
    """Insert a task, or find the one that the same key and body have made before.

    Raises:
        IdempotencyKeyReused: the key came with another body before.
    """
    values = {
        "id": new_id(now),
        "owner_id": user.user_id,
        "created_at": now,
        "updated_at": now,
        "idempotency_key": idempotency_key,
        "idempotency_hash": hashlib.sha256(fields.model_dump_json().encode()).hexdigest() if idempotency_key else None,
    }
    answer = (*_columns(literal(user.username)), Task.version)
    try:
        with connection.begin_nested() if idempotency_key else nullcontext():
            return connection.execute(insert(Task).values(**values, **fields.model_dump()).returning(*answer)).one()
    except IntegrityError as error:
        if idempotency_key is None:  # then it is the owner, who has been deleted meanwhile
            raise InvalidToken from error
        has_key = (Task.owner_id == user.user_id, Task.idempotency_key == idempotency_key)
        first = connection.execute(select(*answer, Task.idempotency_hash).where(*has_key)).one_or_none()
        if first is None:
            raise InvalidToken from error
        if first.idempotency_hash != values["idempotency_hash"]:
            raise IdempotencyKeyReused from error
        return first


def update_task(
    connection: Connection,
    user: Principal,
    task_id: str,
    changes: TaskUpdate,
    versions: frozenset[int] | None,
    now: datetime,
) -> AnyRow:
    """Change a task of the user's, if it is at one of the versions.

    Raises:
        TaskNotFound, TaskChanged
    """
    change = update(Task).where(*_own(user, task_id, versions)).values(version=Task.version + 1, updated_at=now)
    answer = (*_columns(literal(user.username)), Task.version)
    task = connection.execute(change.values(**changes).returning(*answer)).one_or_none()
    if task is None:
        raise _refusal(connection, user, task_id)
    return task


def delete_task(connection: Connection, user: Principal, task_id: str, versions: frozenset[int] | None) -> None:
    """Delete a task of the user's, if it is at one of the versions.

    Raises:
        TaskNotFound, TaskChanged
    """
    deleted = connection.execute(delete(Task).where(*_own(user, task_id, versions)).returning(Task.id))
    if deleted.one_or_none() is None:
        raise _refusal(connection, user, task_id)


def _columns(owner: SQLColumnExpression[str]) -> tuple[SQLColumnExpression[Any], ...]:
    """What TaskRead shows."""
    return (
        Task.id,
        Task.title,
        Task.description,
        Task.status,
        Task.due_at,
        Task.is_public,
        owner.label("owner"),
        Task.created_at,
        Task.updated_at,
    )


def _filtered(tasks: AnySelect, query: TaskQuery) -> AnySelect:
    if query.status:
        tasks = tasks.where(Task.status == query.status)
    if query.due_before:
        tasks = tasks.where(Task.due_at < query.due_before)
    if query.due_after:
        tasks = tasks.where(Task.due_at > query.due_after)
    return tasks


def _own(user: Principal, task_id: str, versions: frozenset[int] | None) -> list[ColumnElement[bool]]:
    task = [Task.id == task_id, Task.owner_id == user.user_id]
    return task if versions is None else [*task, Task.version.in_(versions)]


def _refusal(connection: Connection, user: Principal, task_id: str) -> TaskNotFound | TaskChanged:
    """Why no row was met."""
    exists = connection.execute(select(Task.id).where(*_own(user, task_id, None))).one_or_none()
    return TaskNotFound() if exists is None else TaskChanged()
