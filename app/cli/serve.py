"""python -m app serve, migrate."""

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

if TYPE_CHECKING:
    from app.db.database import Database

LOOPBACK_OR_HTTPS = re.compile(r"https://|http://(localhost|127\.[0-9.]+|\[::1\])(:|/|$)")

EVERYWHERE = {"0.0.0.0", "::", ""}  # noqa: S104 - to tell, not to bind

cli = typer.Typer()


@cli.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the port.")] = 1,
    reload: Annotated[bool, typer.Option("--reload", help="Start anew when the code changes.")] = False,
) -> None:
    """Start the service."""
    from app.auth.keys import load_tokens
    from app.cli.run import with_database
    from app.config import read_settings
    from app.observe.logs import configure_logging
    from app.server import run

    settings = read_settings()
    if not LOOPBACK_OR_HTTPS.match(settings.public_url):
        typer.echo("warning: PUBLIC_URL is not https: passwords and tokens cross the network in clear", err=True)
    elif not is_local(host) and is_local(urlsplit(settings.public_url).hostname or ""):
        typer.echo("warning: PUBLIC_URL is for this host alone, and others reach it: give the URL they see", err=True)
    load_tokens(settings)
    typer.echo(with_database(settings, _prepare))
    here = "127.0.0.1" if host in EVERYWHERE else f"[{host}]" if ":" in host else host
    url = f"http://{here}:{port}{settings.root_path}"
    typer.echo(f"Serving on {url}, docs at {url}/docs. Register, then log in:")
    body = '{"username": "ada", "password": "correct horse battery"}'
    typer.echo(f"  curl {url}/users -H 'Content-Type: application/json' -d '{body}'")
    typer.echo(f"  curl {url}/auth/token -F username=ada -F 'password=correct horse battery'")
    configure_logging(settings.log_format)
    run.serve(host, port, workers, reload=reload, metrics=settings.metrics)


@cli.command()
def migrate() -> None:
    """Bring the database's schema to the newest migration, and let searches find what older versions have made."""
    from app.cli.run import with_database
    from app.config import read_settings
    from app.db.migrations import PATIENCE
    from app.db.upgrade import bring_up_to_date
    from app.tasks.search import BACKFILL

    settings = read_settings()
    with_database(settings, lambda database: bring_up_to_date(database, settings.database, BACKFILL), PATIENCE)
    typer.echo("The schema is at the newest migration, and searches find every task.")


def is_local(host: str) -> bool:
    """Whether this host alone reaches a server of that name."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _prepare(database: "Database") -> str:
    """Before the workers start say of PostgreSQL's schema what is to be done."""
    from app.db.database import DatabaseUnavailable
    from app.db.migrations import is_current

    if database.dialect == "sqlite":
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
