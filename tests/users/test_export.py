"""GET /users/me/export and python -m app users export: all that the service has about an account, as JSON Lines."""

import asyncio
import json
import logging
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from starlette.types import Message

from app.auth.models import LoginSession, User
from app.db.types import Base
from tests.conftest import SECRET, MovableClock, Serve, Sql, on_one_database, on_sqlite
from tests.support.accounts import PASSWORD, Login, create_task, log_in, sign_up
from tests.support.command_line import run
from tests.support.statements import after_each_statement
from tests.support.task_lists import create_many
from tests.support.transport import Exchange

Line = dict[str, Any]

URL = "/users/me/export"
LISTS = {
    "session": "/auth/sessions",
    "token": "/auth/tokens",
    "event": "/users/me/events",
    "task": "/tasks/mine",
}


def parsed(text: str) -> list[Line]:
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def export(client: TestClient, login: Login) -> list[Line]:
    response = client.get(URL, headers=login.headers)
    assert response.status_code == 200, response.text
    return parsed(response.text)


def whole(client: TestClient, login: Login, url: str) -> list[Line]:
    """A list, from its first page to its last."""
    items: list[Line] = []
    page = client.get(url, params={"limit": 100}, headers=login.headers).json()
    items += page["items"]
    while cursor := page["next_cursor"]:
        page = client.get(url, params={"limit": 100, "cursor": cursor}, headers=login.headers).json()
        items += page["items"]
    return items


class Watched(Exchange):
    """A request whose answer is watched on its way, and not kept."""

    def __init__(self, client: TestClient, login: Login, see: Callable[[Message], object]) -> None:
        super().__init__(client.build_request("GET", URL, headers=login.headers), ("testclient", 1))
        self.see = see

    async def send(self, message: Message) -> None:
        await asyncio.to_thread(self.see, message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._is_complete.set()


def watch(client: TestClient, login: Login, see: Callable[[Message], object]) -> None:
    exchange = Watched(client, login, see)
    assert client.portal is not None
    client.portal.call(client.app, exchange.scope, exchange.receive, exchange.send)


def make_token(client: TestClient, login: Login, **fields: str) -> str:
    response = client.post("/auth/tokens", json={"name": "Backup"} | fields, headers=login.headers)
    assert response.status_code == 201, response.text
    return str(response.json()["token"])


@pytest.fixture
def ada(client: TestClient, clock: MovableClock) -> Login:
    """A user who has something of each type."""
    ada = sign_up(client)
    make_token(client, ada)
    for title in "one", "Zwei ß 🌱", "line\u2028break\n":
        clock.move(seconds=1)
        create_task(client, ada, title, description='"quoted"', due_at="2027-01-01T00:00:00.5Z")
    return ada


def test_an_export_equals_the_profile_and_the_lists(client: TestClient, ada: Login) -> None:
    log_in(client)
    profile = client.get("/users/me", headers=ada.headers).json()
    expected = [{"type": "profile"} | profile]
    for type_, url in LISTS.items():
        expected += [{"type": type_} | item for item in whole(client, ada, url)]
    assert [line["type"] for line in expected if line.get("current")] == ["session"]
    for line in expected:
        line.update({"current": False} if "current" in line else {})

    lines = export(client, ada)

    assert lines == expected
    assert list(dict.fromkeys(line["type"] for line in lines)) == ["profile", *LISTS]
    assert [next(iter(line)) for line in lines] == ["type"] * len(lines)


@pytest.mark.on_one_database
def test_the_rows_of_every_table_are_exported(client: TestClient, ada: Login) -> None:
    """Recovery codes are secrets."""
    tables = {
        table.name
        for table in Base.metadata.sorted_tables
        for key in table.foreign_keys
        if key.references(Base.metadata.tables["users"])
    }
    seen: list[str] = []

    with after_each_statement(seen.append):
        export(client, ada)

    missing = [name for name in tables - {"recovery_codes"} if not any(f"FROM {name}" in text for text in seen)]
    assert missing == [], "add what lists their rows to EXPORTS in app/main.py"


def test_a_long_list_is_exported_whole(client: TestClient, ada: Login, clock: MovableClock, database_url: str) -> None:
    """One page has a hundred rows, or a megabyte."""
    user_id = client.get("/users/me", headers=ada.headers).json()["id"]
    create_many(database_url, clock, user_id, 250)
    create_many(database_url, clock, user_id, 130, description="🌱" * 10_000)

    tasks = [line for line in export(client, ada) if line.pop("type") == "task"]

    assert len(tasks) == 383
    assert tasks == whole(client, ada, "/tasks/mine")


def test_nothing_of_others_is_exported(client: TestClient, ada: Login, clock: MovableClock) -> None:
    eve = sign_up(client, "eve")
    create_task(client, eve, "Not hers", is_public=True)
    make_token(client, eve)
    clock.move(days=31)

    lines = export(client, log_in(client))

    assert {line["owner"] for line in lines if line["type"] == "task"} == {"ada"}
    assert "Not hers" not in {line.get("title") for line in lines}
    assert [line["type"] for line in lines].count("session") == 1
    assert [line["type"] for line in lines].count("event") == 3


def test_no_secret_is_exported(client: TestClient, sql: Sql) -> None:
    ada = sign_up(client)
    token = make_token(client, ada)
    sql("UPDATE users SET totp_secret = 'sealed-text', totp_step = NULL")
    text = client.get(URL, headers=ada.headers).text

    hashes = sql("SELECT password_hash FROM users") + sql("SELECT token_hash FROM sessions")
    for secret in token, "sealed-text", PASSWORD, ada.access_token, *(str(row[0]) for row in hashes if row[0]):
        assert secret not in text
    shown = {name for line in parsed(text) for name in line}
    secrets = {"password_hash", "reset_id", "totp_secret", "totp_step", "token_hash", "generation", "network"}
    assert not shown & secrets
    assert secrets <= {*User.__table__.c.keys(), *LoginSession.__table__.c.keys()}


def test_the_answer_is_a_file_that_nothing_keeps(client: TestClient, ada: Login) -> None:
    headers = client.get(URL, headers=ada.headers).headers

    assert headers["Content-Type"] == "application/x-ndjson"
    assert headers["Content-Disposition"] == 'attachment; filename="ada.jsonl"'
    assert headers["Cache-Control"] == "no-store"


@on_one_database
def test_a_prefix_and_other_origins_change_nothing(serve: Serve) -> None:
    client = serve(root_path="/api", cors_origins="https://app.example.com")
    ada = sign_up(client)

    for url in URL, f"/api{URL}":
        response = client.get(url, headers=ada.headers | {"Origin": "https://app.example.com"})
        assert parsed(response.text)[0]["username"] == "ada"
        assert response.headers["Access-Control-Allow-Origin"] == "https://app.example.com"


def test_a_personal_token_needs_the_scope_account(client: TestClient, ada: Login) -> None:
    able, unable = make_token(client, ada, scope="account"), make_token(client, ada)

    def ask(token: str) -> Response:
        return client.get(URL, headers={"Authorization": f"Bearer {token}"})

    assert ask(able).text == client.get(URL, headers=ada.headers).text
    assert ask(unable).status_code == 403


@pytest.mark.on_one_database
def test_head_reads_no_page(client: TestClient, ada: Login) -> None:
    client.get(URL, headers=ada.headers)
    seen: list[str] = []

    with after_each_statement(seen.append):
        head = client.head(URL, headers=ada.headers)

    get = client.get(URL, headers=ada.headers)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers.multi_items() == get.headers.multi_items()
    assert len(seen) == 1
    assert client.head(URL).status_code == 401


@pytest.mark.on_one_database
def test_the_command_prints_what_the_endpoint_answers(client: TestClient, ada: Login, database_url: str) -> None:
    exported = run("users", "export", "ADA", database_url=database_url, secret_key=SECRET)

    assert exported.exit_code == 0
    assert exported.stdout_bytes == client.get(URL, headers=ada.headers).content
    assert run("users", "export", "nobody", database_url=database_url, secret_key=SECRET).exit_code == 1


def test_an_export_breaks_off_when_its_session_ends(
    client: TestClient, ada: Login, clock: MovableClock, database_url: str, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    user_id = client.get("/users/me", headers=ada.headers).json()["id"]
    create_many(database_url, clock, user_id, 250)
    messages: list[Message] = []

    def see(message: Message) -> None:
        messages.append(message)
        if b'"task"' in message.get("body", b""):
            sql("UPDATE sessions SET ended_at = created_at, end_reason = 'revoked'")

    watch(client, ada, see)

    assert messages[0]["status"] == 200
    assert all(message["more_body"] for message in messages[1:])
    assert b"".join(message["body"] for message in messages[1:]).count(b'{"type":"task"') == 100
    event, request = (json.loads(record.getMessage()) for record in caplog.records[-2:])
    assert (event["event"], event["reason"]) == ("export_broken_off", "The session was signed out")
    assert (request["route"], request["status"], request["reason"]) == (URL, 200, "broken off")
    assert client.get(URL, headers=ada.headers).status_code == 401


@pytest.mark.parametrize("count", [5_000, pytest.param(1_000_000, marks=pytest.mark.long)])
@on_sqlite
def test_an_export_of_any_length_takes_the_same_memory(client: TestClient, sql: Sql, count: int) -> None:
    ada = sign_up(client)
    for (name,) in sql("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
        sql(f"DROP TRIGGER {name}")  # those of the search take a while
    sql(
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) INSERT INTO tasks"
        " (id, owner_id, title, description, status, is_public, created_at, updated_at, words, version)"
        " SELECT printf('01a207a2-3280-7000-8000-%012x', i), users.id, 'task', printf('%2000d', i), 'todo', 0,"
        " users.created_at, users.created_at, '', 1 FROM n, users"
    )
    lengths: list[int] = []
    client.get("/tasks/mine", params={"limit": 100}, headers=ada.headers)

    tracemalloc.start()
    try:
        watch(client, ada, lambda message: lengths.append(message.get("body", b"").count(b"\n")))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert sum(lengths) == count + 3
    assert max(lengths) == 100
    assert peak < 3 * 2**20
