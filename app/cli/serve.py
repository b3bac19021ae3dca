"""python -m app serve."""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from app.cli.terminal import failure

if TYPE_CHECKING:
    from app.config import Settings
    from app.db.database import Database

ANNOUNCEMENT = """\
Serving on {url}, docs at {url}/docs. Register, then log in:
  curl {url}/users -H 'Content-Type: application/json' -d '{{"username": "ada", "password": "correct horse battery"}}'
  curl {url}/auth/token -F username=ada -F 'password=correct horse battery'"""


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="The number of processes that share the port.")] = 1,
    reload: Annotated[bool, typer.Option("--reload", help="Restart when the code changes.")] = False,
) -> None:
    """Start the service."""
    import asyncio

    from app.auth.keys import load_tokens
    from app.cli.run import with_database
    from app.config import read_settings, unknown_names
    from app.config.sources import set_in_environment
    from app.observe.logs import configure_logging
    from app.server import run

    settings = read_settings()
    url = f"http://{_reachable(host)}:{port}"
    if "public_url" not in settings.model_fields_set:
        settings = settings.model_copy(update={"public_url": url})
    for warning in (*unknown_names(), *_warnings(settings, host)):
        typer.echo(f"warning: {warning}", err=True)
    load_tokens(settings)
    state = with_database(settings, lambda database: describe(database, settings))
    try:
        listeners = asyncio.run(run.bind(host, port))
    except OSError as error:
        raise failure(f"cannot listen on port {port} of {host}: {str(error).rpartition(': ')[2]}") from error
    typer.echo(state)
    configure_logging(settings.log_format)
    if settings.public_url == url:
        set_in_environment("public_url", url)  # the processes that serve read the settings again
    if reload:
        set_in_environment("drain_seconds", "0")
    announcement = ANNOUNCEMENT.format(url=url + settings.root_path)
    run.serve(listeners, workers, announcement, reload=reload, metrics=settings.metrics)


def is_in_clear(url: str) -> bool:
    """Whether what is sent to a URL crosses the network in clear."""
    return url.startswith("http://") and not _is_local(urlsplit(url).hostname or "")


def _is_local(host: str) -> bool:
    """Whether only this machine reaches a server of that name."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reachable(host: str) -> str:
    """The host as a URL of this machine has it."""
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - these are recognized, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _warnings(settings: "Settings", host: str) -> Iterator[str]:
    from app.cli.run import is_database_gone

    if is_database_gone(settings):
        yield f"{settings.database.database} is gone, though its secret is there: an empty database takes its place"
    if is_in_clear(settings.public_url):
        yield "PUBLIC_URL is not https: passwords and tokens cross the network in clear"
    elif not _is_local(host) and _is_local(urlsplit(settings.public_url).hostname or ""):
        yield "PUBLIC_URL is for this host alone, but others reach the port: set it to the URL that they use"


async def describe(database: "Database", settings: "Settings") -> str:
    """Say in which state the database is. Raise what stays wrong until somebody mends it."""
    from app.db.errors import DatabaseNotUTF8, DatabaseUnavailable, PoolerForgets, PoolerRefuses

    try:
        if database.dialect == "postgresql":
            from app.db.connect import WAIT
            from app.db.pooler import check_pooler

            await check_pooler(settings.database, WAIT)
            await database.check_writable()
        return await describe_schema(database)
    except (DatabaseNotUTF8, PoolerForgets, PoolerRefuses):
        raise
    except DatabaseUnavailable as error:
        return f"{error}; /health/ready says when it works."


async def describe_schema(database: "Database") -> str:
    """Say at which version the schema is, and what to do if this version cannot work with it."""
    from app.db.migrations import SchemaUnknown, is_ahead, is_current

    name = "The SQLite database" if database.dialect == "sqlite" else "PostgreSQL"
    try:
        if await database.read(is_current):
            return f"{name} is at the newest migration."
        if await database.read(is_ahead):
            return f"{name} has the schema of a newer version, which is fine."
    except SchemaUnknown as error:
        return f"{error.detail}."
    return "PostgreSQL is not at the newest migration: run python -m app migrate"
