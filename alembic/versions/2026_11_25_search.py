"""The words of tasks, and an index of them.

Revision: 0005
Revises: 0004

Tasks have none at first. A backfill writes them down, some tasks at a time, so that nobody waits for all of them.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

revision = "0005"
down_revision = "0004"

WORDS = sa.String().with_variant(TSVECTOR(), "postgresql")

# FTS5 keeps no text here, and must be told what it was to forget it. A token of ours has a `_`, which no word has.
SELECT = (
    "SELECT number, {0}.words || '_' || {0}.owner_id || CASE WHEN {0}.is_public THEN ' _public' ELSE '' END "
    "FROM task_numbers WHERE task_id = {0}.id AND {0}.words IS NOT NULL"
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
)
TRIGGERS = {
    "INSERT": ("INSERT INTO task_numbers (task_id) VALUES (new.id)", REMEMBER),
    "UPDATE OF words, is_public": (FORGET, REMEMBER),
    "DELETE": (FORGET, "DELETE FROM task_numbers WHERE task_id = old.id"),
}


def upgrade() -> None:
    op.add_column("tasks", sa.Column("words", WORDS))
    without = sa.text("words IS NULL")
    op.create_index("ix_tasks_without_words", "tasks", ["id"], sqlite_where=without, postgresql_where=without)
    if op.get_context().dialect.name == "postgresql":
        has_words = sa.text("words IS NOT NULL")
        op.create_index("ix_tasks_words", "tasks", ["words"], postgresql_using="gin", postgresql_where=has_words)
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
    op.drop_index("ix_tasks_without_words")
    op.drop_column("tasks", "words")


def _name(change_of: str) -> str:
    return f"tasks_{change_of.split(maxsplit=1)[0].lower()}"
