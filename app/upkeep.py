"""What an upgrade leaves to be done: the migrations, and then what is written down of older rows."""

from app.database import Database
from app.migrations import is_current, upgrade
from app.tasks.search import lacks_words, write_words

BATCH = 1_000  # tasks


async def bring_up_to_date(database: Database) -> int:
    """Migrate, and write down the words of tasks that no search finds yet; how many there were.

    These are written a few at a time, so that nobody else waits for it.
    """
    if not await database.read(is_current):
        await database.write(upgrade)
    count = 0
    while await database.read(lacks_words):
        count += await database.write(write_words, BATCH)
    return count
