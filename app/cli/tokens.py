"""python -m app tokens."""

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.terminal import AsJSON, Name, act, group

if TYPE_CHECKING:
    from app.db.database import AnyRow

cli = group("List and end personal tokens.")


@cli.command("list")
def list_(name: Name, as_json: AsJSON = False) -> None:
    """List a user's live personal tokens, the latest first: id, creation, end, day of the latest use, scope, name."""
    from app.auth.personal_tokens import list_tokens
    from app.cli.run import print_own
    from app.pagination.page import PageQuery

    def line(token: "AnyRow") -> str:
        used = f"{token.last_used_at:%Y-%m-%d}" if token.last_used_at else "never"
        times = f"{token.created_at:%Y-%m-%d}  {token.expires_at:%Y-%m-%d}  {used:<10}"
        return f"{token.id}  {times}  {token.scope}  {token.name}"

    print_own(name, list_tokens, PageQuery(limit=100), None if as_json else line)


@cli.command()
def revoke(
    name: Name, token: Annotated[UUID | None, typer.Option(help="End only the token with this id.")] = None
) -> None:
    """End a user's personal tokens, at once."""

    if token is None:
        act(name, "Ended every token of", lambda accounts, user: accounts.end_tokens(user["id"]))
    else:
        act(name, "Ended a token of", lambda accounts, user: accounts.end_session(user["id"], str(token), "personal"))
