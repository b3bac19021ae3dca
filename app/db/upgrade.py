"""An upgrade of the database: the migrations, then a backfill."""

from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import URL, Connection

from app.db.batches import in_batches, total
from app.db.connect import connect
from app.db.database import Database
from app.db.migrations import PATIENCE, is_current, migrate


class Backfill(NamedTuple):
    """Work on older rows that takes too long for a migration. It runs in short transactions, so nobody waits long."""

    is_pending: Callable[[Connection], bool]
    batch: Callable[[Connection, int], int]
    """Works on so many rows at most, and returns their number."""


async def bring_up_to_date(database: Database, url: URL, backfill: Backfill) -> None:
    """Migrate, on a connection that waits longer than others. Then run the backfill, if it is pending."""
    if not await database.read(is_current):
        async with connect(url, PATIENCE) as patient:
            await migrate(patient)
    if await database.read(backfill.is_pending):
        await total(in_batches(database, backfill.batch))
