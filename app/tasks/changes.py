"""Change or delete one task."""

from datetime import datetime
from typing import Final

from sqlalchemy import Boolean, Connection, String, and_, bindparam, case, delete, or_, select, update

from app.auth.callers import CurrentUser
from app.db.types import UTCDateTime
from app.tasks.errors import ReadOnlyField, TaskChanged, TaskNotFound
from app.tasks.models import Task
from app.tasks.schemas import TaskCreate, TaskRead, TaskUpdate
from app.tasks.service import TaskFields, shown_columns
from app.tasks.words import index_text

TEXTS: Final = {"title", "description"}
READ_ONLY: Final = TaskRead.model_fields.keys() - TaskCreate.model_fields.keys()
LOCKED: Final = [getattr(Task, name) for name in sorted(TEXTS | READ_ONLY - {"owner"})]

# Statements are constants: to make a statement takes longer than to run it.
IS_ONE, IS_OWN = Task.id == bindparam("task_id"), Task.owner_id == bindparam("user_id")
HAS_VERSION = Task.version.in_(bindparam("versions", expanding=True))
IS_DELETABLE = or_(IS_OWN, and_(bindparam("is_admin", type_=Boolean), Task.is_public))
LOCK_OWN_TASK = select(*LOCKED, Task.version).where(IS_ONE, IS_OWN).with_for_update()
NOW = bindparam("now", type_=UTCDateTime)  # `updated_at` never moves back, even if the clock was set back
UPDATE_TASK = (  # SQLAlchemy sets the columns that the parameters name
    update(Task)
    .where(IS_ONE, IS_OWN)
    .values(version=Task.version + 1, updated_at=case((Task.updated_at > NOW, Task.updated_at), else_=NOW))
    .returning(*shown_columns(bindparam("username", type_=String)), Task.version)
)
UPDATE_VERSION = UPDATE_TASK.where(HAS_VERSION)
DELETE_TASK = delete(Task).where(IS_ONE, IS_DELETABLE).returning(Task.owner_id)
DELETE_VERSION = DELETE_TASK.where(HAS_VERSION)
SELECT_DELETABLE = select(Task.id).where(IS_ONE, IS_DELETABLE)


def update_task(
    connection: Connection,
    user: CurrentUser,
    task_id: str,
    changes: TaskUpdate,
    versions: frozenset[int] | None,
    now: datetime,
) -> TaskFields:
    """Change a task of the user's, if it has one of the versions. Raises TaskNotFound, TaskChanged, ReadOnlyField."""
    values: TaskFields = {"task_id": task_id, "user_id": user.user_id, "is_admin": False, "versions": versions}
    sent: TaskFields = {**changes}
    fields = {name: value for name, value in sent.items() if name not in READ_ONLY}
    texts = fields.keys() & TEXTS
    whole = fields
    if sent.keys() & READ_ONLY or len(texts) == 1:  # without a lock, two changes at once would lose words
        task = _lock(connection, values) | {"owner": user.username}
        for name in sorted(sent.keys() & READ_ONLY):
            if sent[name] != task[name]:
                raise ReadOnlyField(name)
        whole = task | fields
    if texts:
        fields["words"] = index_text(whole["title"], whole["description"])
    change = UPDATE_TASK if versions is None else UPDATE_VERSION
    new = {"now": now, "username": user.username}
    changed = connection.execute(change, {**values, **fields, **new}).one_or_none()
    if changed is None:
        raise _refusal(connection, values)
    return changed._asdict()


def delete_task(connection: Connection, user: CurrentUser, task_id: str, versions: frozenset[int] | None) -> str:
    """Delete a task, if it has one of the versions: a task of the user's, or for an administrator a public one.

    Returns the id of the task's owner. Raises TaskNotFound, TaskChanged.
    """
    values = {"task_id": task_id, "user_id": user.user_id, "is_admin": "admin" in user.scopes, "versions": versions}
    owner_id = connection.execute(DELETE_TASK if versions is None else DELETE_VERSION, values).scalar_one_or_none()
    if owner_id is None:
        raise _refusal(connection, values)
    return str(owner_id)


def _lock(connection: Connection, values: TaskFields) -> TaskFields:
    """Lock a task of the user's until the transaction ends, and read it. Raises TaskNotFound, TaskChanged."""
    task = connection.execute(LOCK_OWN_TASK, values).one_or_none()
    if task is None:
        raise TaskNotFound
    if values["versions"] is not None and task.version not in values["versions"]:
        raise TaskChanged
    return task._asdict()


def _refusal(connection: Connection, values: TaskFields) -> TaskNotFound | TaskChanged:
    """Say why a statement found no task."""
    return TaskNotFound() if connection.execute(SELECT_DELETABLE, values).one_or_none() is None else TaskChanged()
