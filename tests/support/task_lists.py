"""Tasks in number, and lists in pages."""

import asyncio
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import insert, make_url

from app.db.connect import connect
from app.db.types import new_id
from app.tasks.models import Task
from app.tasks.words import index_text
from tests.conftest import MovableClock
from tests.support.accounts import Login

SORTS = ["created_at", "-created_at", "due_at", "-due_at", "updated_at", "-updated_at"]


def read_page(client: TestClient, url: str, login: Login | None = None) -> tuple[list[str], str | None]:
    """The titles of a page, and the link to the next, as it stands."""
    response = client.get(url, headers=login.headers if login else None)
    assert response.status_code == 200, response.text
    link = response.headers.get("Link")
    assert (response.json()["next_cursor"] is None) == (link is None)
    next_url = link and link.removeprefix("<").removesuffix('>; rel="next"')
    return [task["title"] for task in response.json()["items"]], next_url


def walk(client: TestClient, url: str | None, login: Login | None = None) -> list[list[str]]:
    pages: list[list[str]] = []
    while url:
        page, url = read_page(client, url, login)
        pages.append(page)
    return pages


def in_one(pages: list[list[str]]) -> list[str]:
    return [title for page in pages for title in page]


def create_many(url: str, clock: MovableClock, owner_id: str, count: int, **fields: Any) -> None:
    """Past the service: so many at once would take it a while."""
    rows = []
    for number in range(count):
        clock.move(microseconds=1)
        row = {"title": f"many {number}", "description": None, "is_public": True, "due_at": None} | fields
        row |= {"words": index_text(row["title"], row["description"]), "status": ("todo", "done")[number % 2]}
        row |= {"id": new_id(clock.now), "owner_id": owner_id, "created_at": clock.now, "updated_at": clock.now}
        rows.append(row)

    async def write() -> None:
        async with connect(make_url(url)) as database:
            await database.write(lambda connection: connection.execute(insert(Task), rows))

    asyncio.run(write())
