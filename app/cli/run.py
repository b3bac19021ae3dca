"""What the commands have in common: a database to work on, passwords, and how they fail."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError

from app.auth.passwords import Cost, Passwords
from app.config import BadSettings, Settings
from app.db.connect import WAIT, connect
from app.db.database import Database, DatabaseUnavailable
from app.db.upgrade import bring_up_to_date
from app.errors import AppError
from app.tasks.search import BACKFILL

T = TypeVar("T")


def group(help_: str) -> typer.Typer:
    return typer.Typer(help=help_, no_args_is_help=True)


def with_database(settings: Settings, f: Callable[[Database], Awaitable[T]], wait: int = WAIT) -> T:
    """Run `f` on the database of the settings, SQLite's migrated; what goes wrong is one line and exit code 1."""

    async def run(database: Database) -> T:
        if database.dialect == "sqlite":
            await bring_up_to_date(database, settings.database, BACKFILL)
        return await f(database)

    try:
        return run_with(settings, run, wait)
    except AppError as error:
        raise failure(error.detail) from error
    except BadSettings as error:  # a file of keys
        raise failure(str(error)) from error


def run_with(settings: Settings, f: Callable[[Database], Awaitable[T]], wait: int = WAIT) -> T:
    """Run `f` on the database of the settings."""

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
    """By Ctrl-C, which asyncpg may take for a timeout."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def read_password() -> str:
    """Read it from a prompt, or from standard input. Everybody on the host can see a command's arguments.

    Windows and some editors add a carriage return and a byte order mark, which nobody can type at a login.
    """
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().removeprefix("\ufeff").removesuffix("\n").removesuffix("\r")


def valid(kind: Any, **fields: object) -> Any:
    """The fields as a schema has them; what is wrong with them is one line and exit code 1."""
    try:
        return TypeAdapter(kind).validate_python(fields)
    except ValidationError as error:
        faults = [f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors(include_input=False)]
        raise failure("; ".join(faults)) from error


async def hashed(password: str, username: str, email: str | None = None) -> str:
    """Raises WeakPassword."""
    with closing(Passwords(Cost())) as passwords:
        return await passwords.hash(password, username, email, network="")


def failure(message: str) -> typer.Exit:
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(1)
