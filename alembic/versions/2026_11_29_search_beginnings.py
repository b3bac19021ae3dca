"""Beginnings of words in SQLite's index, and new words for some tasks.

Revision: 0009
Revises: 0008

The rules for words have changed for some letters and marks. This migration deletes the words of the tasks that have one
of these, and a backfill writes them again. All other tasks keep their words, which are the same by both rules.
"""

import sqlalchemy as sa
from alembic import op

from app.db.ddl import execute_after

revision = "0009"
down_revision = "0008"

# Letters with strokes; Hebrew and Arabic; scripts without spaces; characters of format. With some of their neighbours.
CHANGED = (
    "\u00ad\u00c6\u00d0\u00d8\u00de\u00e6\u00f0\u00f8\u00fe\u0110-\u0111\u0126-\u0127\u0130-\u0131\u0138\u0141-\u0142"
    "\u014a-\u014b\u0152-\u0153\u0166-\u0167\u0180-\u02b8\u0591-\u08ff\u0e00-\u0eff\u1000-\u109f\u1780-\u180e\u1950-\u19ff"
    "\u1a20-\u1aaf\u1d00-\u1dbf\u1e9a-\u1e9f\u1efa-\u1eff\u200c-\u200f\u210f\u202a-\u202e\u2060-\u206f\u2c60-\u2c7f\ua720-\ua7ff"
    "\ua9e0-\ua9ff\uaa60-\uaadf\uab30-\uab6f\ufb1d-\ufdff\ufe70-\ufeff\ufff9-\ufffb\U000110bd-\U000110cd"
    "\U00010780-\U000107bf\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U0001d6a4-\U0001d6a5\U0001df00-\U0001dfff"
    "\U0001ee00-\U0001eeff\U000e0001-\U000e007f"
)
TEXTS = "coalesce(title || description, title)"
HAS_CHANGED = {  # SQLite compares each character with each range, but can tell at once where there is but ASCII
    "sqlite": f"length(CAST({TEXTS} AS BLOB)) > length({TEXTS}) AND {TEXTS} GLOB '*[{CHANGED}]*'",
    "postgresql": f"{TEXTS} ~ '[{CHANGED}]'",
}
WRITE_AGAIN = "UPDATE tasks SET words = NULL WHERE words IS NOT NULL AND "
IN_BATCHES = f"""
DO $$
DECLARE
    last uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
    LOOP
        WITH batch AS (SELECT id FROM tasks WHERE id > last ORDER BY id LIMIT 1000),
            changed AS ({WRITE_AGAIN}{HAS_CHANGED["postgresql"]} AND id IN (SELECT id FROM batch))
        SELECT (array_agg(id ORDER BY id DESC))[1] INTO last FROM batch;
        EXIT WHEN last IS NULL;
        COMMIT;
    END LOOP;
END $$"""  # noqa: S608 - of constants
MAKE_INDEX = (
    "CREATE VIRTUAL TABLE task_words USING fts5 "
    "(words, content='', columnsize=0, detail=none, tokenize='ascii tokenchars ''_-'''{})"
)
FILL_INDEX = (
    "INSERT INTO task_words (rowid, words) "
    "SELECT number, words || '_' || owner_id || CASE WHEN is_public THEN ' _public' ELSE '' END "
    "FROM tasks JOIN task_numbers ON task_id = id WHERE words IS NOT NULL ORDER BY number"
)


def upgrade() -> None:
    dialect = op.get_context().dialect.name
    at_once = WRITE_AGAIN + HAS_CHANGED[dialect]
    if dialect == "postgresql":  # a writer waits for one batch at most
        execute_after(IN_BATCHES, at_once)
    else:
        op.execute(at_once)
        _make_index(", prefix='1 2 3'")


def downgrade() -> None:
    """Keep the words of the new rules, because the older version finds them too."""
    if op.get_context().dialect.name == "sqlite":
        _make_index("")


def _make_index(options: str) -> None:
    """Replace the index of words, because FTS5 takes options only when it makes one."""
    op.execute("DROP TABLE task_words")
    op.execute(MAKE_INDEX.format(options))
    op.execute(FILL_INDEX)
