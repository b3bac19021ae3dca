"""Pages of a list: the query for a page, and the page as an answer."""

from collections.abc import Callable, Sequence
from itertools import accumulate, takewhile
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar
from urllib.parse import urlencode

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from app.db.database import AnyRow
from app.http.fields import Digits, StorableText
from app.http.openapi import describe, header
from app.pagination.cursor import MAX_CURSOR, BadCursor

Item = TypeVar("Item")

MAX_BYTES: Final = 960 * 1024  # of a page that has more than one item

NEXT = header("Link", "RFC 8288: the next page, where there is one.", required=False, pattern='^<.+>; rel="next"$')
PAGE = {200: NEXT, **describe(BadCursor)}
"""The answers of a list, as FastAPI's `responses`."""


class PageQuery(BaseModel):
    """The page of a list that a client asks for. Lists with filters and sorts derive from it."""

    model_config = ConfigDict(frozen=True)  # requests without a query share one

    in_every_cursor: ClassVar[frozenset[str]] = frozenset()
    """Filters that a cursor names even where they are not set.

    Leave a new filter out: a cursor then names it only where it is set, so that cursors from before stay good.
    """

    limit: Digits = Field(20, ge=1, le=100, description="The most items. A page of about 1 MiB ends earlier.")
    cursor: StorableText | None = Field(None, max_length=MAX_CURSOR, description="The `next_cursor` of a page.")

    def context(self, name: str) -> str:
        """Name the list, its order and its filters: a cursor is good for nothing else."""
        cls, given = type(self), self.model_fields_set
        changed = {field for field in given if getattr(self, field) != cls.model_fields[field].default}
        return name + self.model_dump_json(include={*self.in_every_cursor, *changed} - {"limit", "cursor"})


class PageOf(BaseModel, Generic[Item]):
    items: list[Item]
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last.")


class Page(NamedTuple):
    """`cursor_after` makes the cursor of the page that begins after a row."""

    rows: Sequence[Any]
    is_last: bool
    cursor_after: Callable[[AnyRow], str]

    def __bool__(self) -> bool:
        return bool(self.rows)

    @property
    def next_cursor(self) -> str | None:
        return None if self.is_last else self.cursor_after(self.rows[-1])

    def response(self, request: Request, query: PageQuery) -> Response:
        """Answer with the rows as `PageOf` has them, and with RFC 8288's `Link` to the next page.

        Rows become JSON without being validated. The page ends before the body gets too large; the next page begins
        there. The link repeats only parameters that the list knows, so that a token in the URL does not get into it.
        """
        fields = self.rows[0]._fields if self.rows else ()
        items = [dict(zip(fields, row, strict=False)) for row in self.rows]
        next_cursor = self.next_cursor
        body = to_json({"items": items, "next_cursor": next_cursor})
        if len(body) > MAX_BYTES and (count := _how_many_fit(items)) < len(items):
            next_cursor = self.cursor_after(self.rows[count - 1])
            body = to_json({"items": items[:count], "next_cursor": next_cursor})
        headers = {}
        if next_cursor:
            parameters = f"cursor={next_cursor}"
            if sent := query.model_fields_set - {"cursor"}:  # to parse an empty query takes as long as a cursor
                known = {name: value for name, value in request.query_params.items() if name in sent}
                parameters = f"{urlencode(known)}&{parameters}"
            headers["Link"] = f'<{request.scope["path"]}?{parameters}>; rel="next"'
        return Response(body, headers=headers, media_type="application/json")


def _how_many_fit(items: Sequence[object]) -> int:
    """Count the items that fit on a page of MAX_BYTES, at least one."""
    sizes = accumulate(len(to_json(item)) for item in items)
    return max(1, len(list(takewhile(lambda size: size <= MAX_BYTES, sizes))))
