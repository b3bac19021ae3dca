"""DELETE /users/me deletes everything of the user. Nothing comes back with the name."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Connection

from app.auth.callers import CurrentUser
from app.auth.errors import InvalidToken, WrongPassword
from app.auth.liveness import Moment
from app.auth.networks import LoginOrigin
from app.config import Settings
from app.db.connect import connect
from app.db.types import new_id
from app.users.service import change_password, get_profile, update_profile
from tests.conftest import MovableClock, Sql
from tests.support.accounts import create_task, log_in, refresh, sign_up


def test_tasks_and_sessions_go_along_and_nobody_elses(client: TestClient, sql: Sql) -> None:
    ada, bob = sign_up(client), sign_up(client, "bob")
    log_in(client)
    for is_public in True, False:
        create_task(client, ada, is_public=is_public)
    kept = create_task(client, bob, is_public=True)

    response = client.delete("/users/me", headers=ada.headers)

    assert (response.status_code, response.content) == (204, b"")
    assert sql("SELECT username FROM users") == [("bob",)]
    assert [sql(f"SELECT count(*) FROM {table}") for table in ("sessions", "tasks")] == [[(1,)], [(1,)]]
    assert client.get("/tasks/public").json()["items"] == [kept]


def test_the_tokens_of_a_deleted_user_are_good_for_nothing(client: TestClient) -> None:
    login, other = sign_up(client), log_in(client)

    client.delete("/users/me", headers=login.headers)

    for headers in login.headers, other.headers:
        for url in "/users/me", "/tasks/", "/tasks/public":
            assert client.get(url, headers=headers).status_code == 401
        assert client.delete("/users/me", headers=headers).status_code == 401
    assert refresh(client, other.refresh_token).json()["error"] == "invalid_grant"


def test_a_deleted_user_cannot_log_in(client: TestClient) -> None:
    login = sign_up(client)

    client.delete("/users/me", headers=login.headers)

    response = client.post("/auth/token", data={"username": "ada", "password": "correct horse battery"})
    assert response.status_code == 401
    assert response.json()["detail"] == "Invalid credentials"


def test_a_new_account_of_the_same_name_is_another_user(client: TestClient) -> None:
    former = sign_up(client)
    create_task(client, former)
    client.delete("/users/me", headers=former.headers)

    latter = sign_up(client)

    assert client.get("/tasks/mine", headers=latter.headers).json()["items"] == []
    assert client.get("/tasks/mine", headers=former.headers).status_code == 401
    assert refresh(client, former.refresh_token).status_code == 400


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "k"}], ids=["plain", "key"])
def test_a_task_that_is_made_while_its_owner_goes_is_not_made(
    client: TestClient, sql: Sql, key: dict[str, str]
) -> None:
    ada = sign_up(client)
    sql("BEGIN")
    sql("DELETE FROM users")
    with ThreadPoolExecutor(1) as other:
        made = other.submit(client.post, "/tasks/", json={"title": "Late"}, headers=ada.headers | key)
        while sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == [(0,)]:
            assert not made.done()
        sql("COMMIT")

    assert made.result().status_code == 401
    assert sql("SELECT count(*) FROM tasks") == [(0,)]


Step = Callable[[Connection, CurrentUser, MovableClock], object]
ORIGIN = LoginOrigin("", "")
STEPS: dict[str, Step] = {
    "read the profile": lambda db, user, _: get_profile(db, user),
    "change the profile": lambda db, user, clock: update_profile(
        db, user, {"email": None}, clock(), 300, LoginOrigin("", "")
    ),
}


def run(settings: Settings, step: Callable[..., Any], *args: object) -> None:
    async def write() -> None:
        async with connect(settings.database) as database:
            await database.write(step, *args)

    asyncio.run(write())


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_request_whose_user_goes_has_a_bad_token(
    settings: Settings, clock: MovableClock, sql: Sql, step: Step
) -> None:
    """No request can be held between its token and its statement, so the test runs the statement alone."""
    user = CurrentUser(new_id(clock()), "ada", new_id(clock()), frozenset(), clock())

    with pytest.raises(InvalidToken):
        run(settings, step, user, clock)

    assert sql("SELECT count(*) FROM tasks") == [(0,)]


def test_a_password_that_just_changed_is_not_the_current_one(
    client: TestClient, settings: Settings, clock: MovableClock, sql: Sql
) -> None:
    """The test cannot stop a request between the check of the password and the change either."""
    login = sign_up(client)
    user_id = client.get("/users/me", headers=login.headers).json()["id"]
    user = CurrentUser(user_id, "ada", new_id(clock()), frozenset(), clock())

    with pytest.raises(WrongPassword):
        run(
            settings,
            change_password,
            user,
            "the hash that was checked",
            "a new hash",
            Moment.at(clock(), settings),
            ORIGIN,
        )

    assert sql("SELECT count(*) FROM users WHERE password_hash = 'a new hash'") == [(0,)]
    assert client.get("/users/me", headers=login.headers).status_code == 200
