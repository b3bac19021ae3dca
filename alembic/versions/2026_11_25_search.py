"""The words of tasks, and an index of them.

Revision: 0005
Revises: 0004

Older tasks have no words at first. A backfill writes them in batches, so that no writer waits for all of them.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

from app.tasks.triggers import TRIGGERS

revision = "0005"
down_revision = "0004"

WORDS = sa.String().with_variant(TSVECTOR(), "postgresql")

ON_SQLITE = (
    "CREATE TABLE task_numbers (number INTEGER NOT NULL PRIMARY KEY, task_id CHAR(36) NOT NULL UNIQUE)",
    (
        "CREATE VIRTUAL TABLE task_words USING fts5 "
        "(words, content='', columnsize=0, detail=none, tokenize='ascii tokenchars ''_-''')"
    ),
    "INSERT INTO task_numbers (task_id) SELECT id FROM tasks ORDER BY id",
)


def upgrade() -> None:
    op.add_column("tasks", sa.Column("words", WORDS))
    without = sa.text("words IS NULL")
    op.create_index("ix_tasks_without_words", "tasks", ["id"], sqlite_where=without, postgresql_where=without)
    if op.get_context().dialect.name == "postgresql":
        has_words = sa.text("words IS NOT NULL")
        op.create_index("ix_tasks_words", "tasks", ["words"], postgresql_using="gin", postgresql_where=has_words)
        return
    for statement in (*ON_SQLITE, *TRIGGERS.values()):
        op.execute(statement)


def downgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        for name in TRIGGERS:
            op.execute(f"DROP TRIGGER {name}")
        for table in "task_words", "task_numbers":
            op.drop_table(table)
    op.drop_index("ix_tasks_without_words")
    op.drop_column("tasks", "words")
