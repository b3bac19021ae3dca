"""Conditional requests for a resource with a version, whose ETag is that version (RFC 9110 §13)."""

import re
from typing import Annotated, Final

from fastapi import Depends, Header, Request

from app.http.openapi import header

TAG: Final = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
TAGS: Final = re.compile(rf"{TAG}(?:[ \t]*,[ \t,]*{TAG}){{0,99}}")
OWN_TAG: Final = re.compile(r'(?:W/)?"([1-9][0-9]{0,8})(?:-(?:br|deflate|gzip|zstd))?"')

ETAG: Final = header("ETag", "The version, for If-Match and If-None-Match.", pattern=r'^"[1-9][0-9]*"$')
"""The header of an answer, as FastAPI's `responses` describe it."""


def validators(version: int) -> dict[str, str]:
    """Make the headers of an answer that only its reader may keep, and must ask for again (RFC 9111 §5.2.2)."""
    return {"ETag": f'"{version}"', "Cache-Control": "private, no-cache"}


def has_version(tags: list[str], version: int) -> bool:
    """Whether a client that sends these tags in `If-None-Match` has the version already."""
    return f'"{version}"' in tags or "*" in tags


async def get_if_match(
    request: Request, _: Annotated[str | None, Header(alias="If-Match", description="Only if the ETag is this.")] = None
) -> frozenset[int] | None:
    """Read the versions that a change may meet; None for any.

    A tag that a compressing proxy has changed counts too, because the version is the same: nginx and HAProxy make it
    weak (RFC 9110 §13.1.1 has a weak tag match nothing), Apache and Caddy add the coding, as in `"3-gzip"`.
    """
    tags = _entity_tags(request, "if-match")
    if tags is None or tags == ["*"]:
        return None
    return frozenset(int(own[1]) for tag in tags if (own := OWN_TAG.fullmatch(tag)))


async def get_if_none_match(
    request: Request,
    _: Annotated[str | None, Header(alias="If-None-Match", description="304 if the ETag is still this.")] = None,
) -> list[str]:
    """Read the tags that a client has already. Weak tags count (RFC 9110 §13.1.2)."""
    return [tag.removeprefix("W/") for tag in _entity_tags(request, "if-none-match") or []]


IfMatch = Annotated[frozenset[int] | None, Depends(get_if_match)]
IfNoneMatch = Annotated[list[str], Depends(get_if_none_match)]


def _entity_tags(request: Request, name: str) -> list[str] | None:
    """Read the tags of a header, which may be `*`: none of a malformed header, None without the header."""
    lines = request.headers.getlist(name)
    if not lines:
        return None
    value = ",".join(lines).strip(" \t,")
    if value == "*":
        return ["*"]
    return re.findall(TAG, value) if TAGS.fullmatch(value) else []
