"""What can be wrong with a task.

AppError
├── TaskNotFound          404
├── TooManyTasks          409
├── TaskChanged           412
├── IdempotencyKeyReused  422
└── ReadOnlyField         422
"""

from app.errors import Conflict, InvalidInput, NotFound, PreconditionFailed


class TaskNotFound(NotFound):
    """It does not exist, or is another's and not public: nobody outside can tell which."""

    detail = "Task not found"
    code = "task_not_found"


class TooManyTasks(Conflict):
    detail = "You have as many tasks as this service allows: delete some first"
    code = "too_many_tasks"


class TaskChanged(PreconditionFailed):
    detail = "The task has changed since the ETag in If-Match"
    code = "task_changed"


class IdempotencyKeyReused(InvalidInput):
    loc = ("header", "Idempotency-Key")
    detail = "was used with another body"
    code = "idempotency_key_reused"


class ReadOnlyField(InvalidInput):
    """A field that nobody can change differs from the task's."""

    detail = "is read-only and not what the task has now: leave it out, or read it again"
    code = "read_only_field"

    def __init__(self, name: str) -> None:
        super().__init__(("body", name))
