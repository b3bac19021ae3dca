"""What every table is declared with: the column types that PostgreSQL and SQLite share, and ids."""

import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Path
from pydantic import BeforeValidator, Field
from sqlalchemy import (
    CHAR,
    DateTime,
    Dialect,
    MetaData,
    SQLColumnExpression,
    String,
    TypeDecorator,
    Uuid,
    type_coerce,
)
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, mapped_column
from sqlalchemy.types import TypeEngine

from app.clock import EPOCH, MICROSECOND


class Text(TypeDecorator[str]):
    """Text that is the same on both: PostgreSQL cannot store NUL, so neither does."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        if value is not None and "\0" in value:
            raise ValueError("text with NUL")
        return value


WITHOUT_NUL: Final = r"^[^\x00]*$"
StorableText = Annotated[str, Field(pattern=WITHOUT_NUL)]
"""What `Text` takes, for schemas."""


def _is_decimal(value: object) -> object:
    """pydantic takes underscores, spaces and `1.0` too."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,19}", value):
        raise ValueError("must be a whole number, in digits")
    return value


Digits = Annotated[int, BeforeValidator(_is_decimal)]
"""A whole number in a URL."""


class UTCDateTime(TypeDecorator[datetime]):
    """An aware time in UTC; on SQLite the text `YYYY-MM-DDTHH:MM:SS.ffffffZ`, which sorts as the times do."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return CHAR(27) if dialect.name == "sqlite" else self.impl_instance

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive time")
        if dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:  # noqa: ARG002
        """None where the driver's values are right already: a function that did nothing would be called for each."""
        return self.from_text if dialect.name == "sqlite" else None

    def from_text(self, value: str | None) -> Any:
        return None if value is None else datetime.fromisoformat(value)


class JSONTime(UTCDateTime):
    """A time on its way into JSON: SQLite's text goes out as it is, in the form that a datetime is given there."""

    cache_ok = True

    def from_text(self, value: str | None) -> Any:
        return None if value is None else value.replace(".000000Z", "Z")


def as_json(column: InstrumentedAttribute[Any]) -> SQLColumnExpression[Any]:
    """A column whose values go into JSON as the database has them: see `JSONTime`."""
    return type_coerce(column, JSONTime) if isinstance(column.type, UTCDateTime) else column


Id = Uuid(as_uuid=False).with_variant(CHAR(36), "sqlite")
"""A UUID, in Python its 36 characters; native on PostgreSQL."""

PathId = Annotated[
    str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", json_schema_extra={"format": "uuid"})
]
"""An id in a URL: the one spelling that we send out."""

PrimaryKey = Annotated[str, mapped_column(Id, primary_key=True)]


def new_id(now: datetime) -> str:
    """Make a UUIDv7 (RFC 9562 §5.7), with microseconds in `rand_a` (§6.2, method 3): ids sort as their times do."""
    milliseconds, microseconds = divmod((now - EPOCH) // MICROSECOND, 1000)
    head = milliseconds << 16 | 7 << 12 | microseconds * 4096 // 1000
    return str(UUID(int=head << 64 | 2 << 62 | secrets.randbits(62)))


class Base(DeclarativeBase):
    """Declares the tables; there is no ORM session, and no row is ever an entity."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Text, datetime: UTCDateTime}  # noqa: RUF012
