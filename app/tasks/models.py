"""The table of tasks."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, false
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column

from app.auth.models import User
from app.db.types import Base, Id, PrimaryKey, Text


class Task(Base):
    __tablename__ = "tasks"

    id: Mapped[PrimaryKey]
    owner_id: Mapped[str] = mapped_column(Id, ForeignKey(User.id, ondelete="CASCADE"))
    title: Mapped[str] = mapped_column(Text(200))
    description: Mapped[str | None] = mapped_column(Text(10_000))
    status: Mapped[str] = mapped_column(Text(8))
    due_at: Mapped[datetime | None]
    is_public: Mapped[bool] = mapped_column(server_default=false())
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(server_default="1", doc="The number of changes, from 1. It is the ETag.")
    idempotency_key: Mapped[str | None] = mapped_column(Text(255))
    idempotency_hash: Mapped[str | None] = mapped_column(String(64), doc="SHA-256 of the body that came with the key.")
    words: Mapped[str | None] = mapped_column(
        Text().with_variant(TSVECTOR(), "postgresql"),
        doc="The words of title and description. NULL if a version without search wrote the row.",
    )

    __table_args__ = (CheckConstraint("status IN ('todo', 'doing', 'done')", name="status"),)


# Each sort order of each list has an index, and so has each list within a status. A page is one range of one index,
# however many tasks there are. The indexes of the public list have public tasks only. An insert writes ten indexes at
# most: these, that of the ids, and that of the words. An Idempotency-Key is one more.
LIST_KEYS: tuple[tuple[InstrumentedAttribute[Any], ...], ...] = (
    (Task.id,),
    (Task.due_at, Task.id),
    (Task.updated_at, Task.id),
    (Task.status, Task.id),
)
for columns in LIST_KEYS:
    Index(None, Task.owner_id, *columns)
    name = "_".join(["ix_tasks_public", *(column.key for column in columns)])
    Index(name, *columns, sqlite_where=Task.is_public, postgresql_where=Task.is_public)
HAS_WORDS = Task.words.is_not(None)
Index("ix_tasks_words", Task.words, postgresql_using="gin", postgresql_where=HAS_WORDS).ddl_if(dialect="postgresql")
Index("ix_tasks_without_words", Task.id, sqlite_where=~HAS_WORDS, postgresql_where=~HAS_WORDS)
HAS_KEY = Task.idempotency_key.is_not(None)
Index(
    "uq_tasks_owner_id_idempotency_key",
    Task.owner_id,
    Task.idempotency_key,
    unique=True,
    sqlite_where=HAS_KEY,
    postgresql_where=HAS_KEY,
)
