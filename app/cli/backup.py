"""python -m app backup and restore: for SQLite. PostgreSQL has pg_dump and pg_restore."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.terminal import failure

if TYPE_CHECKING:
    from app.config import Settings


def backup(
    file: Annotated[Path, typer.Argument(help="The file to make. FILE.secret gets the generated secret.")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace FILE, once the new copy is whole.")] = False,
) -> None:
    """Copy the SQLite database and its secret to FILE, as they are at one moment, while the service runs."""
    from app.auth.keys import secret_file
    from app.config import read_settings
    from app.db.sqlite_backup import back_up, copy_file

    settings = read_settings()
    database, secret = _database(settings, "pg_dump"), secret_file(settings)
    copied_secret = Path(f"{file}.secret")
    with _told():
        database.stat()
        own = [secret, *(Path(f"{database}{suffix}") for suffix in ("", "-wal", "-shm"))]
        for taken in filter(Path.exists, (file, copied_secret)):
            if any(path.samefile(taken) for path in own if path.exists()):
                raise failure(f"{taken} belongs to the database itself")
            if not replace:
                raise failure(f"{taken} exists: name another file, or add --replace if it is an older backup")
        if not settings.secret_key and secret.exists():
            copy_file(secret, copied_secret)
        back_up(database, file)
    typer.echo(f"Copied {file.stat().st_size / 1e6:,.1f} MB to {file}.")
    if settings.secret_key:
        typer.echo("SECRET_KEY is not in it. Keep that too: without it the restore ends every session.")
    elif not secret.exists():
        typer.echo(f"{secret} is not there, so the copy has no secret: the restore ends every session.")


def restore(
    file: Annotated[Path, typer.Argument(help="A file that backup made. FILE.secret has its secret.")],
) -> None:
    """Put a backup in the place of the SQLite database while no service runs. The old database is kept beside it."""
    from app.auth.keys import secret_file
    from app.clock import utc_now
    from app.config import read_settings
    from app.db.errors import DatabaseDamaged
    from app.db.sqlite_backup import copy_file, has_table, is_in_use, put_back

    settings = read_settings()
    database, secret = _database(settings, "pg_restore"), secret_file(settings)
    kept = Path(f"{database}.before-restore-{utc_now():%Y%m%dT%H%M%SZ}")
    with _told():
        file.stat()
        if database.exists() and database.samefile(file):
            raise failure(f"{file} is the database itself")
        if not has_table(file, "alembic_version"):
            raise failure(f"{file} is not a backup of this service")
        if is_in_use(database):
            raise failure(f"{database} is in use: stop the service, and every other process that has it open")
        was_there = database.exists()
        try:
            put_back(file, database, kept)
        except DatabaseDamaged as error:
            raise failure(f"{file} is damaged: use another backup") from error
        if not settings.secret_key and Path(f"{file}.secret").exists():
            if secret.exists():
                copy_file(secret, Path(f"{kept}.secret"))
            copy_file(Path(f"{file}.secret"), secret)
    if was_there:
        typer.echo(f"The database of before is {kept}: delete it when you no longer need it.")
    if not settings.secret_key and not secret.exists():
        typer.echo(f"{file}.secret is not there: the service will make a new secret, which ends every session.")
    typer.echo(f"Restored {file}. Start the service.")


def _database(settings: "Settings", for_postgresql: str) -> Path:
    if settings.database.drivername != "sqlite":
        raise failure(f"this command is for SQLite: use {for_postgresql} for PostgreSQL")
    file = Path(settings.database.database or "")
    return file.resolve() if file.is_symlink() else file  # SQLite has its other files beside the one it leads to


@contextmanager
def _told() -> Iterator[None]:
    """End with one line for what the file systems, or SQLite, refuse."""
    import sqlite3

    try:
        yield
    except OSError as error:
        raise failure(f"{error.filename}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise failure(f"SQLite: {error}") from error
