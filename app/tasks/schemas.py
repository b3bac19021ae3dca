"""The requests and answers of the endpoints of tasks."""

import operator
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field, with_config
from typing_extensions import TypeAliasType, TypedDict

from app.http.fields import StorableText, Time, VisibleText
from app.http.schema import Schema
from app.pagination.page import PageOf, PageQuery

Title = Annotated[VisibleText, Field(max_length=200, examples=["Water the plants"])]
Description = Annotated[StorableText, Field(max_length=10_000, examples=["Twice a week in summer."])]
TaskStatus = TypeAliasType("TaskStatus", Literal["todo", "doing", "done"])
IsPublic = Annotated[bool, Field(strict=True, description="Whether everyone may read it.")]
TaskSort = TypeAliasType(
    "TaskSort", Literal["created_at", "-created_at", "due_at", "-due_at", "updated_at", "-updated_at"]
)


READ_ONLY: Final = Field(json_schema_extra={"readOnly": True})


class TaskCreate(Schema):
    title: Title
    description: Description | None = None
    status: TaskStatus = "todo"
    due_at: Time | None = None
    is_public: IsPublic = False


@with_config(extra="forbid", json_schema_extra={"examples": [{"status": "done"}]})
class TaskUpdate(TypedDict, total=False):
    """Only the given fields change. Null clears `description` and `due_at`.

    A client may send the read-only fields back as it read them.
    """

    title: Title
    description: Description | None
    status: TaskStatus
    due_at: Time | None
    is_public: IsPublic
    id: Annotated[str, READ_ONLY]
    owner: Annotated[str, READ_ONLY]
    created_at: Annotated[Time, READ_ONLY]
    updated_at: Annotated[Time, READ_ONLY]


class TaskRead(BaseModel):
    id: str = Field(json_schema_extra={"format": "uuid"})
    title: str
    description: str | None
    status: TaskStatus
    due_at: datetime | None
    is_public: bool
    owner: str = Field(description="The owner's username.")
    created_at: datetime
    updated_at: datetime


class TaskPage(PageOf[TaskRead]):
    pass


class TaskQuery(PageQuery):
    in_every_cursor = frozenset({"sort", "status", "due_before", "due_after"})

    sort: TaskSort = Field("-created_at", description="By `due_at`, tasks without one come last in either direction.")
    status: TaskStatus | None = None
    due_before: Time | None = None
    due_after: Time | None = None
    q: StorableText | None = Field(
        None,
        max_length=200,
        exclude_if=operator.not_,
        description="Words that the title or the description has, all of them, whatever their case and accents. "
        "The last one may be the beginning of a word. Of a task the first 2,000 different words count. "
        "Without letters and digits it filters nothing.",
    )
