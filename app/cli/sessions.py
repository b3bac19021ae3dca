"""python -m app sessions."""

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.terminal import AsJSON, Name, act, group

if TYPE_CHECKING:
    from app.db.database import AnyRow

cli = group("List and end sessions.")


@cli.command("list")
def list_(
    name: Name,
    ended: Annotated[bool, typer.Option("--ended", help="List those that ended within 30 days, when and why.")] = False,
    as_json: AsJSON = False,
) -> None:
    """List a user's live sessions, the latest login first: id, login, latest use, address and client."""
    from app.auth.schemas import SessionQuery
    from app.auth.sessions import list_sessions
    from app.cli.run import print_own

    def line(session: "AnyRow") -> str:
        times = f"{session.created_at:%Y-%m-%d %H:%M}  {session.last_used_at:%Y-%m-%d %H:%M}"
        end = f"  {session.ended_at:%Y-%m-%d %H:%M}  {session.end_reason}" if ended else ""
        return f"{session.id}  {times}{end}  {session.ip}  {session.user_agent}"

    print_own(name, list_sessions, SessionQuery(limit=100, ended=ended), None if as_json else line)


@cli.command()
def revoke(
    name: Name, session: Annotated[UUID | None, typer.Option(help="End only the session with this id.")] = None
) -> None:
    """End a user's sessions and personal tokens. All their tokens stop working at once."""

    if session is None:
        act(name, "Ended every session of", lambda accounts, user: accounts.end_sessions(user["id"]))
    else:
        act(name, "Ended a session of", lambda accounts, user: accounts.end_session(user["id"], str(session)))
