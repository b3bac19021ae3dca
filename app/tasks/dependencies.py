"""Who may do what with tasks, and what the conditional headers say."""

import re
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Security

from app.auth.dependencies import get_current_user, get_optional_user
from app.auth.service import Principal
from app.tasks.schemas import TaskQuery

TaskReader = Annotated[Principal, Security(get_current_user, scopes=["tasks:read"])]
OptionalTaskReader = Annotated[Principal | None, Security(get_optional_user, scopes=["tasks:read"])]
TaskWriter = Annotated[Principal, Security(get_current_user, scopes=["tasks:write"])]

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

ENTITY_TAG = re.compile(r'(W/)?"([^"]*)"')


def etag(version: int) -> str:
    return f'"{version}"'


async def get_if_match(
    request: Request, _: Annotated[str | None, Header(alias="If-Match", description="Only if the ETag is this.")] = None
) -> frozenset[int] | None:
    """The versions that a change may meet; None for any. Weak tags match none (RFC 9110 §13.1.1)."""
    header = ",".join(request.headers.getlist("if-match"))
    if not header or header.strip() == "*":
        return None
    tags = [tag for weak, tag in ENTITY_TAG.findall(header) if not weak]
    return frozenset(int(tag) for tag in tags if re.fullmatch("[0-9]{1,9}", tag))


IfMatch = Annotated[frozenset[int] | None, Depends(get_if_match)]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", description="304 if the ETag is still this.")]


def is_fresh(if_none_match: str | None, version: int) -> bool:
    """Whether the client has this version already (RFC 9110 §13.1.2)."""
    tags = if_none_match or ""
    return tags.strip() == "*" or any(f'"{tag}"' == etag(version) for _, tag in ENTITY_TAG.findall(tags))
