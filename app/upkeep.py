"""What an upgrade leaves to be done: the migrations, and then what is written down of older rows."""

from sqlalchemy import URL

from app.db.batches import in_batches, total
from app.db.connect import connect
from app.db.database import Database
from app.db.migrations import PATIENCE, is_current, upgrade
from app.tasks.search import has_unindexed, index_batch


async def bring_up_to_date(database: Database, url: URL) -> None:
    """Migrate, and write down the words of tasks that no search finds yet: a few at a time, so that nobody waits.

    A migration may take longer than other writes, so it gets connections of its own.
    """
    if not await database.read(is_current):
        async with connect(url, PATIENCE) as patient:
            await patient.write(upgrade)
    if await database.read(has_unindexed):
        await total(in_batches(database, index_batch))
