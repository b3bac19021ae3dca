"""Helpers for commands that work on the database or on accounts."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import typer
from pydantic_core import to_json
from sqlalchemy import Connection

from app.auth.keys import secret_file
from app.auth.liveness import Moment
from app.auth.passwords import Cost
from app.auth.services import open_services
from app.auth.sessions import has_sessions
from app.clock import utc_now
from app.config import Settings, read_settings
from app.db.batches import Background
from app.db.connect import connect
from app.db.database import AnyRow, Database
from app.db.errors import DatabaseUnavailable
from app.db.migrations import bring_up_to_date
from app.errors import BadSettings
from app.observe.events import RequestContext, request_context
from app.observe.logs import configure_logging
from app.pagination.page import Page, PageQuery
from app.tasks.search import BACKFILL
from app.users.accounts import Administration
from app.users.deletion import delete_ended
from app.users.export import ListPage
from app.users.service import get_user_by_name

T = TypeVar("T")
Query = TypeVar("Query", bound=PageQuery)


def with_administration(f: Callable[[Administration], Awaitable[None]]) -> None:
    """Run `f` with the rules of accounts, on the database of the settings.

    Events go to standard error, as in the service, with "command line" in the place of the id of a request.
    """
    settings = read_settings()
    configure_logging(settings.log_format)

    async def run(database: Database) -> None:
        if await is_secret_gone(database, settings):
            raise BadSettings(
                f"{secret_file(settings)} is gone: put it back, or let python -m app serve make a new one, which ends "
                "every session"
            )
        request_context.set(RequestContext(request_id="command line"))
        deletions = Background(partial(delete_ended, database), "")
        async with open_services(settings, utc_now, database, deletions, Cost()) as services:
            await f(Administration(services, database, utc_now()))

    with_database(settings, run)


def with_database(settings: Settings, f: Callable[[Database], Awaitable[T]], *, migrates: bool = True) -> T:
    """Run `f` on the database of the settings. SQLite is migrated first, unless `f` wants the schema that is there."""

    async def run() -> T:
        async with connect(settings.database, pool_size=settings.pool_size) as database:
            try:
                if migrates and database.dialect == "sqlite":
                    await bring_up_to_date(database, settings.database, BACKFILL)
                return await f(database)
            except DatabaseUnavailable as error:
                task = asyncio.current_task()
                if task and task.cancelling():  # by Ctrl-C, which asyncpg may take for a timeout
                    raise asyncio.CancelledError from error
                if database.dialect == "sqlite":
                    await database.check_writable()  # it may say why
                raise

    return asyncio.run(run())


async def is_secret_gone(database: Database, settings: Settings) -> bool:
    """Whether the generated secret is missing, and there are sessions that a new one would end."""
    return not settings.secret_key and not secret_file(settings).exists() and await database.read(has_sessions)


def is_database_gone(settings: Settings) -> bool:
    """Whether the generated secret is there, and the SQLite file that it was made for is not."""
    is_alone = not settings.secret_key and secret_file(settings).exists()
    return is_alone and not Path(f"{settings.database.database}").exists()


def as_of_now(name: str) -> Callable[[Connection, ListPage, PageQuery], Page]:
    """Return a function that reads a page of what a user has."""
    moment = Moment.at(utc_now(), read_settings())
    return lambda connection, list_page, query: list_page(
        connection, get_user_by_name(connection, name)["id"], query, moment
    )


def print_own(name: str, list_page: ListPage, query: PageQuery, line: Callable[[AnyRow], str] | None) -> None:
    """Print what a user has, as `print_all` does."""
    read = as_of_now(name)
    print_all(lambda connection, query: read(connection, list_page, query), query, line)


def print_all(f: Callable[[Connection, Query], Page], query: Query, line: Callable[[AnyRow], str] | None) -> None:
    """Print all pages of a list: each row as a line, or as a JSON object.

    It leaves control characters out: users choose the names of their tokens.
    """

    async def run(database: Database) -> None:
        cursor: str | None = ""
        while cursor is not None:
            page = await database.read(f, query.model_copy(update={"cursor": cursor or None}))
            for row in page.rows:
                text = line(row).rstrip() if line else to_json(row._asdict(), ensure_ascii=True).decode()
                typer.echo("".join(filter(str.isprintable, text)))
            cursor = page.next_cursor

    with_database(read_settings(), run)
