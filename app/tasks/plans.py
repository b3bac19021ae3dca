"""How the databases find the tasks of a list. All of this is for speed: without it the lists would be the same.

A list is read along the index of its sort order, through an index that begins with a filter where there is one.
Planners choose by estimates, and may choose to read all matching tasks and to sort them instead. They find no index for
a column that is hidden from them.
"""

from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, SQLColumnExpression, bindparam, func

from app.db.database import AnySelect
from app.tasks.models import Task


def hide(column: SQLColumnExpression[Any], times: int = 2) -> ColumnElement[Any]:
    """Hide a column from the planners."""
    return func.coalesce(*[column] * times)


class TaskList(NamedTuple):
    """The query for a list of tasks."""

    tasks: AnySelect
    by_id: AnySelect
    """The same query, hidden from all indexes but that of the ids: for a search that has found the ids of few tasks."""


HIDDEN_DUE_RANGE: Final = {
    "due_before": hide(Task.due_at) < bindparam("due_before"),
    "due_after": hide(Task.due_at, 3) > bindparam("due_after"),
}
"""The range of due dates, for every order but by due date: a planner that saw it would read all of it, and sort it.

Its two ends are hidden differently, or PostgreSQL takes them for a range again, and expects few rows.
"""
