"""Who may do what with tasks, and what the conditional headers say."""

import re
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Security

from app.auth.access import CallerDatabase
from app.auth.dependencies import get_caller_database, get_optional_caller_database
from app.tasks.schemas import TaskQuery

TaskReaderDb = Annotated[CallerDatabase, Security(get_caller_database, scopes=["tasks:read"])]
OptionalTaskReaderDb = Annotated[CallerDatabase | None, Security(get_optional_caller_database, scopes=["tasks:read"])]
OPTIONAL: dict[str, Any] = {"security": [{}]}
"""For the OpenAPI document: no token will do, beside one."""

TaskWriterDb = Annotated[CallerDatabase, Security(get_caller_database, scopes=["tasks:write"])]

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

TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
TAGS = re.compile(rf"{TAG}(?:[ \t]*,[ \t,]*{TAG}){{0,99}}")
OURS = re.compile(r'(?:W/)?"([1-9][0-9]{0,8})"')


def etag(version: int) -> str:
    return f'"{version}"'


async def get_if_match(
    request: Request, _: Annotated[str | None, Header(alias="If-Match", description="Only if the ETag is this.")] = None
) -> frozenset[int] | None:
    """The versions that a change may meet; None for any.

    A weak form of our tag counts too, though RFC 9110 §13.1.1 has it match nothing. A proxy that compresses makes our
    tag weak, and the version that the tag counts stays the same.
    """
    tags = _entity_tags(request, "if-match")
    if tags is None or tags == ["*"]:
        return None
    return frozenset(int(ours[1]) for tag in tags if (ours := OURS.fullmatch(tag)))


async def get_if_none_match(
    request: Request,
    _: Annotated[str | None, Header(alias="If-None-Match", description="304 if the ETag is still this.")] = None,
) -> list[str]:
    """The tags that a client has already; weak ones count (RFC 9110 §13.1.2)."""
    return [tag.removeprefix("W/") for tag in _entity_tags(request, "if-none-match") or []]


IfMatch = Annotated[frozenset[int] | None, Depends(get_if_match)]
IfNoneMatch = Annotated[list[str], Depends(get_if_none_match)]


def _entity_tags(request: Request, header: str) -> list[str] | None:
    """The tags of a conditional header, `*` among them; none of a malformed one; None where there is no such header."""
    lines = request.headers.getlist(header)
    if not lines:
        return None
    value = ",".join(lines).strip(" \t,")
    if value == "*":
        return ["*"]
    return re.findall(TAG, value) if TAGS.fullmatch(value) else []
