"""Sort orders, and their pages. A page is read by its position in the order: page 1,000 costs what page 1 costs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import Integer, bindparam, func, tuple_

from app.db.database import AnyConnection, AnyRow, AnySelect
from app.pagination.cursor import Codec, Column, Position, codec_of, decode_cursor, encode_cursor
from app.pagination.page import MAX_BYTES, Page, PageQuery

CHUNK = 32  # rows that are read before their size is looked at


class IndexRange(NamedTuple):
    """A part of a sort order that is one range of an index on (…, key, id).

    Its rows have a key, or have NULL for it, or are all rows of an order without a key. It begins after the position of
    a cursor, or with the first row.
    """

    has_key: bool
    after_cursor: bool


@dataclass(frozen=True, slots=True, eq=False)
class SortOrder:
    """An order of rows: by a key and then by id, or by id alone. Rows whose key is NULL come last in either direction.

    The key is any column, or expression, that a cursor can hold: see `codec_of`. Make an order once, as a constant: the
    queries for it are kept. `id_of` and `key_of` read the id and the key from a row. A column needs no `key_of`.

    Raises TypeError: no cursor can hold the key or the id, or nothing says how to read the key from a row.
    """

    id: Column
    key: Column | None = None
    descending: bool = False
    id_of: Callable[[AnyRow], Any] = attrgetter("id")
    key_of: Callable[[AnyRow], Any] | None = None

    def __post_init__(self) -> None:
        self._codecs()
        if self.key is not None and self.key_of is None and not getattr(self.key, "key", None):
            raise TypeError(f"a row has no value of {self.key}: say how to read it, by `key_of`")

    def _codecs(self) -> tuple[Codec | None, Codec]:
        return None if self.key is None else codec_of(self.key), codec_of(self.id)

    def _position(self, row: AnyRow) -> Position:
        if self.key is None:
            return Position(None, self.id_of(row))
        return Position(self.key_of(row) if self.key_of else getattr(row, str(self.key.key)), self.id_of(row))

    def page(
        self,
        connection: AnyConnection,
        rows_of: AnySelect,
        query: PageQuery,
        name: str,
        values: Mapping[str, object],
        size_of: Callable[[AnyRow], int] = lambda _: 0,
        *,
        skip_nulls: bool = False,
        avoid_order_index: bool = False,
    ) -> Page:
        """Read one page of the list of this name: of the rows of a query, with the values of its parameters.

        `size_of` estimates the bytes of a row from below: rows beyond MAX_BYTES are not read. The last two are for
        speed. `skip_nulls`: the query finds no rows without a key. `avoid_order_index`: hide from the planner that an
        index has this order, so that it finds the rows first and sorts them.

        Raises BadCursor: the cursor is not of this list in this order with these filters.
        """
        context = query.context(name)
        after = decode_cursor(context, query.cursor, *self._codecs()) if query.cursor is not None else None
        position = {"after_key": after.key, "after_id": after.id} if after else {}
        rows: list[AnyRow] = []
        size = 0

        def cursor_after(row: AnyRow) -> str:
            return encode_cursor(context, self._position(row), *self._codecs())

        for part in self._ranges(after, skip_nulls=skip_nulls):
            statement = _range(self, rows_of, part, connection.dialect.name, avoid_order_index)
            limit = {"limit": query.limit + 1 - len(rows)}
            found = connection.execute(statement, {**values, **position, **limit})
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

    def _ranges(self, after: Position | None, *, skip_nulls: bool) -> Iterator[IndexRange]:
        after_cursor = after is not None
        if self.key is None or (after and after.key is None):
            yield IndexRange(has_key=False, after_cursor=after_cursor)
        else:
            yield IndexRange(has_key=True, after_cursor=after_cursor)
            if getattr(self.key, "nullable", True) and not skip_nulls:
                yield IndexRange(has_key=False, after_cursor=False)


@lru_cache(512)
def _range(order: SortOrder, rows_of: AnySelect, part: IndexRange, dialect: str, avoid_order_index: bool) -> AnySelect:
    """Make the query for a part of an order, once: to make it takes longer than to run it.

    Raises TypeError: the rows do not have the key that they are sorted by.
    """
    if order.key is not None and order.key_of is None and str(order.key.key) not in rows_of.exported_columns:
        raise TypeError(f"the list is sorted by {order.key}, and does not select it: add the column, or a `key_of`")
    columns: list[Column] = [order.id] if order.key is None else [order.key, order.id]
    if avoid_order_index:
        columns = [func.coalesce(column, column) for column in columns]
    if order.key is not None and not (part.has_key and part.after_cursor):
        rows_of = rows_of.where(columns[0].is_not(None) if part.has_key else columns[0].is_(None))
    if part.after_cursor:
        ranged = columns if part.has_key else columns[-1:]
        names = ["after_key", "after_id"][-len(ranged) :]
        position = tuple_(*(bindparam(name, type_=column.type) for name, column in zip(names, ranged, strict=True)))
        rows_of = rows_of.where(tuple_(*ranged) < position if order.descending else tuple_(*ranged) > position)
    if order.key is not None and not part.has_key and dialect == "sqlite":
        columns = columns[-1:]  # SQLite would sort by a key that is NULL; PostgreSQL would sort without it
    ordered = rows_of.order_by(*(column.desc() if order.descending else column.asc() for column in columns))
    return ordered.limit(bindparam("limit", type_=Integer))
