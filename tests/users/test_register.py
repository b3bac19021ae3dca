"""POST /users: anybody may make an account with a free name, while registration is open."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy.exc import IntegrityError

from tests.conftest import Serve, Sql, on_one_database
from tests.support.accounts import PASSWORD, faults, log_in, register, sign_up

COUNT = "SELECT count(*) FROM users"


def post(client: TestClient, **fields: Any) -> Response:
    return client.post("/users", json={"username": "ada", "password": PASSWORD} | fields)


def test_a_new_user_is_active_no_administrator_and_can_log_in(client: TestClient) -> None:
    response = post(client)

    user = response.json()
    assert response.status_code == 201
    assert user == {
        "id": user["id"],
        "username": "ada",
        "email": None,
        "email_verified": False,
        "is_active": True,
        "is_admin": False,
        "totp": False,
        "created_at": "2026-11-23T09:00:00Z",
        "updated_at": "2026-11-23T09:00:00Z",
    }
    assert client.get("/users/me", headers=log_in(client).headers).json() == user


def test_an_email_may_be_given(client: TestClient) -> None:
    expected = {
        "ada@example.com": "ada@example.com",
        "Ada+tag@EXAMPLE.com": "Ada+tag@example.com",
        "\u00e4da@m\u00fcnchen.de": "\u00e4da@m\u00fcnchen.de",
        None: None,
    }

    users = {email: register(client, f"user-{number}", email=email) for number, email in enumerate(expected)}

    assert {email: user["email"] for email, user in users.items()} == expected


def test_a_username_is_kept_as_it_is_written(client: TestClient) -> None:
    for username in "Ada.Lovelace_1815-", "ada", "x" * 64, "_._", "123":
        assert register(client, username)["username"] == username


@on_one_database
@pytest.mark.parametrize("username", ["-ada", ".ada", "...", "---"])
def test_a_username_does_not_begin_with_a_dot_or_a_hyphen(client: TestClient, username: str) -> None:
    response = post(client, username=username)

    assert faults(response) == [["body", "username"]]
    assert "no dot or hyphen at the start" in response.text


@on_one_database
@pytest.mark.parametrize(
    "username", ["admin", "Admin", "ADMINISTRATOR", "root", "support", "system", "security", "help"]
)
def test_a_name_that_sounds_official_is_reserved(client: TestClient, username: str) -> None:
    response = post(client, username=username)

    assert faults(response) == [["body", "username"]]
    assert "reserved" in response.text
    assert post(client, username=f"{username}1").status_code == 201


def test_a_name_is_taken_in_any_letter_case(client: TestClient, sql: Sql) -> None:
    register(client, "Ada")

    answers = [post(client, username=username) for username in ("Ada", "ada", "ADA")]

    assert [answer.status_code for answer in answers] == [409, 409, 409]
    assert all(answer.json() == {"detail": "The username is taken", "code": "username_taken"} for answer in answers)
    assert sql(COUNT) == [(1,)]


def test_one_of_parallel_registrations_gets_the_name(client: TestClient, sql: Sql) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda username: post(client, username=username), ["ada", "Ada", "ADA", "ada"]))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert sql(COUNT) == [(1,)]


def test_nobody_registers_while_registration_is_closed(serve: Serve, sql: Sql) -> None:
    response = post(serve(registration="closed"))

    assert response.status_code == 403
    assert response.json() == {"detail": "Registration is closed", "code": "registration_closed"}
    assert sql(COUNT) == [(0,)]


REFUSED: dict[str, tuple[dict[str, Any], str | None]] = {
    "2 characters": ({"username": "ad"}, "username"),
    "65 characters": ({"username": "x" * 65}, "username"),
    "space": ({"username": "ada lovelace"}, "username"),
    "newline after it": ({"username": "ada\n"}, "username"),
    "NUL": ({"username": "ada\0"}, "username"),
    "at sign": ({"username": "ada@example.com"}, "username"),
    "Kelvin sign, a k in lower case": ({"username": "\u212aelvin"}, "username"),
    "other digits": ({"username": "ada\u0661"}, "username"),
    "number": ({"username": 1815}, "username"),
    "null": ({"username": None}, "username"),
    "null password": ({"password": None}, "password"),
    "number for a password": ({"password": 123456789012}, "password"),
    "no address": ({"email": "ada"}, "email"),
    "empty address": ({"email": ""}, "email"),
    "name and address": ({"email": "Ada <ada@example.com>"}, "email"),
    "newline after the address": ({"email": "ada@example.com\n"}, "email"),
    "header in the address": ({"email": "ada@example.com\r\nBcc: bob@example.com"}, "email"),
    "NUL in the address": ({"email": "a\0da@example.com"}, "email"),
    "256 characters": ({"email": "a" * 64 + "@" + "b." * 94 + "com"}, "email"),
    "administrator": ({"is_admin": True}, None),
    "unknown field": ({"secret_field": 1}, None),
}


def test_a_bad_account_is_refused_by_field_and_not_stored(client: TestClient, sql: Sql) -> None:
    answers = {name: post(client, **fields) for name, (fields, _) in REFUSED.items()}

    places = {name: [["body", field] if field else ["body"]] for name, (_, field) in REFUSED.items()}
    assert {name: faults(answer) for name, answer in answers.items()} == places
    for answer in answers.values():
        assert PASSWORD not in answer.text
        assert "secret" not in answer.text
        assert "Bcc" not in answer.text
    assert sql(COUNT) == [(0,)]


def test_text_that_cannot_be_sent_back_is_refused(client: TestClient, sql: Sql) -> None:
    body = r'{"username": "ada\ud800", "password": "correct horse \ud800", "email": "\ud800@example.com"}'

    response = client.post("/users", content=body, headers={"Content-Type": "application/json"})

    assert faults(response) == [["body", "username"], ["body", "password"], ["body", "email"]]
    assert sql(COUNT) == [(0,)]


@pytest.mark.parametrize("method", ["post", "patch"])
def test_another_violated_constraint_is_no_taken_name(client: TestClient, sql: Sql, method: str) -> None:
    """A team may make addresses unique, for example. The service must not call that error something else."""
    register(client, email="ada@example.com")
    bob = sign_up(client, "bob")
    sql("CREATE UNIQUE INDEX one_owner ON users (email)")
    body = {"email": "ada@example.com"} | ({"username": "eve", "password": PASSWORD} if method == "post" else {})
    try:
        with pytest.raises(IntegrityError):
            client.request(method, "/users" if method == "post" else "/users/me", json=body, headers=bob.headers)
    finally:
        sql("DROP INDEX one_owner")
