"""python -m app users: accounts, by name."""

from typing import Annotated

import typer
from sqlalchemy import Connection

from app.auth.counters import Keys
from app.auth.keys import load_tokens, signing_secrets
from app.auth.throttle import Limiter
from app.cli.run import group, hashed, read_password, valid, with_database
from app.clock import utc_now
from app.config import Settings, load_settings
from app.db.batches import in_batches, total
from app.db.database import Database
from app.db.migrations import PATIENCE
from app.users import service
from app.users.deletion import delete_rows
from app.users.recovery import issue_reset, send
from app.users.schemas import NewUser, PasswordSet, UserChange, UserQuery

PAGE = 100

Name = Annotated[str, typer.Argument(help="The username, in either letter case.")]

cli = group("Manage users.")


@cli.command()
def add(
    name: str,
    admin: Annotated[bool, typer.Option("--admin", help="Make an administrator.")] = False,
) -> None:
    """Add a user; the password comes from a prompt, or from standard input."""
    fields: NewUser = valid(NewUser, username=name, password=read_password())

    async def run(database: Database) -> None:
        password_hash = await hashed(fields.password, fields.username)
        await database.write(service.create_user, fields.username, password_hash, utc_now(), is_admin=admin)

    with_database(load_settings(), run)
    typer.echo(f"Added {fields.username}.")


@cli.command("list")
def list_(prefix: Annotated[str, typer.Option(help="What the usernames begin with.")] = "") -> None:
    """List users by name: whether they are administrators or disabled, since when there are, and their e-mail."""
    query: UserQuery = valid(UserQuery, username=prefix, limit=PAGE)

    async def run(database: Database) -> None:
        page = await database.read(service.list_users, query)
        while True:
            for user in page.rows:
                state = ("" if user.is_active else "disabled-") + ("admin" if user.is_admin else "user")
                typer.echo(f"{user.username:<24} {state:<14} {user.created_at:%Y-%m-%d} {user.email or ''}".rstrip())
            if page.next_cursor is None:
                return
            page = await database.read(service.list_users, query.model_copy(update={"cursor": page.next_cursor}))

    with_database(load_settings(), run)


@cli.command()
def disable(name: Name) -> None:
    """Let a user in no more, and end every session of theirs."""
    _change(name, {"is_active": False}, "Disabled")


@cli.command()
def enable(name: Name) -> None:
    """Let a user in again, however many logins have failed."""
    _change(name, {"is_active": True}, "Enabled")


@cli.command()
def unlock(name: Name) -> None:
    """Forget a user's failed logins. Addresses that have failed with too many accounts must still wait."""
    settings = load_settings()

    def run(connection: Connection) -> str:
        user = service.get_named(connection, name)
        service.unlock(connection, user["id"], _counted(settings, user["id"]))
        return f"Unlocked {user['username']}."

    typer.echo(with_database(settings, lambda database: database.write(run)))


@cli.command()
def promote(name: Name) -> None:
    """Make an administrator of a user, from the next login."""
    _change(name, {"is_admin": True}, "Promoted")


@cli.command()
def demote(name: Name) -> None:
    """Make an administrator a user like any other, and end the sessions that have the scope admin."""
    _change(name, {"is_admin": False}, "Demoted")


@cli.command()
def set_password(name: Name) -> None:
    """Set a user's password, from a prompt or standard input, and end every session of theirs."""
    settings = load_settings()

    async def run(database: Database) -> str:
        user = await database.read(service.get_named, name)
        fields: PasswordSet = valid(PasswordSet, new_password=read_password())
        password_hash = await hashed(fields.new_password, user["username"], user["email"])
        await database.write(service.set_password, user["id"], password_hash, _counted(settings, user["id"]), utc_now())
        return f"Set the password of {user['username']}."

    typer.echo(with_database(settings, run))


@cli.command()
def reset_token(name: Name) -> None:
    """Print a token with which a user sets a new password, once, within an hour. It voids the one before."""
    settings = load_settings()

    async def run(database: Database) -> str:
        user = await database.read(service.get_named, name)
        reset = await database.write(issue_reset, load_tokens(settings), user["id"], utc_now())
        if settings.reset_hook:
            await send(settings.reset_hook, reset)
        return reset.reset_token

    typer.echo(with_database(settings, run))


@cli.command()
def delete(name: Name) -> None:
    """Delete a user, with their tasks and sessions, however many there are."""

    async def run(database: Database) -> str:
        user = await database.read(service.get_named, name)
        await database.write(service.delete_user, user["id"], utc_now())
        await total(in_batches(database, delete_rows, user["id"]))
        return f"Deleted {user['username']}."

    typer.echo(with_database(load_settings(), run, PATIENCE))


def _change(name: str, changes: UserChange, done: str) -> None:
    settings = load_settings()

    def run(connection: Connection) -> str:
        user_id = service.get_named(connection, name)["id"]
        counted = _counted(settings, user_id) if changes.get("is_active") else None  # else no secret is needed
        user = service.change_user(connection, user_id, changes, utc_now(), counted)
        return f"{done} {user['username']}."

    typer.echo(with_database(settings, lambda database: database.write(run)))


def _counted(settings: Settings, user_id: str) -> Keys:
    return Limiter(settings, signing_secrets(settings)[0]).account(user_id)
