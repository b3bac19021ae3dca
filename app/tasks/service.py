"""Tasks: three lists, and one at a time."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    SQLColumnExpression,
    bindparam,
    func,
    insert,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from app.auth.callers import IS_LIVE, USERNAME, Caller, CurrentUser
from app.auth.errors import InvalidToken
from app.auth.models import User
from app.db.database import AnyRow, AnySelect, DatabaseUnavailable, expect_long
from app.db.types import JSONTime, new_id
from app.pagination.page import Order, Page
from app.tasks.errors import IdempotencyKeyReused, TaskNotFound, TooManyTasks
from app.tasks.models import HAS_KEY, Task
from app.tasks.quota import has_room
from app.tasks.schemas import TaskCreate, TaskQuery
from app.tasks.search import find, index_text

TaskFields = dict[str, Any]
"""What TaskRead shows, and the version, and maybe more."""

ORDERS: Final = {
    "created_at": Order(Task.id),
    "-created_at": Order(Task.id, descending=True),
    "due_at": Order(Task.id, Task.due_at, has_nulls=True),
    "-due_at": Order(Task.id, Task.due_at, descending=True, has_nulls=True),
    "updated_at": Order(Task.id, Task.updated_at),
    "-updated_at": Order(Task.id, Task.updated_at, descending=True),
}
ORDERS_OF_DUE: Final = {name: replace(order, has_nulls=False) for name, order in ORDERS.items()}
HIDDEN: Final = {order: replace(order, is_hidden=True) for order in (*ORDERS.values(), *ORDERS_OF_DUE.values())}


def columns_of(owner: SQLColumnExpression[str]) -> tuple[SQLColumnExpression[Any], ...]:
    """What TaskRead shows."""
    return (
        Task.id,
        Task.title,
        Task.description,
        Task.status,
        type_coerce(Task.due_at, JSONTime).label("due_at"),
        Task.is_public,
        owner.label("owner"),
        type_coerce(Task.created_at, JSONTime).label("created_at"),
        type_coerce(Task.updated_at, JSONTime).label("updated_at"),
    )


def _hidden(column: SQLColumnExpression[Any], times: int = 2) -> ColumnElement[Any]:
    """What the planners do not know to be the column, and look for in no index."""
    return func.coalesce(*[column] * times)


# Made once: to make a statement takes longer than to run it.
MINE = select(*columns_of(USERNAME)).where(IS_LIVE)
OWN = MINE.where(Task.owner_id == bindparam("user_id"))
# A list passes over the tasks of disabled users: 100,000 in a row take SQLite 0.12 s and PostgreSQL 0.04 s. In return
# they hide and come back at once, with one write of one row. To mark each task would write as many rows, twice.
ALL = select(*columns_of(User.username)).join(User, Task.owner_id == User.id).where(User.is_active)
PUBLIC = ALL.where(Task.is_public)
BY_ID: Final = {
    OWN: MINE.where(_hidden(Task.owner_id) == bindparam("user_id")),
    PUBLIC: ALL.where(_hidden(Task.is_public)),
}
ONE = ALL.add_columns(Task.version).where(Task.id == bindparam("task_id"))
ONE_PUBLIC = ONE.where(Task.is_public)
ONE_VISIBLE = ONE.where(or_(Task.is_public, Task.owner_id == bindparam("user_id")), IS_LIVE)
GIVEN: Final = (
    *(Task.id, Task.owner_id, Task.title, Task.description, Task.status, Task.due_at, Task.is_public),
    *(Task.created_at, Task.updated_at, Task.idempotency_key, Task.idempotency_hash, Task.words),
)
CREATE = {
    dialect: upsert(Task)
    .from_select(GIVEN, select(*(bindparam(column.key, type_=column.type) for column in GIVEN)).where(IS_LIVE))
    .on_conflict_do_nothing(index_elements=[Task.owner_id, Task.idempotency_key], index_where=HAS_KEY)
    .returning(Task.version, USERNAME.label("owner"))
    for dialect, upsert in (("postgresql", postgresql.insert), ("sqlite", sqlite.insert))
}
WITH_KEY = select(*columns_of(USERNAME), Task.version, Task.idempotency_hash).where(
    Task.owner_id == bindparam("user_id"), Task.idempotency_key == bindparam("idempotency_key"), IS_LIVE
)
FILTERS: Final = ("status", "due_before", "due_after")


def list_tasks(connection: Connection, caller: Caller | None, query: TaskQuery) -> Page:
    """Read a page of the holder's tasks, if their session is live; without one, of everyone's public ones."""
    if caller is None:
        return list_public(connection, None, query)
    return _page(connection, OWN, query, caller)


def list_public(connection: Connection, _: CurrentUser | None, query: TaskQuery) -> Page:
    """Read a page of everyone's public tasks."""
    return _page(connection, PUBLIC, query, None)


def get_task(connection: Connection, caller: Caller | None, task_id: str) -> TaskFields:
    """Read a task that the caller, if their session is live, or anyone may see.

    Raises:
        TaskNotFound
    """
    query, values = (ONE_VISIBLE, caller._asdict()) if caller else (ONE_PUBLIC, {})
    task = connection.execute(query, {**values, "task_id": task_id}).one_or_none()
    if task is None:
        raise TaskNotFound
    return task._asdict()


def create_task(
    connection: Connection,
    caller: Caller,
    fields: TaskCreate,
    idempotency_key: str | None,
    limit: int,
    now: datetime,
    *,
    is_alone: bool = False,
) -> TaskFields:
    """Insert a task of the holder's, or find the one that the same key and body have made before.

    Raises:
        InvalidToken, DatabaseUnavailable: the session is not live, or the moment is bad; nothing has been inserted.
        IdempotencyKeyReused: the key came with another body before.
        TooManyTasks: the caller has as many as the limit.
        NearLimit: it must be done alone. SQLite's writes are.
    """
    shown = {"id": new_id(now), **fields.model_dump(), "created_at": now, "updated_at": now}
    digest = hashlib.sha256(fields.model_dump_json().encode()).hexdigest() if idempotency_key else None
    hidden = {"owner_id": caller.user_id, "idempotency_key": idempotency_key, "idempotency_hash": digest}
    values = {**caller._asdict(), **shown, **hidden, "words": index_text(fields.title, fields.description)}
    dialect = connection.dialect.name
    may_insert = has_room(connection, caller.user_id, limit, is_alone=is_alone or dialect == "sqlite")
    try:
        created = connection.execute(CREATE[dialect], values).one_or_none() if may_insert else None
    except IntegrityError as error:  # pragma: no cover - in a greenlet alone: the owner has been deleted meanwhile
        raise InvalidToken from error
    if created is not None:
        return {**shown, **created._asdict()}
    first = connection.execute(WITH_KEY, values).one_or_none() if idempotency_key else None
    if first is None and not may_insert:
        raise TooManyTasks
    if first is None:  # no live session; or the task has been deleted between the two statements
        raise DatabaseUnavailable if idempotency_key else InvalidToken
    if first.idempotency_hash != digest:
        raise IdempotencyKeyReused
    return first._asdict()


def insert_tasks(connection: Connection, rows: Sequence[TaskFields]) -> None:
    """Insert many at once: rows of the table, as they are."""
    connection.execute(insert(Task), rows)


def _page(connection: Connection, tasks: AnySelect, query: TaskQuery, owner: Caller | None) -> Page:
    given = {name: value for name in FILTERS if (value := getattr(query, name)) is not None}
    found = find(connection, query.q, owner.user_id if owner else None) if query.q else None
    has_range = "due_before" in given or "due_after" in given
    order = (ORDERS_OF_DUE if has_range else ORDERS)[query.sort]
    if has_range and order.key is not Task.due_at:
        expect_long(connection, "walk")
    order = HIDDEN[order] if found and found.are_few else order
    tasks = BY_ID[tasks] if found and found.by_id else tasks
    rows_of = _filtered(tasks, frozenset(given), order.key is Task.due_at, found and found.condition)
    values = {**(owner._asdict() if owner else {}), **given, **(found.values if found else {})}
    return order.page(connection, rows_of, query, f"own {owner.user_id}" if owner else "public", values, _size)


def _size(task: AnyRow) -> int:
    return len(task.description.encode()) if task.description else 0


@lru_cache(512)
def _filtered(
    tasks: AnySelect, names: frozenset[str], is_by_due: bool, condition: ColumnElement[bool] | None
) -> AnySelect:
    """Add the filters. `condition` is one of the constants of `search`: this cache knows it by identity.

    In another order than by due date, the planners must not see a range of due dates: they would read all of it, and
    sort it. Its two ends are hidden differently, or PostgreSQL takes them for a range again, and expects few rows.
    """
    conditions = {
        "status": Task.status == bindparam("status"),
        "due_before": (Task.due_at if is_by_due else _hidden(Task.due_at)) < bindparam("due_before"),
        "due_after": (Task.due_at if is_by_due else _hidden(Task.due_at, 3)) > bindparam("due_after"),
    }
    if condition is not None:
        tasks = tasks.where(condition)
    return tasks.where(*(condition for name, condition in conditions.items() if name in names))
