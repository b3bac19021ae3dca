"""What an upgrade leaves to be done: the migrations, and then what is written down of older rows."""

from app.database import Database
from app.migrations import is_current, upgrade
from app.tasks.search import lacks_words, write_words

BATCH = 1_000  # tasks


async def bring_up_to_date(database: Database) -> None:
    """Migrate, and write down the words of tasks that no search finds yet: a few at a time, so that nobody waits."""
    if not await database.read(is_current):
        await database.write(upgrade)
    while await database.read(lacks_words):
        await database.write(write_words, BATCH)
