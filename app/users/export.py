"""GET /users/me/export: all that the service has about an account, one JSON object a line."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic_core import to_json
from sqlalchemy import Connection
from starlette.types import Send

from app.auth.callers import CurrentUser
from app.auth.dependencies import AccountDb
from app.auth.liveness import Moment
from app.errors import AppError
from app.http.openapi import header
from app.http.router import Router
from app.observe.events import log_event
from app.pagination.page import Page, PageQuery

ListPage = Callable[[Connection, str, PageQuery, Moment], Page]
"""Reads a page of what a user has, by the user's id."""

Exports = Sequence[tuple[str, ListPage]]
"""The types of the objects of an export, and what lists each."""

LINES: Final = (
    "Each line is a JSON object with a `type`: `profile` (otherwise as `UserRead`), `session` (`SessionRead`), "
    "`token` (`PersonalTokenRead`), `event` (`EventRead`), and what else you have, such as `task` (`TaskRead`). "
    "No session is `current`."
)

router = Router(prefix="/users", tags=["users"])


class Export(StreamingResponse):
    """It stops without its end if a page cannot be read, so that no client takes a part for the whole."""

    media_type = "application/x-ndjson"

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        except AppError as error:
            log_event("export_broken_off", reason=error.detail)


EXPORTED: Final[dict[str, Any]] = {
    "description": "JSON Lines. If the service cannot go on, the answer breaks off.",
    "content": {Export.media_type: {"schema": {"type": "string", "description": LINES}}},
    **header("Content-Disposition", "A file named after the user.", pattern="^attachment; filename="),
}


async def export_lines(
    exports: Exports, read: Callable[[ListPage, PageQuery], Awaitable[Page]]
) -> AsyncIterator[bytes]:
    """Yield the lines of an export, a page at a time."""
    for type_, list_page in exports:
        cursor: str | None = ""
        while cursor is not None:
            page = await read(list_page, PageQuery(limit=100, cursor=cursor or None))
            rows = ({"type": type_, **row._asdict()} for row in page.rows)
            yield b"".join(to_json(row, ensure_ascii=True) + b"\n" for row in rows)  # or U+2028 ends lines for some
            cursor = page.next_cursor
            await asyncio.sleep(0)  # a read of SQLite lets no other request go on


@router.get("/me/export", response_class=Export, responses={200: EXPORTED})
async def export_account(db: AccountDb, request: Request) -> Response:
    """Export what the service has about you, as JSON Lines, without secrets.

    The lines are what the lists have: your profile, live sessions and personal tokens, the events of the last 90 days,
    and your tasks.
    """

    def read(connection: Connection, user: CurrentUser, list_page: ListPage, query: PageQuery) -> Page:
        return list_page(connection, user.user_id, query, db.moment)

    user = await db.current_user()
    exports: Exports = () if "is_head" in request.scope else request.app.state.exports
    lines = export_lines(exports, lambda list_page, query: db.read(read, list_page, query))
    return Export(lines, headers={"Content-Disposition": f'attachment; filename="{user.username}.jsonl"'})
