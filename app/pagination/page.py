"""Keyset pages: a cursor in, the items and the next cursor out. Page 1,000 costs what page 1 costs."""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import accumulate, takewhile
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from sqlalchemy import ColumnElement, Integer, bindparam, func, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from app.clock import EPOCH, MICROSECOND
from app.db.database import AnyConnection, AnyRow, AnySelect
from app.db.types import Digits, StorableText
from app.errors import InvalidInput
from app.http.openapi import describe, header

Item = TypeVar("Item")
Column = InstrumentedAttribute[Any] | ColumnElement[Any]

MAX_BYTES = 960 * 1024  # of a page that has more than one item
CHUNK = 32  # rows that are read before their size is looked at

NEXT = header("Link", "RFC 8288: the next page, where there is one.", required=False, pattern='^<.+>; rel="next"$')


class PageQuery(BaseModel):
    """Which page of a list. Lists with filters and sorts derive from it."""

    model_config = ConfigDict(frozen=True)  # requests without a query share one

    limit: Digits = Field(
        20, ge=1, le=100, description="The most items to answer with. A page of about 1 MiB ends earlier."
    )
    cursor: StorableText | None = Field(None, max_length=512, description="The `next_cursor` of the page before.")

    def context(self, name: str) -> str:
        """What a cursor is good for: the same list, by name, in the same order through the same filters."""
        return name + self.model_dump_json(exclude={"limit", "cursor"})


class PageOf(BaseModel, Generic[Item]):
    items: list[Item]
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last.")


class BadCursor(InvalidInput):
    code = "bad_cursor"

    def __init__(self) -> None:
        super().__init__(("query", "cursor"), "is not a cursor of this list, sort and filter")


PAGE = {200: NEXT, **describe(BadCursor)}
"""The answers of a list, as FastAPI's `responses`."""


class Page(NamedTuple):
    rows: Sequence[AnyRow]
    is_last: bool
    cursor_after: Callable[[AnyRow], str]
    """The cursor of the page that begins behind a row."""

    def __bool__(self) -> bool:
        return bool(self.rows)

    @property
    def next_cursor(self) -> str | None:
        return None if self.is_last else self.cursor_after(self.rows[-1])

    def response(self, request: Request, query: PageQuery) -> Response:
        """`PageOf` the rows as JSON, with RFC 8288's `Link` to the next page. Rows become bytes once, unvalidated.

        It ends before the body gets too large, and the next page begins there.
        The link repeats what the list knows and nothing else: a token that somebody put into the URL stays out of it.
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
            if known := {x: y for x, y in request.query_params.items() if x in query.model_fields_set - {"cursor"}}:
                parameters = f"{urlencode(known)}&{parameters}"
            headers["Link"] = f'<{request.scope["path"]}?{parameters}>; rel="next"'
        return Response(body, headers=headers, media_type="application/json")


def _how_many_fit(items: Sequence[object]) -> int:
    """How many may stand on a page of MAX_BYTES: at least one. The items behind them are not written."""
    sizes = accumulate(len(to_json(item)) for item in items)
    return max(1, len(list(takewhile(lambda size: size <= MAX_BYTES, sizes))))


class Position(NamedTuple):
    """Where a page ended: its last row's key, None where that is NULL or the order has none, and what is unique."""

    key: datetime | None
    id: str


class Stretch(NamedTuple):
    """A part of an order that is one range of an index on (…, key, id)."""

    has_key: bool
    """Whether it has the rows ordered by their key; else those where it is NULL, or of an order without one."""
    is_beyond: bool
    """Whether it begins beyond a position, or with the first row."""


def _parse_uuid(text: str) -> str:
    return str(UUID(text))


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """An order of rows that a page can go on in: by a time and then by id; or by id alone, which is by creation.

    Rows whose time is NULL come last in either direction. To be made once, like the queries that it orders.
    """

    id: Column
    key: InstrumentedAttribute[Any] | None = None
    descending: bool = False
    has_nulls: bool = False
    """Whether there can be rows without a key."""
    is_hidden: bool = False
    """Whether the planners are not to see that an index has this order: they find the rows first, and sort them."""
    id_of: Callable[[AnyRow], str] = attrgetter("id")
    """A row's `id`."""
    parse_id: Callable[[str], str] = _parse_uuid
    """What comes back in a cursor, or ValueError where that is no `id`."""

    def page(
        self,
        connection: AnyConnection,
        rows_of: AnySelect,
        query: PageQuery,
        name: str,
        values: Mapping[str, object],
        size_of: Callable[[AnyRow], int] = lambda _: 0,
    ) -> Page:
        """Read one page of the list of that name: of the rows of a query, with the values of its parameters.

        `size_of` tells how many bytes a row has at least: those beyond MAX_BYTES are not read.

        Raises:
            BadCursor: the cursor is not of this list in this order with these filters.
        """
        context = query.context(name)
        after = _decode(query.cursor, context, self.parse_id) if query.cursor is not None else None

        def cursor_after(row: AnyRow) -> str:
            return _encode(self._position(row), context)

        position = {"after_key": after.key, "after_id": after.id} if after else {}
        rows: list[AnyRow] = []
        size = 0
        for stretch in self._stretches(after):
            limit = {"limit": query.limit + 1 - len(rows)}
            found = connection.execute(
                _range(self, rows_of, stretch, connection.dialect.name), {**values, **position, **limit}
            )
            while size <= MAX_BYTES:
                chunk = found.fetchmany(CHUNK)
                rows += chunk
                if len(chunk) < CHUNK:
                    break
                size += sum(map(size_of, chunk))
            found.close()
            if len(rows) > query.limit or size > MAX_BYTES:
                return Page(rows[: query.limit], False, cursor_after)
        return Page(rows, True, cursor_after)

    def _stretches(self, after: Position | None) -> Iterator[Stretch]:
        is_beyond = after is not None
        if self.key is None or (after and after.key is None):
            yield Stretch(has_key=False, is_beyond=is_beyond)
        else:
            yield Stretch(has_key=True, is_beyond=is_beyond)
            if self.has_nulls:
                yield Stretch(has_key=False, is_beyond=False)

    def _position(self, row: AnyRow) -> Position:
        key = None if self.key is None else getattr(row, self.key.key)
        return Position(datetime.fromisoformat(key) if isinstance(key, str) else key, self.id_of(row))


@lru_cache(512)
def _range(order: Order, rows_of: AnySelect, stretch: Stretch, dialect: str) -> AnySelect:
    """The query for a stretch, made once: to make it takes longer than to run it."""
    columns: list[Column] = [order.id] if order.key is None else [order.key, order.id]
    if order.key is not None and not (stretch.has_key and stretch.is_beyond):
        rows_of = rows_of.where(order.key.is_not(None) if stretch.has_key else order.key.is_(None))
    if stretch.is_beyond:
        ranged = columns if stretch.has_key else [order.id]
        names = ["after_key", "after_id"][-len(ranged) :]
        position = tuple_(*(bindparam(name, type_=column.type) for name, column in zip(names, ranged, strict=True)))
        rows_of = rows_of.where(tuple_(*ranged) < position if order.descending else tuple_(*ranged) > position)
    if order.key is not None and not stretch.has_key and dialect == "sqlite":
        columns = [order.id]  # it sorts by a key that is NULL; PostgreSQL sorts unless the key stands there
    if order.is_hidden:
        columns = [func.coalesce(column, column) for column in columns]
    ordered = rows_of.order_by(*(column.desc() if order.descending else column.asc() for column in columns))
    return ordered.limit(bindparam("limit", type_=Integer))


def _encode(position: Position, context: str) -> str:
    microseconds = None if position.key is None else (position.key - EPOCH) // MICROSECOND
    content = json.dumps([_digest(context), microseconds, position.id]).encode()
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def _decode(cursor: str, context: str, parse_id: Callable[[str], str] = _parse_uuid) -> Position:
    try:
        digest, microseconds, id_ = json.loads(urlsafe_b64decode(cursor + "=="))
        key = None if microseconds is None else EPOCH + microseconds * MICROSECOND
        position = Position(key, parse_id(id_))
        if digest != _digest(context) or _encode(position, context) != cursor:
            raise BadCursor
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BadCursor from error
    return position


def _digest(context: str) -> str:
    return hashlib.sha256(context.encode()).hexdigest()[:16]
