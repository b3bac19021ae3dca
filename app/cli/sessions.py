"""python -m app sessions: who is signed in."""

from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy import Connection

from app.auth.service import end_own_session, list_live
from app.cli.run import group, with_database
from app.cli.users import PAGE, Name
from app.clock import utc_now
from app.config import load_settings
from app.db.database import Database
from app.pagination.page import PageQuery
from app.users.service import end_sessions, get_named

cli = group("See and end sessions.")


@cli.command("list")
def list_(name: Name) -> None:
    """List a user's live sessions, the latest login first: id, login, latest use, address and client."""
    query = PageQuery(limit=PAGE)

    async def run(database: Database) -> None:
        user_id = (await database.read(get_named, name))["id"]
        page = await database.read(list_live, user_id, query, utc_now())
        while True:
            for session in page.rows:
                times = f"{session.created_at:%Y-%m-%d %H:%M}  {session.last_used_at:%Y-%m-%d %H:%M}"
                typer.echo(f"{session.id}  {times}  {session.ip}  {session.user_agent}".rstrip())
            if page.next_cursor is None:
                return
            query_on = query.model_copy(update={"cursor": page.next_cursor})
            page = await database.read(list_live, user_id, query_on, utc_now())

    with_database(load_settings(), run)


@cli.command()
def revoke(
    name: Name, session: Annotated[UUID | None, typer.Option(help="Its id; without it, all of the user's.")] = None
) -> None:
    """End a user's sessions: their tokens stop working at once."""

    def run(connection: Connection) -> str:
        user = get_named(connection, name)
        if session is None:
            end_sessions(connection, user["id"], utc_now())
            return f"Ended every session of {user['username']}."
        end_own_session(connection, user["id"], str(session), utc_now())
        return f"Ended a session of {user['username']}."

    typer.echo(with_database(load_settings(), lambda database: database.write(run)))
