"""GET and PATCH /users/me: one's own profile, and what may change in it."""

import pytest
from fastapi.testclient import TestClient

from tests.accounts import faults, log_in, register, sign_up
from tests.conftest import MovableClock


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


def test_a_change_touches_no_other_user(client: TestClient) -> None:
    register(client, "bob", email="bob@example.com")
    ada, bob = sign_up(client), log_in(client, "bob")

    client.patch("/users/me", json={"email": "ada@example.com"}, headers=ada.headers)

    assert client.get("/users/me", headers=bob.headers).json()["email"] == "bob@example.com"


def test_what_may_not_change_is_refused(client: TestClient) -> None:
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
    expected = 'error="insufficient_scope", scope="account"' if scope else 'Bearer realm="bearer-tasks"'
    assert all(answer.headers["WWW-Authenticate"].endswith(expected) for answer in answers)
    assert client.get("/users/me", headers=log_in(client).headers).json() == user
