"""python -m app purge."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.db.database import Database

BATCH = 1000


def purge(
    keep_days: Annotated[int, typer.Option(min=0, max=36_500, help="Keep ended sessions for so many days.")] = 30,
) -> None:
    """Delete ended sessions, expired counters and the remains of deleted accounts, in batches."""
    from app.auth.counters import purge_counts
    from app.auth.sessions import FIRST_ID, purge_sessions
    from app.cli.run import with_database
    from app.clock import utc_now
    from app.config import read_settings
    from app.db.batches import in_batches, total
    from app.users.deletion import delete_ended

    async def run(database: "Database") -> None:
        now = utc_now()
        last_id: str | None = FIRST_ID
        sessions = 0
        while last_id:
            last_id, purged = await database.write(purge_sessions, now - timedelta(days=keep_days), last_id, BATCH)
            sessions += purged
        counts = await total(in_batches(database, purge_counts, now))
        await total(delete_ended(database))
        typer.echo(f"Purged {sessions} sessions and {counts} counts.")

    with_database(read_settings(), run)
