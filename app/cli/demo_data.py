"""python -m app demo: a service with something on its pages."""

import random
import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from time import monotonic
from typing import Annotated, Any

import typer
from sqlalchemy import Connection, select, text

from app.auth.models import User
from app.cli.run import hashed, with_database
from app.clock import utc_now
from app.config import load_settings
from app.db.database import Database
from app.db.types import new_id
from app.tasks.search import index_text
from app.tasks.service import insert_tasks
from app.users.service import insert_users

BATCH = 500  # rows a transaction
A_YEAR = timedelta(days=365)
VERBS = ("Water", "Paint", "Repair", "Sell", "Collect", "Sort", "Wash", "Photograph", "Return", "Measure", "Wrap")
THINGS = ("plants", "fence", "bicycle", "piano", "books", "curtains", "firewood", "parcel", "knives", "ladder", "kite")
PLACES = ("at home", "in the cellar", "next door", "in Lisbon", "behind the house", "on the balcony", "at the market")
REASONS = ("Before the guests arrive.", "It has waited long enough.", "Ask Ada first.", "The weather will not last.")
STATUSES = ("todo", "doing", "done")

cli = typer.Typer()


@cli.command()
def demo(
    users: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many users to make.")] = 10,
    tasks: Annotated[int, typer.Option(min=0, help="How many tasks they have between them.")] = 1_000,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, even where the database has other accounts.")] = False,
) -> None:
    """Make users and tasks to look at. The users share one password, which is printed and kept nowhere else."""
    settings = load_settings()
    if not yes and with_database(settings, lambda database: database.read(_has_others)):
        typer.confirm("The database has accounts of others. Add users with one printed password?", abort=True)
    password, tag = secrets.token_urlsafe(12), secrets.token_hex(2)
    typer.echo(f"The users, demo-{tag}-1 and so on, log in with:")
    typer.echo(f"  curl {settings.public_url}/auth/token -F username=demo-{tag}-1 -F password={password}")
    began = monotonic()
    with_database(settings, lambda database: _fill(database, password, tag, users, tasks))
    rate = (users + tasks) / (monotonic() - began)
    typer.echo(f"Made {users:,} of them, and {tasks:,} tasks: {rate:,.0f} a second.")


async def _fill(database: Database, password: str, tag: str, users: int, tasks: int) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn  # noqa: PLC0415 - slow

    now = utc_now()
    password_hash = await hashed(password, "")
    user_ids = [new_id(now - A_YEAR) for _ in range(users)]
    made = ((insert_users, _users(user_ids, tag, password_hash, now)), (insert_tasks, _tasks(user_ids, tasks, now)))
    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task("", total=users + tasks)
        for insert, rows in made:
            while batch := list(islice(rows, BATCH)):
                await database.write(insert, batch)
                progress.advance(bar, len(batch))
    if database.dialect == "postgresql":
        await database.write(_analyze)


def _has_others(connection: Connection) -> bool:
    others = select(User.id).where(User.username.not_like("demo-%")).limit(1)
    return connection.execute(others).one_or_none() is not None


def _users(user_ids: list[str], tag: str, password_hash: str, now: datetime) -> Iterator[dict[str, Any]]:
    times = {"created_at": now - A_YEAR, "updated_at": now - A_YEAR}
    for number, user_id in enumerate(user_ids, 1):
        yield {"id": user_id, "username": f"demo-{tag}-{number}", "password_hash": password_hash, **times}


def _tasks(user_ids: list[str], count: int, now: datetime) -> Iterator[dict[str, Any]]:
    """One after the other over the last year; one in four is public, and two in three have a due date."""
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


def _analyze(connection: Connection) -> None:  # pragma: no cover - in a greenlet alone
    """Let PostgreSQL know at once how much there is by now, and of what."""
    connection.execute(text("ANALYZE users, tasks"))
