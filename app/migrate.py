"""Bring a database up to date: its schema, and what is written down of rows that were there before."""

from app.database import Database
from app.migrations import is_current, upgrade
from app.tasks.search import write_words

BATCH = 1_000  # tasks


async def bring_up_to_date(database: Database) -> None:
    """Words are written down a few tasks at a time, so that nobody waits for it; until then no search finds these."""
    if not await database.read(is_current):
        await database.write(upgrade)
    while await database.write(write_words, BATCH):
        pass
