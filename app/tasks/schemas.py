"""What the tasks endpoints take and answer."""

import operator
import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import TypedDict

from app.columns import StorableText
from app.pagination import PageOf, PageQuery

RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
FIRST_YEAR, LAST_YEAR = 1970, 9998  # whatever the zone, both databases can hold it in UTC


def _is_rfc3339(value: object) -> object:
    """pydantic takes numbers, and text of digits, for seconds since the epoch."""
    if not isinstance(value, str) or not RFC3339.fullmatch(value):
        raise ValueError("must be an RFC 3339 time with a zone: 2026-11-23T09:00:00Z")
    return value


def _in_utc(value: datetime) -> datetime:
    if FIRST_YEAR <= value.year <= LAST_YEAR:  # where the conversion cannot overflow
        value = value.astimezone(UTC)
    if not FIRST_YEAR <= value.year <= LAST_YEAR:
        raise ValueError(f"must be in the years {FIRST_YEAR} to {LAST_YEAR} in UTC")
    return value


def _is_not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


Time = Annotated[
    AwareDatetime,
    Field(description=f"RFC 3339, to the microsecond at most, in the years {FIRST_YEAR} to {LAST_YEAR} in UTC."),
    BeforeValidator(_is_rfc3339),
    AfterValidator(_in_utc),
]
NOT_BLANK = {"pattern": r"^[^\x00]*[^\x00\s\x1c-\x1f\x85][^\x00]*$"}  # for the document: what str.strip() leaves
Title = Annotated[
    StorableText,
    Field(min_length=1, max_length=200, examples=["Water the plants"], json_schema_extra=NOT_BLANK),
    AfterValidator(_is_not_blank),
]
Description = Annotated[StorableText, Field(max_length=10_000)]
Status = Literal["todo", "doing", "done"]
IsPublic = Annotated[bool, Field(strict=True, description="Whether everyone may read it.")]
Sort = Literal["created_at", "-created_at", "due_at", "-due_at", "updated_at", "-updated_at"]


class TaskCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: Title
    description: Description | None = None
    status: Status = "todo"
    due_at: Time | None = None
    is_public: IsPublic = False


class TaskUpdate(TypedDict, total=False):
    """The fields that are given change; null clears `description` and `due_at`."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    title: Title
    description: Description | None
    status: Status
    due_at: Time | None
    is_public: IsPublic


class TaskRead(BaseModel):
    id: str = Field(json_schema_extra={"format": "uuid"})
    title: str
    description: str | None
    status: Status
    due_at: datetime | None
    is_public: bool
    owner: str = Field(description="The owner's username.")
    created_at: datetime
    updated_at: datetime


class TaskPage(PageOf[TaskRead]):
    pass


class TaskQuery(PageQuery):
    sort: Sort = Field("-created_at", description="By `due_at`, tasks without one come last in either direction.")
    status: Status | None = None
    due_before: Time | None = None
    due_after: Time | None = None
    q: StorableText | None = Field(
        None,
        max_length=200,
        exclude_if=operator.not_,  # a cursor from before there was a search stays good
        description="Words, all of which are in the title or the description, whatever their case and accents. "
        "Without letters and digits it filters nothing.",
    )
