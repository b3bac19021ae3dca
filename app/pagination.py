"""Keyset pages: a cursor in, the items and the next cursor out. Page 1,000 costs what page 1 costs."""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from fastapi import Request, Response
from pydantic import BaseModel, Field
from pydantic_core import to_json
from sqlalchemy import ColumnElement, Connection, SQLColumnExpression, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from app.clock import EPOCH, MICROSECOND
from app.database import AnyRow, AnySelect
from app.errors import InvalidInput

Item = TypeVar("Item")


class PageQuery(BaseModel):
    """Which page of a list. Lists with filters and sorts derive from it."""

    limit: int = Field(20, ge=1, le=100, description="The most items to answer with.")
    cursor: str | None = Field(None, max_length=512, description="The `next_cursor` of the page before.")

    def context(self, name: str) -> str:
        """What a cursor is good for: the same list, by name, in the same order through the same filters."""
        return name + self.model_dump_json(exclude={"limit", "cursor"})


class PageOf(BaseModel, Generic[Item]):
    items: list[Item]
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last.")


class BadCursor(InvalidInput):
    def __init__(self) -> None:
        super().__init__(("query", "cursor"), "is not a cursor of this list, sort and filter")


class Page(NamedTuple):
    rows: list[AnyRow]
    next_cursor: str | None

    def response(self, request: Request) -> Response:
        """`PageOf` the rows as JSON, with RFC 8288's `Link` to the next page. Rows become bytes once, unvalidated."""
        body = to_json({"items": [row._asdict() for row in self.rows], "next_cursor": self.next_cursor})
        response = Response(body, media_type="application/json")
        if self.next_cursor:
            url = request.url.include_query_params(cursor=self.next_cursor)
            response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
        return response


class Position(NamedTuple):
    """Where a page ended: its last row's key, None where that is NULL or the order has none, and id."""

    key: datetime | None
    id: str


@dataclass(frozen=True, slots=True)
class Order:
    """An order of rows that a page can go on in: by a time and then by id; or by id alone, which is by creation.

    Rows whose time is NULL come last in either direction.
    """

    id: InstrumentedAttribute[str]
    key: InstrumentedAttribute[Any] | None = None
    descending: bool = False

    def page(self, connection: Connection, rows_of: AnySelect, query: PageQuery, name: str) -> Page:
        """Read one page of the list of that name.

        Raises:
            BadCursor: the cursor is not of this list in this order with these filters.
        """
        context = query.context(name)
        rows: list[AnyRow] = []
        for stretch in self._stretches(_decode(query.cursor, context) if query.cursor is not None else None):
            ordered = rows_of.where(*stretch).order_by(*self._columns())
            rows += connection.execute(ordered.limit(query.limit + 1 - len(rows)))
            if len(rows) > query.limit:
                return Page(rows[: query.limit], _encode(self._position(rows[query.limit - 1]), context))
        return Page(rows, None)

    def _columns(self) -> list[ColumnElement[Any]]:
        columns = [self.id] if self.key is None else [self.key, self.id]
        return [column.desc() if self.descending else column.asc() for column in columns]

    def _stretches(self, after: Position | None) -> Iterator[list[ColumnElement[bool]]]:
        """The conditions of each stretch of the order in turn, each of them one range of an index on (…, key, id)."""
        beyond_id = [self._beyond(self.id, after.id)] if after else []
        if self.key is None:
            yield beyond_id
        elif after and after.key is None:
            yield [self.key.is_(None), *beyond_id]
        else:
            yield [self._beyond(tuple_(self.key, self.id), tuple(after))] if after else [self.key.is_not(None)]
            yield [self.key.is_(None)]

    def _beyond(self, column: SQLColumnExpression[Any], value: object) -> ColumnElement[bool]:
        return column < value if self.descending else column > value

    def _position(self, row: AnyRow) -> Position:
        return Position(None if self.key is None else getattr(row, self.key.key), row.id)


def _encode(position: Position, context: str) -> str:
    microseconds = None if position.key is None else (position.key - EPOCH) // MICROSECOND
    return urlsafe_b64encode(json.dumps([_digest(context), microseconds, position.id]).encode()).decode()


def _decode(cursor: str, context: str) -> Position:
    try:
        digest, microseconds, id_ = json.loads(urlsafe_b64decode(cursor))
        key = None if microseconds is None else EPOCH + microseconds * MICROSECOND
        position = Position(key, str(UUID(id_)))
        if digest != _digest(context) or _encode(position, context) != cursor:
            raise BadCursor
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BadCursor from error
    return position


def _digest(context: str) -> str:
    return hashlib.sha256(context.encode()).hexdigest()[:16]
