"""The errors of tasks."""

from app.errors import Conflict, InvalidInput, NotFound, PreconditionFailed


class TaskNotFound(NotFound):
    """The task does not exist, or belongs to another user and is not public. A client cannot tell which."""

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
    """A read-only field was sent that differs from the task's."""

    detail = "is read-only and not what the task has now: leave it out, or read it again"
    code = "read_only_field"

    def __init__(self, name: str) -> None:
        super().__init__(("body", name))
