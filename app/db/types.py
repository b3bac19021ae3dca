"""The types of columns, which SQLite and PostgreSQL share, ids, and the base of the tables."""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from sqlalchemy import CHAR, DateTime, Dialect, MetaData, SQLColumnExpression, String, TypeDecorator, Uuid, type_coerce
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, mapped_column
from sqlalchemy.types import TypeEngine

from app.clock import EPOCH, MICROSECOND


class Text(TypeDecorator[str]):
    """Text that is the same on both databases: PostgreSQL cannot store NUL, so NUL is refused on both."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        if value is not None and "\0" in value:
            raise ValueError("text with NUL")
        return value


class UTCDateTime(TypeDecorator[datetime]):
    """An aware time in UTC. On SQLite it is the text `YYYY-MM-DDTHH:MM:SS.ffffffZ`, which sorts as the times do."""

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
        """Return None where the driver's values are right, because SQLAlchemy calls a function for each value."""
        return self.from_text if dialect.name == "sqlite" else None

    def from_text(self, value: str | None) -> Any:
        return None if value is None else datetime.fromisoformat(value)


class JSONTime(UTCDateTime):
    """A time for JSON. SQLite's text is in the form that JSON wants, so it is not parsed."""

    cache_ok = True

    def from_text(self, value: str | None) -> Any:
        return None if value is None else value.replace(".000000Z", "Z")


def as_json(column: InstrumentedAttribute[Any]) -> SQLColumnExpression[Any]:
    """Select a column for JSON, times as `JSONTime`."""
    return type_coerce(column, JSONTime) if isinstance(column.type, UTCDateTime) else column


Id = Uuid(as_uuid=False).with_variant(CHAR(36), "sqlite")
"""A UUID. In Python it is a text of 36 characters."""

PrimaryKey = Annotated[str, mapped_column(Id, primary_key=True)]

NO_ID: Final = "00000000-0000-0000-0000-000000000000"
"""No row has it, and it sorts before each other id."""


def new_id(now: datetime) -> str:
    """Make a UUIDv7 (RFC 9562 §5.7), with microseconds in `rand_a` (§6.2, method 3): ids sort as their times do."""
    milliseconds, microseconds = divmod((now - EPOCH) // MICROSECOND, 1000)
    head = milliseconds << 16 | 7 << 12 | microseconds * 4096 // 1000
    return str(UUID(int=head << 64 | 2 << 62 | secrets.randbits(62)))


class Base(DeclarativeBase):
    """The base of the tables. Statements return plain rows: there is no ORM session."""

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
