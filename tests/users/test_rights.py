"""The transaction that does a thing checks whether the caller may do it. PostgreSQL runs others beside it.

A connection of the test holds a row, so that a request waits in the middle. Nothing sleeps: the test reads from the
database which requests wait for a lock.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from app.testing import assert_bearer_error
from tests.conftest import MovableClock, Sql
from tests.support.accounts import PASSWORD, Login, create_task, log_in, sign_up

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
NEW_PASSWORD = {"current_password": PASSWORD, "new_password": "another horse battery"}

Send = Callable[[dict[str, Any], str], tuple[str, str, dict[str, Any] | None]]

REQUESTS: dict[str, Send] = {
    "change the profile": lambda *_: ("PATCH", "/users/me", {"email": "root@example.com"}),
    "change the password": lambda *_: ("PUT", "/users/me/password", NEW_PASSWORD),
    "delete the account": lambda *_: ("DELETE", "/users/me", None),
    "end a session": lambda _, session_id: ("DELETE", f"/auth/sessions/{session_id}", None),
    "end the other sessions": lambda *_: ("DELETE", "/auth/sessions", None),
    "change a user": lambda ada, _: ("PATCH", f"/users/{ada['id']}", {"is_admin": True}),
    "delete a user": lambda ada, _: ("DELETE", f"/users/{ada['id']}", None),
    "end a user's sessions": lambda ada, _: ("DELETE", f"/users/{ada['id']}/sessions", None),
    "issue a reset token": lambda ada, _: ("POST", f"/users/{ada['id']}/reset-token", None),
    "change a task": lambda ada, _: ("PATCH", f"/tasks/{ada['task']}", {"title": "Changed"}),
    "delete a task": lambda ada, _: ("DELETE", f"/tasks/{ada['task']}", None),
}


def wait_for(sql: Sql, count: int, *requests: "Future[Response]") -> None:
    """Wait until so many requests wait for a lock. None of these has an answer yet."""
    while sql(WAITING) != [(count,)]:
        assert not any(request.done() for request in requests)
        sql("SELECT pg_stat_clear_snapshot()")  # it belongs to the transaction


@pytest.mark.parametrize("ending", ["session", "user"])
@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_while_its_session_ends_waits_and_is_refused(
    client: TestClient, root: Login, sql: Sql, name: str, ending: str
) -> None:
    other = log_in(client, "root")
    session_id = client.get("/auth/sessions", headers=other.headers).json()["items"][0]["id"]
    ada = client.get("/users/me", headers=sign_up(client).headers).json() | {"task": create_task(client, root)["id"]}
    method, path, body = REQUESTS[name](ada, session_id)
    tables = "users", "sessions", "tasks"
    before = [sql(f"SELECT * FROM {table} ORDER BY id") for table in tables]

    sql("BEGIN")
    if ending == "user":
        sql("UPDATE users SET is_active = is_active WHERE username = 'root'")
    sql("UPDATE sessions SET ended_at = now(), end_reason = 'revoked' FROM users WHERE user_id = users.id AND is_admin")
    with ThreadPoolExecutor(1) as threads:
        sent = threads.submit(client.request, method, path, json=body, headers=root.headers)
        wait_for(sql, 1, sent)
        sql("COMMIT")

    assert_bearer_error(sent.result(), "invalid_token")
    sql("UPDATE sessions SET ended_at = NULL, end_reason = NULL")
    assert [sql(f"SELECT * FROM {table} ORDER BY id") for table in tables] == before


def test_a_demotion_waits_for_the_request_that_has_begun(client: TestClient, root: Login, sql: Sql) -> None:
    sign_up(client)
    sign_up(client, "bob")
    sql("UPDATE users SET is_admin = TRUE WHERE username = 'bob'")
    bob = log_in(client, "bob")
    ids = {user["username"]: user["id"] for user in client.get("/users", headers=bob.headers).json()["items"]}

    sql("BEGIN")
    sql("SELECT 1 FROM users WHERE username = 'ada' FOR UPDATE")
    with ThreadPoolExecutor(2) as threads:
        url = f"/users/{ids['ada']}"
        promotion = threads.submit(client.patch, url, json={"is_admin": True}, headers=bob.headers)
        wait_for(sql, 1, promotion)
        url = f"/users/{ids['bob']}"
        demotion = threads.submit(client.patch, url, json={"is_admin": False}, headers=root.headers)
        wait_for(sql, 2, promotion, demotion)
        sql("ROLLBACK")

    assert [promotion.result().status_code, demotion.result().status_code] == [200, 200]
    refused = client.patch(f"/users/{ids['ada']}", json={"is_active": False}, headers=bob.headers)
    assert_bearer_error(refused, "invalid_token")


def test_a_request_after_its_demotion_is_refused(client: TestClient, root: Login, sql: Sql) -> None:
    sign_up(client)
    sign_up(client, "bob")
    sql("UPDATE users SET is_admin = TRUE WHERE username = 'bob'")
    bob = log_in(client, "bob")
    ids = {user["username"]: user["id"] for user in client.get("/users", headers=bob.headers).json()["items"]}

    sql("BEGIN")
    sql("SELECT 1 FROM sessions WHERE user_id = (SELECT id FROM users WHERE username = 'bob') FOR UPDATE")
    with ThreadPoolExecutor(2) as threads:
        url = f"/users/{ids['bob']}"
        demotion = threads.submit(client.patch, url, json={"is_admin": False}, headers=root.headers)
        wait_for(sql, 1, demotion)
        url = f"/users/{ids['ada']}"
        promotion = threads.submit(client.patch, url, json={"is_admin": True}, headers=bob.headers)
        wait_for(sql, 2, promotion, demotion)
        sql("ROLLBACK")

    assert demotion.result().status_code == 200
    assert_bearer_error(promotion.result(), "invalid_token")
    assert sql("SELECT is_admin FROM users WHERE username = 'ada'") == [(False,)]


def test_a_logout_waits_for_the_change_of_a_task(client: TestClient, sql: Sql) -> None:
    ada = sign_up(client)
    task = create_task(client, ada)

    sql("BEGIN")
    sql("SELECT 1 FROM tasks FOR UPDATE")
    with ThreadPoolExecutor(2) as threads:
        change = threads.submit(client.patch, f"/tasks/{task['id']}", json={"title": "Late"}, headers=ada.headers)
        wait_for(sql, 1, change)
        logout = threads.submit(client.post, "/auth/revoke", data={"token": ada.refresh_token})
        wait_for(sql, 2, change, logout)
        sql("ROLLBACK")

    assert [change.result().status_code, logout.result().status_code] == [200, 200]
    assert client.get("/tasks/mine", headers=ada.headers).status_code == 401


def test_ending_each_other_s_sessions_meets_no_deadlock(client: TestClient, sql: Sql) -> None:
    logins = [sign_up(client), *(log_in(client) for _ in range(7))]
    [(before,)] = sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")

    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(lambda login: client.delete("/auth/sessions", headers=login.headers), logins)

    assert sorted(answer.status_code for answer in answers) == [204] + [401] * 7
    assert sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(before,)]


def test_deleting_an_account_waits_for_no_administrator(client: TestClient, root: Login, sql: Sql) -> None:
    ada = sign_up(client)

    sql("BEGIN")
    sql("SELECT 1 FROM users WHERE is_admin FOR UPDATE")
    deleted = client.delete("/users/me", headers=ada.headers)
    sql("ROLLBACK")

    assert deleted.status_code == 204
    assert client.delete("/users/me", headers=root.headers).json()["code"] == "last_administrator"


def test_administrators_are_locked_in_one_order(client: TestClient, root: Login, sql: Sql, clock: MovableClock) -> None:
    clock.move(seconds=1)
    sign_up(client, "bob")
    sql("UPDATE users SET is_admin = TRUE WHERE username = 'bob'")
    bob = log_in(client, "bob", scope="account")

    sql("BEGIN")
    sql("SELECT 1 FROM users WHERE username = 'root' FOR UPDATE")
    with ThreadPoolExecutor(1) as threads:
        deletion = threads.submit(client.delete, "/users/me", headers=bob.headers)
        wait_for(sql, 1, deletion)
        unlocked = sql("SELECT username FROM users WHERE username = 'bob' FOR UPDATE SKIP LOCKED")
        sql("ROLLBACK")

    assert unlocked == [("bob",)]
    assert deletion.result().status_code == 204
    assert client.get("/users", headers=root.headers).status_code == 200


def test_ending_a_user_s_sessions_waits_for_a_change_of_it(client: TestClient, root: Login, sql: Sql) -> None:
    ada = sign_up(client)
    ada_id = client.get("/users/me", headers=ada.headers).json()["id"]

    sql("BEGIN")
    sql("SELECT 1 FROM users WHERE username = 'ada' FOR UPDATE")
    with ThreadPoolExecutor(1) as threads:
        ending = threads.submit(client.delete, f"/users/{ada_id}/sessions", headers=root.headers)
        wait_for(sql, 1, ending)
        sql("ROLLBACK")

    assert ending.result().status_code == 204
    assert client.get("/users/me", headers=ada.headers).status_code == 401


def test_deletion_locks_no_task_while_it_waits_for_a_session(client: TestClient, sql: Sql) -> None:
    ada = sign_up(client)
    create_task(client, ada)

    sql("BEGIN")
    sql("SELECT 1 FROM sessions FOR SHARE")  # as a request that changes the task does
    with ThreadPoolExecutor(1) as threads:
        deletion = threads.submit(client.delete, "/users/me", headers=ada.headers)
        wait_for(sql, 1, deletion)
        locked = sql("SELECT id FROM tasks FOR UPDATE SKIP LOCKED")
        sql("ROLLBACK")

    assert len(locked) == 1
    assert deletion.result().status_code == 204


def test_a_login_during_a_demotion_lacks_the_scope_admin(client: TestClient, root: Login, sql: Sql) -> None:
    sql("BEGIN")
    sql("UPDATE users SET is_admin = FALSE WHERE username = 'root'")
    with ThreadPoolExecutor(1) as threads:
        login = threads.submit(log_in, client, "root")
        wait_for(sql, 1)
        sql("COMMIT")

    assert "admin" not in login.result().scope.split()
    scopes = [scope for (scope,) in sql("SELECT scope FROM sessions")]
    assert sorted("admin" in scope for scope in scopes) == [False, True]


@pytest.mark.parametrize("password", ["a wrong password", PASSWORD])
def test_a_failed_login_while_its_account_goes(client: TestClient, sql: Sql, password: str) -> None:
    """Its record goes with the account. The answer is that of a failure all the same."""
    sign_up(client)
    form = {"username": "ada", "password": password, "scope": "admin"}

    sql("BEGIN")
    sql("DELETE FROM users")
    with ThreadPoolExecutor(1) as threads:
        sent = threads.submit(client.post, "/auth/token", data=form)
        wait_for(sql, 1, sent)
        sql("COMMIT")

    assert sent.result().json()["code"] == "invalid_credentials"
    assert sql("SELECT event FROM account_events") == []
