"""GET and PATCH /users/me: users read and change their own profile."""

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from app.testing import assert_bearer_error
from tests.conftest import MovableClock, Serve, on_one_database
from tests.support.accounts import PASSWORD, REALM, faults, log_in, refreshed, register, sign_up

pytestmark = on_one_database


def assert_stale(response: Response, max_age: int) -> None:
    assert_bearer_error(response, "insufficient_user_authentication")
    assert response.headers["WWW-Authenticate"] == (
        f'{REALM}, error="insufficient_user_authentication", '
        f'max_age="{max_age}", error_description="The login is too old for this: log in again"'
    )


def test_the_profile_is_that_of_the_tokens_user(client: TestClient) -> None:
    users = {name: register(client, name) for name in ("ada", "bob")}

    for name, user in users.items():
        assert client.get("/users/me", headers=log_in(client, name).headers).json() == user


def test_an_email_is_set_and_null_clears_it(client: TestClient, clock: MovableClock) -> None:
    user = register(client)
    headers = log_in(client).headers
    clock.move(seconds=1.5)

    changed = client.patch("/users/me", json={"email": "Ada@EXAMPLE.com"}, headers=headers)

    expected = user | {"email": "Ada@example.com", "updated_at": "2026-11-23T09:00:01.500000Z"}
    assert (changed.status_code, changed.json()) == (200, expected)
    assert client.get("/users/me", headers=headers).json() == expected
    assert client.patch("/users/me", json={"email": None}, headers=headers).json() == expected | {"email": None}


def test_a_change_of_nothing_changes_nothing(client: TestClient, clock: MovableClock) -> None:
    user = register(client, email="ada@example.com")
    clock.move(minutes=1)

    response = client.patch("/users/me", json={}, headers=log_in(client).headers)

    assert (response.status_code, response.json()) == (200, user)


def test_changing_email_or_deletion_takes_a_recent_login(client: TestClient, clock: MovableClock) -> None:
    """The login is at most five minutes old."""
    user = register(client, email="ada@example.com")
    login = log_in(client)
    clock.move(seconds=299.999)
    change = {"email": "ada@example.org"}
    assert client.patch("/users/me", json=change, headers=login.headers).status_code == 200
    clock.move(seconds=0.001)
    login = refreshed(client, login.refresh_token)

    for changes in {"email": "thief@example.com"}, {"email": None}, {"email": "no address"}, {"email": 1, "x": 1}:
        assert_stale(client.patch("/users/me", json=changes, headers=login.headers), 300)
    assert_stale(client.delete("/users/me", headers=login.headers), 300)

    assert client.get("/users/me", headers=login.headers).json()["email"] == "ada@example.org"
    for harmless in {}, change:
        assert client.patch("/users/me", json=harmless, headers=login.headers).status_code == 200
    assert faults(client.patch("/users/me", json={"name": "x"}, headers=login.headers)) == [["body"]]
    assert client.patch("/users/me", content="[", headers=login.headers).status_code in {415, 422}
    fresh = log_in(client)
    cleared = client.patch("/users/me", json={"email": None}, headers=fresh.headers)
    assert (cleared.json()["id"], cleared.json()["email"]) == (user["id"], None)
    assert client.delete("/users/me", headers=fresh.headers).status_code == 204


@pytest.mark.parametrize(("seconds", "statuses"), [(1, [200, 401]), (0, [401, 401]), (86_400, [200, 200])])
def test_how_long_a_login_is_fresh_is_set(serve: Serve, clock: MovableClock, seconds: int, statuses: list[int]) -> None:
    client = serve(fresh_login=seconds)
    login = sign_up(client)

    answers = [client.patch("/users/me", json={"email": "ada@example.com"}, headers=login.headers)]
    clock.move(seconds=1.5)
    answers.append(client.patch("/users/me", json={"email": "ada@example.org"}, headers=login.headers))

    assert [answer.status_code for answer in answers] == statuses
    for answer in answers:
        if answer.is_error:
            assert_stale(answer, seconds)


def test_scope_and_session_come_before_the_age_of_the_login(client: TestClient, clock: MovableClock) -> None:
    login, narrow = sign_up(client), log_in(client, scope="tasks:read")
    clock.move(minutes=10)

    for answer in (
        client.patch("/users/me", json={"email": None}, headers=narrow.headers),
        client.delete("/users/me", headers=narrow.headers),
    ):
        assert_bearer_error(answer, "insufficient_scope")
    client.post("/auth/revoke", data={"token": login.refresh_token})
    assert_bearer_error(client.delete("/users/me", headers=login.headers), "invalid_token")


@pytest.mark.parametrize(
    "email", ["ada@corp.local", "ada@mail.home.arpa", "ada@team.test", "ada@office.lan", "ada@app.internal"]
)
def test_an_address_of_an_intranet_is_one(client: TestClient, email: str) -> None:
    assert register(client, email=email)["email"] == email


@pytest.mark.parametrize(
    "email", ["ada@local", "ada@test", "ada@x.invalid", "ada@localhost", "ada@x.onion", "@x.local"]
)
def test_a_bad_email_address_is_refused(client: TestClient, email: str) -> None:
    body = {"username": "ada", "password": PASSWORD, "email": email}

    assert faults(client.post("/users", json=body)) == [["body", "email"]]


def test_a_change_touches_no_other_user(client: TestClient) -> None:
    register(client, "bob", email="bob@example.com")
    ada, bob = sign_up(client), log_in(client, "bob")

    client.patch("/users/me", json={"email": "ada@example.com"}, headers=ada.headers)

    assert client.get("/users/me", headers=bob.headers).json()["email"] == "bob@example.com"


def test_a_change_of_any_other_field_is_refused(client: TestClient) -> None:
    user = register(client)
    headers = {**log_in(client).headers, "Content-Type": "application/json"}
    refused = {
        '{"username": "eve"}': ["body"],
        '{"is_admin": true}': ["body"],
        '{"is_active": false}': ["body"],
        '{"password": "another long one"}': ["body"],
        '{"email": "eve"}': ["body", "email"],
        r'{"email": "eve\u0000@example.com"}': ["body", "email"],
        r'{"email": "\ud800@example.com"}': ["body", "email"],
        '{"email": 1}': ["body", "email"],
        "null": ["body"],
    }

    answers = {body: client.patch("/users/me", content=body, headers=headers) for body in refused}

    assert {body: faults(answer) for body, answer in answers.items()} == {
        body: [place] for body, place in refused.items()
    }
    assert not any("eve" in answer.text for answer in answers.values())
    assert client.get("/users/me", headers=headers).json() == user


@pytest.mark.parametrize("scope", ["tasks:read tasks:write", None], ids=["scope lacks", "no token"])
def test_an_account_is_closed_to_a_token_without_its_scope(client: TestClient, scope: str | None) -> None:
    user = register(client)
    headers = log_in(client, scope=scope).headers if scope else {}
    password = {"current_password": "correct horse battery", "new_password": "another long one"}

    answers = [
        client.get("/users/me", headers=headers),
        client.patch("/users/me", json={"email": "eve@example.com"}, headers=headers),
        client.put("/users/me/password", json=password, headers=headers),
        client.delete("/users/me", headers=headers),
    ]

    assert [answer.status_code for answer in answers] == [403 if scope else 401] * 4
    expected = 'error="insufficient_scope", scope="account"' if scope else REALM
    assert all(answer.headers["WWW-Authenticate"].endswith(expected) for answer in answers)
    assert client.get("/users/me", headers=log_in(client).headers).json() == user
