"""The words of tasks, and an index of them.

Revision: 0005
Revises: 0004

They are those that the service finds now, not what it found when this was written: a search must find the same.
"""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import TSVECTOR

from app.tasks.search import spell_words

revision = "0005"
down_revision = "0004"

AT_ONCE = 1_000  # rows
ID = sa.Uuid(as_uuid=False).with_variant(sa.CHAR(36), "sqlite")
WORDS = sa.String().with_variant(TSVECTOR(), "postgresql")
TASKS = sa.table("tasks", sa.column("id", ID), sa.column("title"), sa.column("description"), sa.column("words", WORDS))

# FTS5 keeps no text here, and must be told what it was to forget it. A token of ours has a `_`, which no word has.
SELECT = (
    "SELECT number, {0}.words || '_' || {0}.owner_id || CASE WHEN {0}.is_public THEN ' _public' ELSE '' END "
    "FROM task_numbers WHERE task_id = {0}.id"
)
INSERT = "INSERT INTO task_words (rowid, words) "
REMEMBER = INSERT + SELECT.format("new")
FORGET = "INSERT INTO task_words (rowid, words, task_words) " + SELECT.format("old").replace(" FROM", ", 'delete' FROM")
ON_SQLITE = (
    "CREATE TABLE task_numbers (number INTEGER NOT NULL PRIMARY KEY, task_id CHAR(36) NOT NULL UNIQUE)",
    (
        "CREATE VIRTUAL TABLE task_words USING fts5 "
        "(words, content='', columnsize=0, detail=none, tokenize='ascii tokenchars ''_-''')"
    ),
    "INSERT INTO task_numbers (task_id) SELECT id FROM tasks ORDER BY id",
    INSERT + SELECT.format("tasks").replace("task_numbers WHERE", "task_numbers JOIN tasks ON"),
    "INSERT INTO task_words (task_words) VALUES ('optimize')",
)
TRIGGERS = {
    "INSERT": ("INSERT INTO task_numbers (task_id) VALUES (new.id)", REMEMBER),
    "UPDATE OF words, is_public": (FORGET, REMEMBER),
    "DELETE": (FORGET, "DELETE FROM task_numbers WHERE task_id = old.id"),
}


def upgrade() -> None:
    op.add_column("tasks", sa.Column("words", WORDS, server_default="", nullable=False))
    if not context.is_offline_mode():  # where there are no rows to read
        change = sa.update(TASKS).where(TASKS.c.id == sa.bindparam("task_id")).values(words=sa.bindparam("new_words"))
        for words in _words():
            op.get_bind().execute(change, words)
    if op.get_context().dialect.name == "postgresql":
        op.create_index("ix_tasks_words", "tasks", ["words"], postgresql_using="gin")
        return
    for statement in ON_SQLITE:
        op.execute(statement)
    for change_of, statements in TRIGGERS.items():
        op.execute(f"CREATE TRIGGER {_name(change_of)} AFTER {change_of} ON tasks BEGIN {'; '.join(statements)}; END")


def downgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        for change_of in TRIGGERS:
            op.execute(f"DROP TRIGGER {_name(change_of)}")
        for table in "task_words", "task_numbers":
            op.drop_table(table)
    op.drop_column("tasks", "words")


def _words() -> Iterator[list[dict[str, Any]]]:
    """Those of all tasks, some at a time."""
    texts = sa.select(TASKS.c.id, TASKS.c.title, TASKS.c.description).order_by(TASKS.c.id).limit(AT_ONCE)
    tasks = op.get_bind().execute(texts).all()
    while tasks:
        yield [{"task_id": task.id, "new_words": spell_words(task.title, task.description)} for task in tasks]
        tasks = op.get_bind().execute(texts.where(TASKS.c.id > tasks[-1].id)).all()


def _name(change_of: str) -> str:
    return f"tasks_{change_of.split(maxsplit=1)[0].lower()}"
