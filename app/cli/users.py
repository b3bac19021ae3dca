"""python -m app users."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.terminal import AsJSON, Name, act, group, read_password, validate

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

    from app.db.database import AnyRow, Database
    from app.users.accounts import Administration

cli = group("Manage users.")


@cli.command()
def add(
    name: Annotated[str, typer.Argument(help="The username.")],
    admin: Annotated[bool, typer.Option("--admin", help="Make the user an administrator.")] = False,
    email: Annotated[str | None, typer.Option(help="The user's e-mail address.")] = None,
) -> None:
    """Add a user. The password comes from a prompt, or from standard input."""
    from app.cli.run import with_administration
    from app.users.schemas import NamedUser, NewUser
    from app.users.service import require_free_name

    fields: NamedUser = validate(NamedUser, username=name, email=email)

    async def run(administration: "Administration") -> None:
        await administration.db.read(require_free_name, fields.username)
        user: NewUser = validate(NewUser, **fields.model_dump(), password=read_password())
        await administration.add(user, is_admin=admin)

    with_administration(run)
    typer.echo(f"Added {fields.username}.")


@cli.command("list")
def list_(
    prefix: Annotated[str, typer.Option(help="List only usernames that begin with this.")] = "", as_json: AsJSON = False
) -> None:
    """List users by name, with their state, date of registration and e-mail address."""
    from app.cli.run import print_all
    from app.users.schemas import UserQuery
    from app.users.service import list_users

    query: UserQuery = validate(UserQuery, username=prefix, limit=100)

    def line(user: "AnyRow") -> str:
        state = ("" if user.is_active else "disabled-") + ("admin" if user.is_admin else "user")
        return f"{user.username:<24} {state:<14} {user.created_at:%Y-%m-%d} {user.email or ''}"

    print_all(list_users, query, None if as_json else line)


@cli.command()
def export(name: Name) -> None:
    """Print all that the service has about a user, as JSON Lines. It has no secrets."""
    from app.cli.run import as_of_now, with_database
    from app.config import read_settings
    from app.main import EXPORTS
    from app.users.export import export_lines

    read = as_of_now(name)

    async def run(database: "Database") -> None:
        async for lines in export_lines(EXPORTS, lambda *page: database.read(read, *page)):
            typer.echo(lines, nl=False)

    with_database(read_settings(), run)


@cli.command()
def disable(name: Name) -> None:
    """Disable a user, and end their sessions and personal tokens."""
    act(name, "Disabled", lambda accounts, user: accounts.change(user["id"], {"is_active": False}))


@cli.command()
def enable(name: Name) -> None:
    """Enable a user, and forget their failed logins."""
    act(name, "Enabled", lambda accounts, user: accounts.change(user["id"], {"is_active": True}))


@cli.command()
def unlock(name: Name) -> None:
    """Forget a user's failed logins. Addresses that have failed with too many accounts must still wait."""
    act(name, "Unlocked", lambda accounts, user: accounts.unlock(user["id"]))


@cli.command()
def reset_totp(name: Name) -> None:
    """Remove the second factor of a user who has lost it. The next login needs no code."""
    act(name, "Removed the second factor of", lambda accounts, user: accounts.remove_totp(user["id"]))


@cli.command()
def promote(name: Name) -> None:
    """Grant administrator rights, from the user's next login."""
    act(name, "Promoted", lambda accounts, user: accounts.change(user["id"], {"is_admin": True}))


@cli.command()
def demote(name: Name) -> None:
    """Withdraw administrator rights, and end the sessions and personal tokens that have the scope admin."""
    act(name, "Demoted", lambda accounts, user: accounts.change(user["id"], {"is_admin": False}))


@cli.command()
def set_password(name: Name) -> None:
    """Set a user's password, from a prompt or standard input, and end their sessions and personal tokens."""
    from app.users.schemas import PasswordSet

    async def run(administration: "Administration", user: "RowMapping") -> None:
        fields: PasswordSet = validate(PasswordSet, new_password=read_password())
        await administration.set_password(user, fields)

    act(name, "Set the password of", run)


@cli.command()
def reset_token(name: Name) -> None:
    """Make a token with which a user sets a new password, once, within an hour. It voids the token before.

    The token goes to the user's verified address. Without one, or without mail, it is printed.
    """

    async def run(administration: "Administration", user: "RowMapping") -> None:
        token = await administration.issue_reset(user["id"])
        typer.echo(token or f"The token goes to {user['username']} by mail.")

    act(name, None, run)


@cli.command()
def delete(name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete a user, with their tasks and sessions."""
    from app.db.batches import in_batches, total
    from app.users.deletion import delete_rows

    async def run(administration: "Administration", user: "RowMapping") -> None:
        if not yes:
            typer.confirm(f"Delete {user['username']}, with all their tasks and sessions?", abort=True, err=True)
        await administration.delete(user["id"])
        await total(in_batches(administration.services.database, delete_rows, user["id"]))

    act(name, "Deleted", run)
