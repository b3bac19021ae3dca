"""PUT /users/me/password, and the rules of passwords: long enough, not common, and any text otherwise."""

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from tests.conftest import MovableClock, Sql, on_one_database
from tests.support.accounts import PASSWORD, Login, faults, log_in, refresh, refreshed, register, sign_up

NEW = "another long one"
E_NFC, E_NFD = "\u00e9", "e\u0301"


def change(client: TestClient, login: Login, current: str = PASSWORD, new: str = NEW) -> Response:
    body = {"current_password": current, "new_password": new}
    return client.put("/users/me/password", json=body, headers=login.headers)


def can_log_in(client: TestClient, password: str) -> bool:
    return client.post("/auth/token", data={"username": "ada", "password": password}).status_code == 200


def test_a_new_password_takes_the_old_ones_place(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)
    clock.move(seconds=1)

    response = change(client, login)

    renewed = Login.of(response)
    assert response.headers["Cache-Control"] == "no-store"
    assert renewed.scope == login.scope
    assert can_log_in(client, NEW)
    assert not can_log_in(client, PASSWORD)
    assert client.get("/users/me", headers=renewed.headers).json()["updated_at"] == "2026-11-23T09:00:01Z"


def test_every_token_from_before_is_dead_at_once(client: TestClient) -> None:
    stranger = sign_up(client, "bob")
    this, other = sign_up(client), log_in(client)

    renewed = Login.of(change(client, this))

    for dead in this, other:
        refused = client.get("/tasks/mine", headers=dead.headers)
        assert refused.status_code == 401
        assert refused.json() == {"detail": "The password was changed", "code": "invalid_token"}
        assert refresh(client, dead.refresh_token).json()["detail"] == "The password was changed"
    assert client.get("/tasks/mine", headers=renewed.headers).status_code == 200
    assert client.get("/tasks/mine", headers=refreshed(client, renewed.refresh_token).headers).status_code == 200
    assert client.get("/tasks/mine", headers=stranger.headers).status_code == 200


def test_the_session_that_goes_on_is_no_new_login(client: TestClient, clock: MovableClock) -> None:
    """It is as old as the login, ends as soon, and may do no more."""
    register(client)
    login = log_in(client, scope="account tasks:read")
    clock.move(seconds=300)

    renewed = Login.of(change(client, login))

    assert renewed.scope == "tasks:read account"
    [session] = client.get("/auth/sessions", headers=renewed.headers).json()["items"]
    assert (session["created_at"], session["last_used_at"]) == ("2026-11-23T09:00:00Z", "2026-11-23T09:05:00Z")
    assert session["expires_at"] == "2026-12-23T09:00:00Z"
    stale = client.patch("/users/me", json={"email": "ada@example.com"}, headers=renewed.headers)
    assert stale.json()["code"] == "insufficient_user_authentication"


def test_a_personal_token_changes_no_password(client: TestClient, sql: Sql) -> None:
    login = sign_up(client)
    sql("UPDATE sessions SET kind = 'personal'")

    response = change(client, login)

    assert (response.status_code, response.json()["code"]) == (401, "insufficient_user_authentication")
    assert can_log_in(client, PASSWORD)


def test_a_wrong_current_password_changes_nothing(client: TestClient) -> None:
    this, other = sign_up(client), log_in(client)

    for current in "wrong horse battery", PASSWORD.upper(), f"{PASSWORD} ", "", NEW:
        response = change(client, this, current=current)
        assert response.status_code == 403
        assert response.json() == {"detail": "The current password is wrong", "code": "wrong_password"}

    assert can_log_in(client, PASSWORD)
    assert client.get("/tasks/mine", headers=other.headers).status_code == 200


def test_a_bad_new_password_changes_nothing(client: TestClient) -> None:
    register(client, "ada.lovelace")
    this, other = log_in(client, "ada.lovelace"), log_in(client, "ada.lovelace")

    for new in "2short!", "x" * 129, "Password1", "Ada.Lovelace", "nul\0 nul\0 nul\0":
        response = change(client, this, new=new)
        assert response.status_code == 422
        assert new not in response.text

    assert client.get("/tasks/mine", headers=other.headers).status_code == 200
    assert log_in(client, "ada.lovelace", PASSWORD).scope == this.scope


@on_one_database
def test_both_passwords_must_be_there_and_nothing_else(client: TestClient) -> None:
    login = sign_up(client)
    url, both = "/users/me/password", {"current_password": PASSWORD, "new_password": NEW}

    one = client.put(url, json={"new_password": NEW}, headers=login.headers)
    three = client.put(url, json=both | {"new_pasword": NEW}, headers=login.headers)

    assert faults(one) == [["body", "current_password"]]
    assert faults(three) == [["body"]]
    assert NEW not in one.text + three.text


REFUSED = {
    "7 characters": "2short!",
    "7 characters in NFD": E_NFD * 7,
    "129 characters": "x" * 129,
    "NUL": "correct horse\0battery",
    "common": "password1",
    "common, letter case aside": "PassWord1",
    "common, letters only": "iloveyou",
    "the username": "ada.lovelace",
    "the username, letter case aside": "ADA.Lovelace",
}


def test_a_weak_or_unstorable_password_registers_nobody(client: TestClient, sql: Sql) -> None:
    answers = {
        name: client.post("/users", json={"username": "Ada.Lovelace", "password": password})
        for name, password in REFUSED.items()
    }

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(REFUSED, 422)
    assert not any(password in answers[name].text for name, password in REFUSED.items())
    assert sql("SELECT count(*) FROM users") == [(0,)]


def test_a_password_is_not_the_e_mail_address(client: TestClient, root: Login) -> None:
    """Letter case does not matter, and the rule holds wherever a user sets a password."""
    address = "Ada.L@example.com"
    refused = client.post("/users", json={"username": "ada", "password": "ada.l@EXAMPLE.com", "email": address})
    assert (faults(refused), refused.json()["detail"][0]["msg"]) == ([["body"]], "The password is the e-mail address")
    user = register(client, email=address)
    login = log_in(client)

    assert faults(change(client, login, PASSWORD, address)) == [["body"]]
    token = client.post(f"/users/{user['id']}/reset-token", headers=root.headers).json()["reset_token"]
    body = {"reset_token": token, "new_password": address.upper()}
    assert faults(client.post("/users/reset-password", json=body)) == [["body"]]

    assert change(client, login, PASSWORD, "bob@example.com").status_code == 200


@on_one_database
@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("passw0rd", "The password is on the list of common passwords"),
        ("ada.lovelace", "The password is the username"),
    ],
    ids=["common", "username"],
)
def test_a_weak_password_is_refused_with_the_reason(client: TestClient, password: str, reason: str) -> None:
    response = client.post("/users", json={"username": "ada.lovelace", "password": password})

    assert faults(response) == [["body"]]
    assert [fault["msg"] for fault in response.json()["detail"]] == [reason]


@on_one_database
def test_any_other_text_is_a_password_and_only_that_very_text(client: TestClient) -> None:
    login, current = sign_up(client), PASSWORD
    passwords = [
        "        ",
        " tab\t, newline\n, bell\x07",
        "\N{GRINNING FACE}" * 8,
        "\N{GRINNING FACE}" * 128,
        "qzjxvwkp",
        "aaaaaaaaaaaaaaaab",
        "\u5bc6\u7801\u5bc6\u7801\u5bc6\u7801\u5bc6\u7801",
        "a+b&c=d%20;\"'\\",
        "\ufb01\u200b\u00a0\ufeff!\u202e..",
    ]

    for password in passwords:
        login = Login.of(change(client, login, current, password))
        assert can_log_in(client, password)
        assert not can_log_in(client, current)
        current = password


@on_one_database
@pytest.mark.parametrize("length", [8, 128])
def test_an_accent_is_the_same_from_every_keyboard(client: TestClient, length: int) -> None:
    """One keyboard sends é as one code point, another as two. A user sees one character."""
    composed, decomposed = E_NFC * length, E_NFD * length
    register(client, "ada", password=composed)
    register(client, "bob", password=decomposed)

    ada, bob = log_in(client, "ada", decomposed), log_in(client, "bob", composed)

    assert change(client, ada, current=decomposed).status_code == 200
    assert change(client, bob, current=composed).status_code == 200
