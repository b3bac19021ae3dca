"""Users and tasks for a demonstration."""

import random
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from sqlalchemy import Connection, insert, select, text

from app.auth.models import User
from app.auth.passwords import Cost, Passwords
from app.clock import utc_now
from app.db.database import Database
from app.db.types import new_id
from app.tasks.models import Task
from app.tasks.words import index_text

A_YEAR = timedelta(days=365)
VERBS = ("Water", "Paint", "Repair", "Sell", "Collect", "Sort", "Wash", "Photograph", "Return", "Measure", "Wrap")
THINGS = ("plants", "fence", "bicycle", "piano", "books", "curtains", "firewood", "parcel", "knives", "ladder", "kite")
PLACES = ("at home", "in the cellar", "next door", "in Lisbon", "behind the house", "on the balcony", "at the market")
REASONS = ("Before the guests arrive.", "It has waited long enough.", "Ask Ada first.", "The weather will not last.")
STATUSES = ("todo", "doing", "done")


async def fill(database: Database, password: str, tag: str, users: int, tasks: int) -> None:
    now = utc_now()
    with closing(Passwords(Cost())) as passwords:
        password_hash = await passwords.hash(password, "", None, network="")
    user_ids = [new_id(now - A_YEAR) for _ in range(users)]
    common = {"password_hash": password_hash, "created_at": now - A_YEAR, "updated_at": now - A_YEAR}
    user_rows = ({"id": id_, "username": f"demo-{tag}-{number}", **common} for number, id_ in enumerate(user_ids, 1))
    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task("", total=users + tasks)
        for statement, rows in (insert(User), user_rows), (insert(Task), _tasks(user_ids, tasks, now)):
            while batch := list(islice(rows, 500)):
                await database.write(Connection.execute, statement, batch)
                progress.advance(bar, len(batch))
    if database.dialect == "postgresql":
        await database.write(Connection.execute, text("ANALYZE users, tasks"))  # for PostgreSQL's planner


def has_other_users(connection: Connection) -> bool:
    others = select(User.id).where(User.username.not_like("demo-%")).limit(1)
    return connection.execute(others).one_or_none() is not None


def _tasks(user_ids: list[str], count: int, now: datetime) -> Iterator[dict[str, Any]]:
    """Spread the tasks over the last year. One in four is public, and two in three have a due date."""
    chance = random.Random(count)  # noqa: S311 - not for secrets
    for number in range(count):
        created_at = now - A_YEAR * (count - number) / count
        title = " ".join([chance.choice(VERBS), "the", chance.choice(THINGS), chance.choice(PLACES)])
        description = chance.choice([None, f"{chance.choice(REASONS)} Number {number} of the demo."])
        yield {
            "id": new_id(created_at),
            "owner_id": user_ids[number % len(user_ids)],
            "title": title,
            "description": description,
            "words": index_text(title, description),
            "status": chance.choice(STATUSES),
            "due_at": created_at + timedelta(days=chance.randrange(1, 60)) if number % 3 else None,
            "is_public": number % 4 == 0,
            "created_at": created_at,
            "updated_at": created_at,
        }
