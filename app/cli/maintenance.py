"""python -m app migrate, check, purge, demo."""

import secrets
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.db.database import Database


def migrate() -> None:
    """Bring the database's schema to the newest migration, and index the tasks that older versions made for search.

    It may run while the service does. It leaves the schema of a newer version alone.
    """
    from app.cli.run import with_database
    from app.config import read_settings
    from app.db.migrations import bring_up_to_date
    from app.db.url import dropped_parameters
    from app.tasks.search import BACKFILL

    settings = read_settings()
    for message in dropped_parameters("DATABASE_URL", settings.database):
        typer.echo(f"warning: {message}", err=True)

    async def run(database: "Database") -> bool:
        if database.dialect == "postgresql":
            await database.check_writable()
        return await bring_up_to_date(database, settings.database, BACKFILL)

    if with_database(settings, run, migrates=False):
        typer.echo("The schema is at the newest migration, and searches find every task.")
    else:
        typer.echo("The schema is newer than this version, which works with it: there is nothing to do.")


def check(
    processes: Annotated[int, typer.Option(min=1, help="The number of processes that serve, on all hosts.")] = 1,
) -> None:
    """Examine this installation. Print each fault with its remedy, and exit with 1 if there is one."""
    from app.cli.diagnosis import diagnose
    from app.clock import utc_now

    faults = diagnose(utc_now, processes)
    for what, remedy in faults:
        typer.echo(f"- {what}\n  {remedy}")
    if faults:
        raise typer.Exit(1)
    typer.echo("Nothing is wrong.")


def purge(
    keep_days: Annotated[int, typer.Option(min=0, max=36_500, help="Keep ended sessions for so many days.")] = 30,
) -> None:
    """Delete ended sessions, expired counters, old events and the remains of deleted accounts, in batches."""
    from app.auth.account_events import purge_events
    from app.auth.counters import purge_counts
    from app.auth.sessions import purge_sessions
    from app.cli.run import with_database
    from app.clock import utc_now
    from app.config import read_settings
    from app.db.batches import in_batches, total
    from app.users.deletion import delete_ended

    async def run(database: "Database") -> None:
        now = utc_now()
        sessions = await total(in_batches(database, purge_sessions(now - timedelta(days=keep_days))))
        counts = await total(in_batches(database, purge_counts, now))
        events = await total(in_batches(database, purge_events(now)))
        await total(delete_ended(database))
        typer.echo(f"Purged {sessions} sessions, {counts} counts and {events} events.")

    with_database(read_settings(), run)


def demo(
    users: Annotated[int, typer.Option(min=1, max=1_000_000, help="The number of users to make.")] = 10,
    tasks: Annotated[int, typer.Option(min=0, help="The number of tasks to share out among them.")] = 1_000,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask if the database has other accounts.")] = False,
) -> None:
    """Make users and tasks to look at. All users get one password, which is printed and stored nowhere else."""
    from app.cli.demo_data import fill, has_other_users
    from app.cli.run import with_database
    from app.config import read_settings

    settings = read_settings()
    if not yes and with_database(settings, lambda database: database.read(has_other_users)):
        typer.confirm("The database has other accounts. Add users with one printed password?", abort=True)
    password, tag = secrets.token_urlsafe(12), secrets.token_hex(2)
    typer.echo(f"The users, demo-{tag}-1 and so on, log in with:")
    typer.echo(f"  curl {settings.public_url}/auth/token -F username=demo-{tag}-1 -F password={password}")
    began = monotonic()
    with_database(settings, lambda database: fill(database, password, tag, users, tasks))
    rate = (users + tasks) / (monotonic() - began)
    typer.echo(f"Made {users:,} users and {tasks:,} tasks: {rate:,.0f} rows a second.")
