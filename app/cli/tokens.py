"""python -m app tokens."""

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.terminal import AsJSON, Name, act, group

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping

    from app.db.database import AnyRow
    from app.pagination.page import Page, PageQuery
    from app.users.accounts import Administration

cli = group("List and end personal tokens.")


@cli.command("list")
def list_(name: Name, as_json: AsJSON = False) -> None:
    """List a user's live personal tokens, the latest first: id, creation, end, day of the latest use, scope, name."""
    from app.auth.liveness import Moment
    from app.auth.personal_tokens import list_tokens
    from app.cli.run import print_all
    from app.clock import utc_now
    from app.config import read_settings
    from app.pagination.page import PageQuery
    from app.users.service import get_user_by_name

    moment = Moment.at(utc_now(), read_settings())

    def read(connection: "Connection", query: "PageQuery") -> "Page":
        return list_tokens(connection, get_user_by_name(connection, name)["id"], query, moment)

    def line(token: "AnyRow") -> str:
        used = f"{token.last_used_at:%Y-%m-%d}" if token.last_used_at else "never"
        times = f"{token.created_at:%Y-%m-%d}  {token.expires_at:%Y-%m-%d}  {used:<10}"
        return f"{token.id}  {times}  {token.scope}  {token.name}"

    print_all(read, PageQuery(limit=100), None if as_json else line)


@cli.command()
def revoke(
    name: Name, token: Annotated[UUID | None, typer.Option(help="End only the token with this id.")] = None
) -> None:
    """End a user's personal tokens, at once."""

    async def end(administration: "Administration", user: "RowMapping") -> None:
        if token is None:
            await administration.end_tokens(user["id"])
        else:
            await administration.end_token(user["id"], str(token))

    act(name, "Ended a token of" if token else "Ended every token of", end)
