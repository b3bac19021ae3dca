"""Read lists of tasks, read a task, create a task."""

import hashlib
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, SQLColumnExpression, bindparam, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from app.auth.callers import SELECT_USERNAME, LiveConnection, if_live, insert_if_live
from app.auth.errors import InvalidToken
from app.auth.liveness import Moment
from app.auth.models import User
from app.db.constraints import violated_constraint
from app.db.database import AnyConnection, AnyRow, AnySelect, expect_long
from app.db.errors import DatabaseUnavailable
from app.db.types import as_json, new_id
from app.pagination.order import SortOrder
from app.pagination.page import Page, PageQuery
from app.tasks.errors import IdempotencyKeyReused, TaskNotFound, TooManyTasks
from app.tasks.models import HAS_KEY, Task
from app.tasks.quota import has_room
from app.tasks.schemas import TaskCreate, TaskQuery, TaskRead
from app.tasks.search import NO_SEARCH, plan_search
from app.tasks.words import index_text

TaskFields = dict[str, Any]
"""The fields of a `TaskRead`, the version, and maybe more."""

SORT_ORDERS: Final = {
    "created_at": SortOrder(Task.id),
    "-created_at": SortOrder(Task.id, descending=True),
    "due_at": SortOrder(Task.id, Task.due_at),
    "-due_at": SortOrder(Task.id, Task.due_at, descending=True),
    "updated_at": SortOrder(Task.id, Task.updated_at),
    "-updated_at": SortOrder(Task.id, Task.updated_at, descending=True),
}
"""An order by another column works at once. It is fast once its indexes exist: see `LIST_KEYS` of the models."""

MANY: Final = 1_000  # tasks of a status: so many are met along a list, and fewer are found first and then sorted

FILTERS: Final = {
    "status": Task.status == bindparam("status"),
    "due_before": Task.due_at < bindparam("due_before"),
    "due_after": Task.due_at > bindparam("due_after"),
}
"""The parameters of `TaskQuery` that filter. One by a column without an index is fast only if the column is hidden."""


def hide(column: SQLColumnExpression[Any], times: int = 2) -> ColumnElement[Any]:
    """Hide a column from the planners, which find no index for it. The rows that a query finds stay the same.

    A list is to be read along the index of its sort order, through an index that begins with a filter where there is
    one. Planners choose by estimates, and may choose to read all matching tasks and to sort them instead.
    """
    return func.coalesce(*[column] * times)


HIDDEN_FILTERS: Final = {
    "status": hide(Task.status) == bindparam("status"),
    "due_before": hide(Task.due_at) < bindparam("due_before"),
    "due_after": hide(Task.due_at, 3) > bindparam("due_after"),
}
"""The filters that a list is walked with. A planner that saw them would read all matching tasks, and sort them.

The two ends of a range are hidden differently, or PostgreSQL takes them for a range again, and expects few rows.
"""
DUE_RANGE: Final = {"due_before", "due_after"}


class TaskList(NamedTuple):
    """The query for a list of tasks."""

    tasks: AnySelect
    by_id: AnySelect
    """The same query, hidden from all indexes but that of the ids: for a search that has found the ids of few tasks."""
    many_of_status: AnySelect
    """Finds a task if there are many of a status."""


def shown_columns(owner: SQLColumnExpression[str]) -> list[SQLColumnExpression[Any]]:
    """The columns that `TaskRead` names, in its order, with times as JSON has them."""
    return [
        owner.label(name) if name == "owner" else as_json(getattr(Task, name)).label(name)
        for name in TaskRead.model_fields
    ]


# Statements are constants: to make a statement takes longer than to run it.
SELECT_OWN = if_live(select(*shown_columns(SELECT_USERNAME)))
# As a range in the order of the index by status, or PostgreSQL may look for the status along the index of the ids.
IN_STATUS = select(Task.id).where(Task.status.between(bindparam("status"), bindparam("status")))
SELECT_MANY = IN_STATUS.order_by(Task.status, Task.id).offset(MANY - 1).limit(1)
SELECT_OF_OWNER = select(*shown_columns(SELECT_USERNAME)).where(Task.owner_id == bindparam("user_id"))
OWN_TASKS = TaskList(
    SELECT_OWN.where(Task.owner_id == bindparam("user_id")),
    by_id=SELECT_OWN.where(hide(Task.owner_id) == bindparam("user_id")),
    many_of_status=if_live(SELECT_MANY.where(Task.owner_id == bindparam("user_id"))),
)
# A list passes over the tasks of disabled users: 100,000 in a row take SQLite 0.12 s and PostgreSQL 0.04 s. In return
# one write of one row hides or shows all tasks of a user. To mark each task would write as many rows, twice.
SELECT_OF_ACTIVE = select(*shown_columns(User.username)).join(User, Task.owner_id == User.id).where(User.is_active)
PUBLIC_TASKS = TaskList(
    SELECT_OF_ACTIVE.where(Task.is_public),
    by_id=SELECT_OF_ACTIVE.where(hide(Task.is_public)),
    many_of_status=SELECT_MANY.where(Task.is_public),
)
SELECT_TASK = SELECT_OF_ACTIVE.add_columns(Task.version).where(Task.id == bindparam("task_id"))
SELECT_PUBLIC_TASK = SELECT_TASK.where(Task.is_public)
SELECT_VISIBLE_TASK = if_live(SELECT_TASK.where(or_(Task.is_public, Task.owner_id == bindparam("user_id"))))
INSERTED: Final = [column.key for column in Task.__table__.columns if column is not Task.__table__.c.version]
INSERT_TASK = {
    dialect: insert_if_live(upsert(Task), INSERTED)
    .on_conflict_do_nothing(index_elements=[Task.owner_id, Task.idempotency_key], index_where=HAS_KEY)
    .returning(*shown_columns(SELECT_USERNAME), Task.version)
    for dialect, upsert in (("postgresql", postgresql.insert), ("sqlite", sqlite.insert))
}
SELECT_BY_KEY = if_live(
    select(*shown_columns(SELECT_USERNAME), Task.version, Task.idempotency_hash).where(
        Task.owner_id == bindparam("user_id"), Task.idempotency_key == bindparam("idempotency_key")
    )
)
OWNER_EXISTS: Final = "fk_tasks_owner_id_users"


def list_own(connection: LiveConnection, query: TaskQuery) -> Page:
    """Read a page of the caller's tasks."""
    return _page(connection, OWN_TASKS, query, connection.caller.user_id)


def list_of_owner(connection: Connection, user_id: str, query: PageQuery, _: Moment) -> Page:
    """Read a page of all tasks of a user, the latest first, for the export. It does not check the session."""
    latest_first = SORT_ORDERS["-created_at"]
    return latest_first.page(connection, SELECT_OF_OWNER, query, "export", {"user_id": user_id}, _size)


def list_public(connection: Connection, query: TaskQuery) -> Page:
    """Read a page of everyone's public tasks."""
    return _page(connection, PUBLIC_TASKS, query, None)


def get_visible(connection: LiveConnection, task_id: str) -> TaskFields:
    """Read a task of the caller's, or a public one. Raises TaskNotFound."""
    return _one(connection, SELECT_VISIBLE_TASK, task_id)


def get_public(connection: Connection, task_id: str) -> TaskFields:
    """Read a public task. Raises TaskNotFound."""
    return _one(connection, SELECT_PUBLIC_TASK, task_id)


def create_task(
    connection: LiveConnection,
    fields: TaskCreate,
    idempotency_key: str | None,
    limit: int,
    now: datetime,
    *,
    is_alone: bool = False,
) -> TaskFields:
    """Insert a task of the caller's, or find the one that the same key and body made before.

    Raises:
        InvalidToken, DatabaseUnavailable: the session is not live, or the moment is bad. Nothing was inserted.
        IdempotencyKeyReused: the key came with another body before.
        TooManyTasks: the caller has as many tasks as the limit allows.
        NearLimit: this insert must run alone. On SQLite every write does.
    """
    digest = hashlib.sha256(fields.model_dump_json().encode()).hexdigest() if idempotency_key else None
    values = {
        **fields.model_dump(),
        "id": new_id(now),
        "owner_id": connection.caller.user_id,
        "created_at": now,
        "updated_at": now,
        "idempotency_key": idempotency_key,
        "idempotency_hash": digest,
        "words": index_text(fields.title, fields.description),
    }
    dialect = connection.dialect.name
    may_insert = has_room(connection, limit, is_alone=is_alone or dialect == "sqlite")
    try:
        created = connection.execute(INSERT_TASK[dialect], values).one_or_none() if may_insert else None
    except IntegrityError as error:
        if violated_constraint(error) != OWNER_EXISTS:
            raise
        raise InvalidToken from error  # pragma: no cover - in a greenlet alone: the owner was deleted at this moment
    if created is not None:
        return created._asdict()
    first = connection.execute(SELECT_BY_KEY, values).one_or_none() if idempotency_key else None
    if first is None and not may_insert:
        raise TooManyTasks
    if first is None:  # the session is not live; or the task was deleted between the two statements
        raise DatabaseUnavailable if idempotency_key else InvalidToken
    if first.idempotency_hash != digest:
        raise IdempotencyKeyReused
    return first._asdict()


def _one(connection: AnyConnection, statement: AnySelect, task_id: str) -> TaskFields:
    task = connection.execute(statement, {"task_id": task_id}).one_or_none()
    if task is None:
        raise TaskNotFound
    return task._asdict()


def _page(connection: AnyConnection, listed: TaskList, query: TaskQuery, owner_id: str | None) -> Page:
    values: TaskFields = {name: value for name in FILTERS if (value := getattr(query, name)) is not None}
    order = SORT_ORDERS[query.sort]
    search = plan_search(connection, query.q, owner_id) if query.q else NO_SEARCH
    is_by_due = order.key is Task.due_at
    sorts = search.by_id or search.avoid_order_index
    if query.status and order.key is not None and search.condition is None:
        sorts = connection.execute(listed.many_of_status, {"status": query.status}).one_or_none() is None
    hidden = (DUE_RANGE if sorts or not is_by_due else set()) | (set() if sorts or order.key is None else {"status"})
    if not sorts and not hidden.isdisjoint(values):
        expect_long(connection, "walk")
    return order.page(
        connection,
        _filtered(
            listed.by_id if search.by_id else listed.tasks, frozenset(values), frozenset(hidden), search.condition
        ),
        query,
        f"own {owner_id}" if owner_id else "public",
        values | search.values,
        _size,
        skip_nulls=is_by_due and not DUE_RANGE.isdisjoint(values),
        avoid_order_index=sorts and not search.by_id,
    )


def _size(task: AnyRow) -> int:
    return len(task.description.encode()) if task.description else 0


@lru_cache(512)
def _filtered(
    tasks: AnySelect, names: frozenset[str], hidden: frozenset[str], condition: ColumnElement[bool] | None
) -> AnySelect:
    """Add filters. `condition` is one of the constants of `search`: this cache knows it by identity."""
    tasks = tasks if condition is None else tasks.where(condition)
    return tasks.where(*((HIDDEN_FILTERS if name in hidden else FILTERS)[name] for name in sorted(names)))
