"""What the tasks endpoints take and answer."""

import operator
import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import TypeAliasType, TypedDict

from app.db.types import StorableText
from app.http.schema import Schema
from app.pagination.page import PageOf, PageQuery

RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ](\d\d):\d\d:(\d\d))(?:(\.\d{1,6})\d*)?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
UNENCODED: Final = re.compile(r"\S+ \d\d:\d\d", re.ASCII)  # a `+` in a URL is a space
FIRST_YEAR, LAST_YEAR = 1970, 9998  # whatever the zone, both databases can hold it in UTC


def _in_microseconds(value: object) -> object:
    """Check that it is RFC 3339, and cut what is beyond microseconds.

    pydantic would take numbers, and text of digits, for seconds since the epoch; and it refuses more digits.
    """
    if not isinstance(value, str) or not (match := RFC3339.fullmatch(value)):
        hint = "; a + in a URL must be written as %2B" if isinstance(value, str) and UNENCODED.fullmatch(value) else ""
        raise ValueError(f"must be an RFC 3339 time with a zone: 2026-11-23T09:00:00Z{hint}")
    time, hour, second, fraction, zone = match.groups()
    if hour == "24":
        raise ValueError("must have an hour from 00 to 23: midnight is 00:00:00 of the next day")
    if second == "60":
        raise ValueError("must have a second from 00 to 59: a leap second cannot be stored")
    return time + (fraction or "") + zone


def _in_utc(value: datetime) -> datetime:
    if FIRST_YEAR <= value.year <= LAST_YEAR:  # where the conversion cannot overflow
        value = value.astimezone(UTC)
    if not FIRST_YEAR <= value.year <= LAST_YEAR:
        raise ValueError(f"must be in the years {FIRST_YEAR} to {LAST_YEAR} in UTC")
    return value


def _has_something_visible(value: str) -> str:
    if not VISIBLE.search(value):
        raise ValueError("must have a visible character")
    return value


Time = Annotated[
    AwareDatetime,
    Field(
        description="RFC 3339 with a zone, without leap seconds. Digits beyond microseconds are cut off. "
        f"In the years {FIRST_YEAR} to {LAST_YEAR} in UTC."
    ),
    BeforeValidator(_in_microseconds),
    AfterValidator(_in_utc),
]

# White space, control and format characters, fillers, variation selectors, and the empty braille pattern. The names of
# those beyond the BMP are spelled differently in Python and in a JSON schema: the document does without.
INVISIBLE: Final = (
    r"\x00-\x20\x7f-\xa0\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u1680\u17b4\u17b5"
    r"\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
)
BEYOND: Final = (
    r"\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
VISIBLE: Final = re.compile(f"[^{INVISIBLE}{BEYOND}]")
HAS_VISIBLE: Final = {"pattern": rf"^[^\x00]*[^{INVISIBLE}][^\x00]*$"}
Title = Annotated[
    StorableText,
    Field(min_length=1, max_length=200, examples=["Water the plants"], json_schema_extra=HAS_VISIBLE),
    AfterValidator(_has_something_visible),
]
Description = Annotated[StorableText, Field(max_length=10_000)]
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


class TaskUpdate(TypedDict, total=False):
    """The fields that are given change; null clears `description` and `due_at`.

    The read-only fields of a task may be sent back as they were read.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

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
