"""Helpers for commands that work on the database or on accounts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, RowMapping

from app.auth.passwords import Cost
from app.auth.services import open_services
from app.clock import utc_now
from app.config import Settings, read_settings
from app.db.background import Background
from app.db.connect import WAIT, connect
from app.db.database import AnyRow, Database, DatabaseUnavailable
from app.db.upgrade import bring_up_to_date
from app.observe.events import RequestContext, request_context
from app.observe.logs import configure_logging
from app.pagination.page import Page, PageQuery
from app.tasks.search import BACKFILL
from app.users.accounts import Administration
from app.users.deletion import delete_ended
from app.users.service import get_user_by_name

T = TypeVar("T")
Query = TypeVar("Query", bound=PageQuery)


def with_administration(f: Callable[[Administration], Awaitable[T]], wait: float = WAIT) -> T:
    """Run `f` with the rules of accounts, on the database of the settings.

    Events go to standard error, as in the service, with "command line" in the place of the id of a request.
    """
    settings = read_settings()
    configure_logging(settings.log_format)

    async def run(database: Database) -> T:
        request_context.set(RequestContext(request_id="command line"))
        deletions = Background(partial(delete_ended, database), "")
        with open_services(settings, utc_now, database, deletions, Cost()) as services:
            return await f(Administration(services, database, utc_now()))

    return with_database(settings, run, wait)


def with_account(name: str, f: Callable[[Administration, RowMapping], Awaitable[object]], wait: float = WAIT) -> str:
    """Run `f` on the account of a user. Return the username as it was registered."""

    async def run(administration: Administration) -> str:
        user = await administration.db.read(get_user_by_name, name)
        await f(administration, user)
        return str(user["username"])

    return with_administration(run, wait)


def with_database(settings: Settings, f: Callable[[Database], Awaitable[T]], wait: float = WAIT) -> T:
    """Run `f` on the database of the settings. SQLite is migrated first."""

    async def run(database: Database) -> T:
        if database.dialect == "sqlite":
            await bring_up_to_date(database, settings.database, BACKFILL)
        return await f(database)

    return run_with(settings, run, wait)


def run_with(settings: Settings, f: Callable[[Database], Awaitable[T]], wait: float = WAIT) -> T:
    """Run `f` on the database of the settings, whatever its schema."""

    async def run() -> T:
        async with connect(settings.database, wait) as database:
            try:
                return await f(database)
            except DatabaseUnavailable as error:
                if _is_interrupted():
                    raise asyncio.CancelledError from error
                raise

    return asyncio.run(run())


def _is_interrupted() -> bool:
    """Whether Ctrl-C was pressed. asyncpg may take that for a timeout."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def read_all(database: Database, f: Callable[[Connection, Query], Page], query: Query) -> AsyncIterator[AnyRow]:
    """Read a list page by page."""
    while True:
        page = await database.read(f, query)
        for row in page.rows:
            yield row
        if page.next_cursor is None:
            return
        query = query.model_copy(update={"cursor": page.next_cursor})
