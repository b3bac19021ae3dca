"""The command line: python -m app."""

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError

from app import server
from app.auth.keys import check_keys
from app.auth.passwords import Cost, Passwords
from app.clock import utc_now
from app.config import Settings, load_settings
from app.database import Database, DatabaseUnavailable
from app.engines import WAIT, connect
from app.errors import AppError
from app.migrations import PATIENCE, is_current, upgrade
from app.users.schemas import UserCreate
from app.users.service import create_user

T = TypeVar("T")

LOOPBACK_OR_HTTPS = re.compile(r"https://|http://(localhost|127\.[0-9.]+|\[::1\])(:|/|$)")

cli = typer.Typer(help="Bearer Tasks.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
users = typer.Typer(help="Manage users.", no_args_is_help=True)
cli.add_typer(users, name="users")


@cli.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the port.")] = 1,
    reload: Annotated[bool, typer.Option("--reload", help="Start anew when the code changes.")] = False,
) -> None:
    """Start the service."""
    settings = load_settings()
    if not LOOPBACK_OR_HTTPS.match(settings.public_url):
        typer.echo("warning: PUBLIC_URL is not https: passwords and tokens cross the network in clear", err=True)
    typer.echo(_with_database(settings, _prepare))
    check_keys(settings)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}{settings.root_path}"
    typer.echo(f"Serving on {url}, docs at {url}/docs. Register, then log in:")
    body = '{"username": "ada", "password": "correct horse battery"}'
    typer.echo(f"  curl {url}/users -H 'Content-Type: application/json' -d '{body}'")
    typer.echo(f"  curl {url}/auth/token -F username=ada -F 'password=correct horse battery'")
    server.serve(host, port, workers, reload=reload)


@cli.command()
def migrate() -> None:
    """Bring the database's schema to the newest migration."""

    async def run(database: Database) -> str:
        await database.write(upgrade)
        return "The schema is at the newest migration."

    typer.echo(_with_database(load_settings(), run, PATIENCE))


@users.command()
def add(
    name: str,
    admin: Annotated[bool, typer.Option("--admin", help="Make an administrator.")] = False,
) -> None:
    """Add a user; the password comes from a prompt, or from standard input."""
    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().removesuffix("\n")
    try:
        fields = UserCreate(username=name, password=password)
    except ValidationError as error:
        faults = [f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors(include_input=False)]
        raise _failure("; ".join(faults)) from error

    async def run(database: Database) -> str:
        with closing(Passwords(Cost())) as passwords:
            password_hash = await passwords.hash(fields.password, fields.username)
        await database.write(create_user, fields.username, password_hash, utc_now(), is_admin=admin)
        return f"Added {fields.username}."

    typer.echo(_with_database(load_settings(), run))


async def _prepare(database: Database) -> str:
    """Have SQLite's schema up to date before the workers start; of PostgreSQL's, say what is to be done."""
    if database.dialect == "sqlite":
        if not await database.read(is_current):
            await database.write(upgrade)
        return "The SQLite database is at the newest migration."
    try:
        is_ready = await database.read(is_current)
    except DatabaseUnavailable:
        return "PostgreSQL does not answer; /health/ready says when it does."
    return (
        "PostgreSQL is at the newest migration."
        if is_ready
        else "PostgreSQL is not at the newest migration: run python -m app migrate"
    )


def _with_database(settings: Settings, f: Callable[[Database], Awaitable[T]], wait: int = WAIT) -> T:
    """Run `f` on the database of the settings; what goes wrong is one line and exit code 1."""

    async def run() -> T:
        async with connect(settings.database, wait) as database:
            return await f(database)

    try:
        return asyncio.run(run())
    except AppError as error:
        raise _failure(error.detail) from error


def _failure(message: str) -> typer.Exit:
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(1)


if __name__ == "__main__":
    cli(prog_name="python -m app")
