"""GET /users/me/events: what has concerned the security of an account, for its owner."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.conftest import MovableClock, Sql
from tests.support.accounts import PASSWORD, Login, log_in, refresh, refreshed, register, sign_up
from tests.support.command_line import run
from tests.support.tokens import claims_elsewhere

NEW = "another horse battery"
OWN = {"ip": "testclient", "user_agent": "testclient"}


def events(client: TestClient, login: Login, **params: Any) -> list[dict[str, Any]]:
    """The latest first, as the endpoint has them."""
    response = client.get("/users/me/events", params=params, headers=login.headers)
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


def brief(client: TestClient, login: Login) -> list[tuple[str, str]]:
    """Events and reasons, sorted, because the clock of the tests stands still."""
    return sorted((event["event"], event["reason"] or "") for event in events(client, login))


def session_of(login: Login) -> str:
    return str(claims_elsewhere(login.access_token)["sid"])


def test_a_login_is_recorded_with_its_client(client: TestClient) -> None:
    login = sign_up(client)

    [event] = events(client, login)

    assert event.pop("id")
    expected = {"event": "login_succeeded", "at": "2026-11-23T09:00:00Z", "session_id": session_of(login)}
    assert event == expected | {"reason": None} | OWN


def test_failures_are_recorded_for_the_account_they_meet(client: TestClient) -> None:
    register(client)
    for username in "ada", "ADA", "nobody":
        client.post("/auth/token", data={"username": username, "password": "a wrong password"})
    client.post("/auth/token", data={"username": "ada", "password": PASSWORD, "scope": "admin"})

    wrong = ("login_failed", "wrong password")
    assert brief(client, log_in(client)) == [wrong, wrong, ("login_refused", "scope"), ("login_succeeded", "")]


def test_each_ended_session_is_recorded_with_the_reason(client: TestClient, clock: MovableClock) -> None:
    first, second = sign_up(client), log_in(client)
    clock.move(seconds=1)
    client.post("/auth/revoke", data={"token": second.refresh_token})
    third = log_in(client)
    clock.move(seconds=1)
    client.delete("/auth/sessions", headers=first.headers)
    clock.move(seconds=1)
    copied = log_in(client)
    refreshed(client, refreshed(client, copied.refresh_token).refresh_token)
    clock.move(minutes=1)
    assert refresh(client, copied.refresh_token).json()["code"] == "token_reused"

    ends = [event for event in reversed(events(client, first)) if event["event"] != "login_succeeded"]

    assert [(event["event"], event["reason"], event["session_id"]) for event in ends] == [
        ("session_revoked", "revoked", session_of(second)),
        ("session_revoked", "revoked", session_of(third)),
        ("token_reused", "reuse", session_of(copied)),
    ]


def test_a_session_that_had_expired_is_not_recorded_as_ended(client: TestClient, clock: MovableClock) -> None:
    sign_up(client)
    clock.move(days=30)
    login = log_in(client)

    client.delete("/auth/sessions", headers=login.headers)

    assert brief(client, login) == [("login_succeeded", "")] * 2


def test_changes_of_the_owner_are_recorded(client: TestClient) -> None:
    login = sign_up(client)
    client.patch("/users/me", json={"email": "ada@example.com"}, headers=login.headers)
    body = {"current_password": "a wrong password", "new_password": NEW}
    client.put("/users/me/password", json=body, headers=login.headers)
    changed = client.put("/users/me/password", json=body | {"current_password": PASSWORD}, headers=login.headers)
    renewed = Login.of(changed)

    assert brief(client, renewed) == [
        ("email_changed", ""),
        ("login_succeeded", ""),
        ("password_change_failed", "wrong password"),
        ("password_changed", ""),
        ("session_revoked", "password_changed"),
    ]
    sessions = {event["event"]: event["session_id"] for event in events(client, renewed)}
    assert (sessions["password_changed"], sessions["session_revoked"]) == (session_of(renewed), session_of(login))
    assert {event["ip"] for event in events(client, renewed)} == {"testclient"}


def test_changes_of_administrators_are_recorded(client: TestClient, root: Login) -> None:
    url = f"/users/{register(client)['id']}"
    log_in(client)
    for change in {"is_admin": True}, {"is_active": False}, {"is_active": True}, {"is_active": True, "is_admin": False}:
        assert client.patch(url, json=change, headers=root.headers).status_code == 200
    log_in(client)
    client.delete(f"{url}/sessions", headers=root.headers)
    token = client.post(f"{url}/reset-token", headers=root.headers).json()["reset_token"]
    client.post("/users/reset-password", json={"reset_token": token, "new_password": NEW})

    assert brief(client, log_in(client, password=NEW)) == [
        *[("login_succeeded", "")] * 3,
        ("password_reset", ""),
        ("reset_token_issued", ""),
        ("session_revoked", "disabled"),
        ("session_revoked", "revoked"),
        ("user_changed", "demoted"),
        ("user_changed", "disabled"),
        ("user_changed", "enabled"),
        ("user_changed", "promoted"),
    ]
    clients = {event["event"]: event["ip"] for event in events(client, log_in(client, password=NEW))}
    assert clients == {
        "login_succeeded": "testclient",
        "user_changed": None,
        "session_revoked": None,
        "reset_token_issued": None,
        "password_reset": "testclient",
    }


def test_refreshes_are_no_events(client: TestClient) -> None:
    login = refreshed(client, sign_up(client).refresh_token)

    assert brief(client, login) == [("login_succeeded", "")]


def test_the_record_has_pages_and_reaches_back_90_days(client: TestClient, clock: MovableClock) -> None:
    sign_up(client)
    clock.move(days=89)
    log_in(client)
    clock.move(seconds=1)
    login = log_in(client)
    pages = client.get("/users/me/events", params={"limit": 2}, headers=login.headers).json()
    assert len(pages["items"]) == 2
    assert len(events(client, login, limit=2, cursor=pages["next_cursor"])) == 1

    clock.move(days=2)

    assert len(events(client, log_in(client))) == 3


def test_nobody_sees_the_record_of_another(client: TestClient) -> None:
    sign_up(client)

    assert len(events(client, sign_up(client, "bob"))) == 1
    assert client.get("/users/me/events", headers=log_in(client, scope="tasks:read").headers).status_code == 403


@pytest.mark.on_one_database
def test_a_purge_deletes_what_is_older(client: TestClient, sql: Sql, database_url: str) -> None:
    sign_up(client)
    sql("UPDATE account_events SET id = '00000000-0000-7000-8000-000000000000'")
    sql("DELETE FROM throttle")

    purged = run("purge", "--keep-days", "36500", database_url=database_url)

    assert purged.stdout == "Purged 0 sessions, 0 counts and 1 events.\n"
    assert sql("SELECT count(*) FROM account_events") == [(0,)]
