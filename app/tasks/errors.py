"""What can be wrong with a task.

AppError
├── TaskNotFound          404
├── TaskChanged           412
└── IdempotencyKeyReused  422
"""

from app.errors import InvalidInput, NotFound, PreconditionFailed


class TaskNotFound(NotFound):
    """It does not exist, or is another's and not public: nobody outside can tell which."""

    detail = "Task not found"
    code = "task_not_found"


class TaskChanged(PreconditionFailed):
    detail = "The task has changed since the ETag in If-Match"
    code = "task_changed"


class IdempotencyKeyReused(InvalidInput):
    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(("header", "Idempotency-Key"), "was used with another body")
