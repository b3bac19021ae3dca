"""Accounts with many rows are gone at once. Any process deletes the rows, in batches."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Connection, make_url

from app.config import Settings
from app.db.batches import MAX_ROWS, in_batches, total
from app.db.connect import connect
from app.db.database import Database
from app.db.types import Base
from app.users.deletion import delete_rows
from app.users.service import delete_user
from tests.conftest import SECRET, MovableClock, Serve, Sql, on_sqlite
from tests.support.accounts import PASSWORD, Login, add_user, create_task, log_in, refresh, register
from tests.support.command_line import run
from tests.support.mail_hook import mails, verified
from tests.support.processes import wait_for
from tests.support.second_factor import activate

TASKS = 5
COUNT = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM sessions), (SELECT count(*) FROM tasks)"

OWNED = [
    (table.name, key.parent.name)
    for table in Base.metadata.tables.values()
    for key in table.foreign_keys
    if key.column.table.name == "users"
]
"""Each table that refers to users, and its column."""


@pytest.fixture(autouse=True)
def _batches_are_small_and_nobody_looks_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.users.deletion.ROWS_AT_ONCE", 2)
    monkeypatch.setattr("app.db.batches.FIRST_ROWS", 2)
    monkeypatch.setattr("app.db.batches.START", 3600)
    monkeypatch.setattr("app.db.batches.PERIOD", 0.01)


@pytest.fixture
def root(client: TestClient) -> Login:
    add_user(client, "root", is_admin=True)
    return log_in(client, "root")


@pytest.fixture
def ada(client: TestClient, root: Login, clock: MovableClock) -> Login:
    """A user with more rows than one request deletes. Two older sessions go first."""
    register(client, "ada", email="ada@example.com")
    log_in(client)
    log_in(client)
    clock.move(seconds=1)
    login = log_in(client)
    for number in range(TASKS):
        create_task(client, login, is_public=number % 2 == 0)
    return login


def user_id(client: TestClient, login: Login) -> str:
    return str(client.get("/users/me", headers=login.headers).json()["id"])


def on_database(settings: Settings, f: Callable[..., Any], *args: object) -> None:
    async def write() -> None:
        async with connect(settings.database) as database:
            await database.write(f, *args)

    asyncio.run(write())


@pytest.fixture
def half_deleted(client: TestClient, ada: Login, settings: Settings, clock: MovableClock) -> str:
    """The id of ada's account. Another process stopped while it deleted the rows."""
    found = user_id(client, ada)
    on_database(settings, delete_user, found, clock())
    return found


def test_nobody_can_use_the_rest_of_a_deleted_account(
    client: TestClient, ada: Login, root: Login, half_deleted: str, sql: Sql, database_url: str
) -> None:
    assert sql(COUNT) == [(2, 2, TASKS)]

    nobody = client.post("/auth/token", data={"username": "nobody", "password": PASSWORD})
    for username in "ada", f"deleted {half_deleted}":
        for password in PASSWORD, "another password":
            refused = client.post("/auth/token", data={"username": username, "password": password})
            assert (refused.status_code, refused.json()) == (nobody.status_code, nobody.json())
    for path in "/users/me", "/tasks/mine", "/tasks/", "/tasks/public":
        refused = client.get(path, headers=ada.headers)
        assert (refused.status_code, refused.json()["detail"]) == (401, "The access token is not valid")
    assert refresh(client, ada.refresh_token).json()["error"] == "invalid_grant"
    for token in ada.access_token, ada.refresh_token:
        assert client.post("/auth/introspect", data={"token": token}, headers=root.headers).json() == {"active": False}
    assert [user["username"] for user in client.get("/users", headers=root.headers).json()["items"]] == ["root"]
    url = f"/users/{half_deleted}"
    answers = [
        client.get(url, headers=root.headers),
        client.patch(url, json={"is_active": True}, headers=root.headers),
        client.patch(url, json={}, headers=root.headers),
        client.delete(url, headers=root.headers),
        client.delete(f"{url}/sessions", headers=root.headers),
        client.post(f"{url}/reset-token", headers=root.headers),
    ]
    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert run("users", "list", database_url=database_url, secret_key=SECRET).stdout.count("\n") == 1
    for name in "ada", f"deleted {half_deleted}":
        assert run("users", "enable", name, database_url=database_url, secret_key=SECRET).exit_code == 1
    assert sql(COUNT) == [(2, 2, TASKS)]


def test_the_name_and_the_address_are_free_at_once(client: TestClient, half_deleted: str, sql: Sql) -> None:
    register(client, "ADA", email="ada@example.com")

    assert client.get("/tasks/mine", headers=log_in(client).headers).json()["items"] == []
    row = "email, password_hash, is_active, is_admin"
    assert sql(f"SELECT {row} FROM users WHERE id = '{half_deleted}'") == [(None, "", False, False)]


def test_a_reset_token_of_before_is_good_for_nothing(
    client: TestClient, ada: Login, root: Login, settings: Settings, clock: MovableClock
) -> None:
    ada_id = user_id(client, ada)
    token = client.post(f"/users/{ada_id}/reset-token", headers=root.headers).json()["reset_token"]
    on_database(settings, delete_user, ada_id, clock())

    reset = {"reset_token": token, "new_password": "another horse battery"}
    assert client.post("/users/reset-password", json=reset).status_code == 400


def test_an_administrator_who_is_gone_is_none(
    client: TestClient, ada: Login, root: Login, settings: Settings, clock: MovableClock, sql: Sql
) -> None:
    sql("UPDATE users SET is_admin = TRUE")
    on_database(settings, delete_user, user_id(client, ada), clock())

    assert client.delete("/users/me", headers=root.headers).status_code == 409


def test_the_service_deletes_the_rest_after_it_has_answered(
    client: TestClient, ada: Login, root: Login, sql: Sql
) -> None:
    kept = create_task(client, root)
    url = f"/users/{user_id(client, ada)}"

    assert client.delete(url, headers=root.headers).status_code == 204
    assert client.get(url, headers=root.headers).status_code == 404
    wait_for(lambda: sql(COUNT) == [(1, 1, 1)])
    assert client.get("/tasks/mine", headers=root.headers).json()["items"] == [kept]


def test_an_owner_deletes_a_large_account(client: TestClient, ada: Login, sql: Sql) -> None:
    assert client.delete("/users/me", headers=ada.headers).status_code == 204
    assert client.delete("/users/me", headers=ada.headers).status_code == 401
    wait_for(lambda: sql(COUNT) == [(1, 1, 0)])


@pytest.mark.parametrize("stopped", [False, True], ids=["at once", "after a stop"])
def test_no_row_of_any_table_is_left(
    mailing: TestClient, clock: MovableClock, settings: Settings, sql: Sql, database_url: str, stopped: bool
) -> None:
    """The account had a verified address, a second factor, personal tokens, a reset token and a record."""
    login = verified(mailing)
    ada_id = user_id(mailing, login)
    activate(mailing, login, clock.now)
    for name in "Backup", "Phone", "Watch":
        made = mailing.post("/auth/tokens", json={"name": name}, headers=login.headers)
        assert made.status_code == 201
    create_task(mailing, login, is_public=True)
    mailing.post("/users/forgot-password", json={"username": "ada"})
    mails(mailing)
    owned = {table: f"SELECT count(*) FROM {table} WHERE {column} = '{ada_id}'" for table, column in OWNED}
    empty = [table for table, statement in owned.items() if sql(statement) == [(0,)]]
    assert empty == [], "give the account a row of each of these tables"

    if stopped:
        on_database(settings, delete_user, ada_id, clock())
        assert run("purge", database_url=database_url, secret_key=SECRET).exit_code == 0
    else:
        assert mailing.delete("/users/me", headers=login.headers).status_code == 204
        wait_for(lambda: sql("SELECT count(*) FROM users") == [(0,)])

    assert {table: sql(statement) for table, statement in owned.items()} == {table: [(0,)] for table in owned}
    rows = {name: sql(f"SELECT * FROM {name}") for name in Base.metadata.tables}
    assert [name for name, found in rows.items() if ada_id in str(found) or "ada@example.com" in str(found)] == []


def test_the_next_start_takes_it_up(serve: Serve, half_deleted: str, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.db.batches.START", 0.001)
    serve()

    wait_for(lambda: sql(COUNT) == [(1, 1, 0)])


def test_a_purge_takes_it_up(half_deleted: str, sql: Sql, database_url: str) -> None:
    done = run("purge", database_url=database_url, secret_key=SECRET)

    assert (done.exit_code, done.stderr) == (0, "")
    assert sql(COUNT) == [(1, 1, 0)]


def test_the_command_deletes_all_of_it_before_it_ends(ada: Login, sql: Sql, database_url: str) -> None:
    done = run("users", "delete", "ADA", "--yes", database_url=database_url, secret_key=SECRET)

    assert (done.exit_code, done.stdout) == (0, "Deleted ada.\n")
    assert sql(COUNT) == [(1, 1, 0)]


def test_several_processes_may_delete_at_once(half_deleted: str, settings: Settings, sql: Sql) -> None:
    async def delete() -> int:
        async with connect(settings.database) as database:
            return await total(in_batches(database, delete_rows, half_deleted))

    async def both() -> int:
        return sum(await asyncio.gather(delete(), delete()))

    [(events,)] = sql(f"SELECT count(*) FROM account_events WHERE user_id = '{half_deleted}'")
    assert asyncio.run(both()) == TASKS + 2 + events
    assert sql(COUNT) == [(1, 1, 0)]


@on_sqlite
def test_a_failed_deletion_is_logged_and_tried_again(
    client: TestClient, ada: Login, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    sql("CREATE TRIGGER keep BEFORE DELETE ON users BEGIN SELECT RAISE(ABORT, 'kept'); END")

    with caplog.at_level(logging.WARNING):
        assert client.delete("/users/me", headers=ada.headers).status_code == 204
        wait_for(lambda: "rows of deleted accounts are left" in caplog.text)
    sql("DROP TRIGGER keep")

    wait_for(lambda: sql(COUNT) == [(1, 1, 0)])


@pytest.mark.parametrize(
    ("seconds", "limits"), [(3600, [2, 4, 8, 16, 32, 64, 128, 256, 512, MAX_ROWS, MAX_ROWS]), (0, [2, *[1] * 10])]
)
def test_batches_are_as_large_as_their_time_allows(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, seconds: int, limits: list[int]
) -> None:
    monkeypatch.setattr("app.db.batches.SECONDS", seconds)
    seen: list[int] = []

    def work(_: Connection, name: str, limit: int) -> int:
        assert name == "an argument"
        seen.append(limit)
        return 3 if len(seen) < len(limits) else 0

    async def check(database: Database) -> None:
        assert await total(in_batches(database, work, "an argument")) == 3 * (len(limits) - 1)

    async def main() -> None:
        async with connect(make_url(sqlite_url)) as database:
            await check(database)

    asyncio.run(main())
    assert seen == limits
