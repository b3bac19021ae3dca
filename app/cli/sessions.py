"""python -m app sessions."""

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.terminal import AsJSON, Name, group, print_json

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

    from app.db.database import Database
    from app.users.accounts import Administration

PAGE = 100

cli = group("List and end sessions.")


@cli.command("list")
def list_(name: Name, as_json: AsJSON = False) -> None:
    """List a user's live sessions, the latest login first: id, login, latest use, address and client."""
    from app.auth.sessions import list_live
    from app.cli.run import read_all, with_database
    from app.clock import utc_now
    from app.config import read_settings
    from app.pagination.page import PageQuery
    from app.users.service import get_user_by_name

    async def run(database: "Database") -> None:
        user_id = (await database.read(get_user_by_name, name))["id"]
        now = utc_now()
        sessions = read_all(
            database, lambda connection, query: list_live(connection, user_id, query, now), PageQuery(limit=PAGE)
        )
        async for session in sessions:
            if as_json:
                print_json(session._asdict())
                continue
            times = f"{session.created_at:%Y-%m-%d %H:%M}  {session.last_used_at:%Y-%m-%d %H:%M}"
            typer.echo(f"{session.id}  {times}  {session.ip}  {session.user_agent}".rstrip())

    with_database(read_settings(), run)


@cli.command()
def revoke(
    name: Name,
    session: Annotated[UUID | None, typer.Option(help="End only the session with this id.")] = None,
) -> None:
    """End a user's sessions. Their tokens stop working at once."""
    from app.cli.run import with_account

    async def run(administration: "Administration", user: "RowMapping") -> None:
        if session is None:
            await administration.end_sessions(user["id"])
        else:
            await administration.end_session(user["id"], str(session))

    username = with_account(name, run)
    typer.echo(f"Ended {'a session' if session else 'every session'} of {username}.")
