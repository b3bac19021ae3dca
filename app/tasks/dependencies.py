"""The parameters that the endpoints of tasks share."""

from typing import Annotated, Any

from fastapi import Header, Query, Security

from app.auth.access import CallerDatabase
from app.auth.dependencies import get_caller_database, get_optional_caller_database
from app.tasks.schemas import TaskQuery

TaskReaderDb = Annotated[CallerDatabase, Security(get_caller_database, scopes=["tasks:read"])]
TaskWriterDb = Annotated[CallerDatabase, Security(get_caller_database, scopes=["tasks:write"])]
OptionalTaskReaderDb = Annotated[CallerDatabase | None, Security(get_optional_caller_database, scopes=["tasks:read"])]
"""None without a token: such a caller gets public tasks only, from the plain database."""

OPTIONAL: dict[str, Any] = {"security": [{}]}
"""Tells the OpenAPI document that an operation needs no token."""

Filters = Annotated[TaskQuery, Query()]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
        description="Makes a retry safe: the same key and body answer with the same task.",
    ),
]
