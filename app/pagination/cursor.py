"""Cursors: the position where a page of a list ended, as text that a client sends back."""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Final, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter
from sqlalchemy import BigInteger, Boolean, ColumnElement, Enum, Integer, SmallInteger, String, Uuid
from sqlalchemy.orm import InstrumentedAttribute

from app.clock import EPOCH, MICROSECOND
from app.db.types import Text, UTCDateTime
from app.errors import InvalidInput
from app.http.fields import PathId, StorableText

Column = InstrumentedAttribute[Any] | ColumnElement[Any]

ENCODE: Final = json.JSONEncoder(ensure_ascii=False).encode
MAX_CURSOR: Final = 2048  # characters
MAX_TEXT: Final = 240  # characters of a column. JSON may need six bytes for one, and base64 a third more


class BadCursor(InvalidInput):
    loc = ("query", "cursor")
    detail = "is not a cursor of this list, sort and filter"
    code = "bad_cursor"


class Codec(NamedTuple):
    """How a cursor holds the values of a column."""

    dump: Callable[[Any], Any]
    parse: Callable[[Any], Any]
    """Raises ValueError or OverflowError for a value that the column cannot have."""


class Position(NamedTuple):
    """The last row of a page: its key, None where that is NULL or the order has none, and its id."""

    key: Any
    id: Any


def encode_cursor(context: str, position: Position, key: Codec | None, id_: Codec) -> str:
    """Write a position as a cursor that is good for `context` only: a list, its sort and its filters."""
    dumped_key = None if key is None or position.key is None else key.dump(position.key)
    return _encode(context, dumped_key, id_.dump(position.id))


def decode_cursor(context: str, cursor: str, key: Codec | None, id_: Codec) -> Position:
    """Read a position. Raises BadCursor."""
    try:
        _, dumped_key, dumped_id = json.loads(urlsafe_b64decode(cursor + "=="))
        if _encode(context, dumped_key, dumped_id) != cursor or (key is None and dumped_key is not None):
            raise BadCursor
        return Position(key.parse(dumped_key) if key and dumped_key is not None else None, id_.parse(dumped_id))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadCursor from error


@lru_cache(512)
def codec_of(column: Column) -> Codec:
    """Find how a cursor holds the values of a column, by its type. Raises TypeError: no cursor can hold them."""
    match column.type:
        case UTCDateTime():
            parse = _integer(64)
            return Codec(_dump_time, lambda value: EPOCH + parse(value) * MICROSECOND)
        case Uuid():
            return Codec(str, _strictly(PathId))
        case Boolean():
            return Codec(bool, _strictly(bool))
        case Integer() as type_:
            bits = 16 if isinstance(type_, SmallInteger) else 64 if isinstance(type_, BigInteger) else 32
            return Codec(int, _integer(bits))
        case Text() | String() as type_ if not isinstance(type_, Enum) and type_.length and type_.length <= MAX_TEXT:
            return Codec(str, _strictly(StorableText))
    raise TypeError(
        f"a list cannot be sorted by {column} of type {column.type!r}: a cursor holds a time, a UUID, a boolean, an "
        f"integer, or text of at most {MAX_TEXT} characters. case() ranks values, type_coerce() gives a type"
    )


def _encode(context: str, key: Any, id_: Any) -> str:
    digest = hashlib.sha256(context.encode()).hexdigest()[:16]
    content = ENCODE([digest, key, id_]).encode()
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def _dump_time(value: datetime | str) -> int:
    """SQLite's times come as text where they go into JSON as they are stored."""
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return (time - EPOCH) // MICROSECOND


def _strictly(type_: Any) -> Callable[[Any], Any]:
    return TypeAdapter(type_, config=ConfigDict(strict=True)).validate_python


def _integer(bits: int) -> Callable[[Any], Any]:
    return _strictly(Annotated[int, Field(ge=-(2 ** (bits - 1)), lt=2 ** (bits - 1))])
