"""POST /auth/token, password grant: every client's form of it gets in, and a refusal never says why."""

from threading import Thread
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from app.auth.passwords import Cost
from app.config import Settings
from app.main import create_app
from tests.conftest import MovableClock, Sql, on_one_database
from tests.support.accounts import EVERY_SCOPE, EVERYTHING, PASSWORD, REALM, bearer, log_in, register
from tests.support.oauth_errors import assert_oauth_error
from tests.support.statements import after_each_statement

LOGIN = {"username": "ada", "password": PASSWORD}
URLENCODED = {"Content-Type": "application/x-www-form-urlencoded"}


def assert_bad_request(response: Response, error: str, detail: str) -> None:
    assert_oauth_error(response, error)
    assert response.json()["error_description"] == response.json()["detail"] == detail


def attempt(client: TestClient, **fields: str) -> Response:
    return client.post("/auth/token", data=LOGIN | fields)


@on_one_database
@pytest.mark.rfc("6749", "4.3.2")
@pytest.mark.rfc("6749", "5.1")
@pytest.mark.parametrize(
    "form",
    [
        pytest.param({"data": LOGIN}, id="urlencoded"),
        pytest.param({"files": {name: (None, value) for name, value in LOGIN.items()}}, id="multipart"),
        pytest.param({"data": LOGIN | {"grant_type": "password"}}, id="grant_type"),
        pytest.param({"data": LOGIN | {"grant_type": "", "client_id": "", "client_secret": ""}}, id="empty-is-absent"),
        pytest.param({"data": LOGIN | {"client_id": "app", "client_secret": "hush", "audience": "x"}}, id="client"),
        pytest.param(
            {
                "data": LOGIN | {"grant_type": "password", "scope": ""},
                "headers": {"Authorization": "Basic Og==", "X-Requested-With": "XMLHttpRequest"},
            },
            id="swagger-ui",
        ),
        pytest.param({"data": LOGIN | {"username": "ADA"}}, id="letter-case"),
        pytest.param(
            {"data": LOGIN, "headers": {"Content-Type": URLENCODED["Content-Type"] + "; charset=UTF-8"}}, id="charset"
        ),
        pytest.param(
            {"data": LOGIN, "headers": {"Content-Type": URLENCODED["Content-Type"] + "; charset=utf8"}}, id="utf8"
        ),
    ],
)
def test_a_login_brings_a_pair_of_tokens(client: TestClient, form: dict[str, Any]) -> None:
    register(client)

    response = client.post("/auth/token", **form)

    body = response.json()
    assert response.status_code == 200
    assert body == {
        "access_token": body["access_token"],
        "refresh_token": body["refresh_token"],
        "token_type": "bearer",
        "expires_in": 1800,
        "scope": EVERYTHING,
    }
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Pragma"] == "no-cache"
    assert client.get("/users/me", headers=bearer(body["access_token"])).json()["username"] == "ada"


@on_one_database
@pytest.mark.rfc("6749", "4.3.2")
@pytest.mark.parametrize(
    "form",
    [
        pytest.param(b"username=ada&password=%2010+%E2%82%AC%20%2B+5+%25+%26+%C3%BC%3D%C3%BC;+", id="escaped"),
        # `curl -d` sends this.
        pytest.param("username=ada&password=%2010+€+%2B+5+%25+%26+ü=ü;%20".encode(), id="raw"),
    ],
)
def test_a_password_arrives_as_it_was_typed(client: TestClient, form: bytes) -> None:
    """UTF-8 (RFC 6749 appendix B), in which `+` is a space unless it is escaped."""
    password = " 10 € + 5 % & ü=ü; "
    register(client, password=password)

    urlencoded = client.post("/auth/token", content=form, headers=URLENCODED)
    multipart = client.post("/auth/token", files={"username": (None, "ada"), "password": (None, password)})
    trimmed = attempt(client, password=password.strip())

    assert [response.status_code for response in (urlencoded, multipart, trimmed)] == [200, 200, 401]


def test_a_refusal_is_the_same_whatever_the_reason(client: TestClient, sql: Sql) -> None:
    """The same answer, after the same statements: neither a word nor a query tells who has an account."""
    corrupt = {
        "empty": "",
        "text": "plain é text",
        "bcrypt": "$2b$12$abcdefghijklmnopqrstuuu5LiBh6MzGUPjvPYO3Xn8GXH2rTnDCS",
        "cut": "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$c2hvcnQ",
        "no-salt": "$argon2id$v=19$m=8,t=1,p=1$",
        "no-number": "$argon2id$v=19$m=x,t=1,p=1$c29tZXNhbHQ$c29tZWhhc2g",
    }
    for username in "ada", "disabled", *corrupt:
        register(client, username)
    sql("UPDATE users SET is_active = FALSE WHERE username = 'disabled'")
    for username, stored in corrupt.items():
        sql(f"UPDATE users SET password_hash = '{stored}' WHERE username = '{username}'")

    answers, traces = set(), set()
    for fields in (
        {"username": "nobody"},
        {"username": "nobody", "password": "x" * 5000},
        {"password": "wrong horse battery"},
        {"password": "x" * 5000},
        {"username": "disabled"},
        {"username": "disabled", "password": "wrong horse battery"},
        *({"username": username} for username in corrupt),
    ):
        trace: list[str] = []
        with after_each_statement(trace.append):
            response = attempt(client, **fields)
        answers.add((response.status_code, response.content, tuple(response.headers.items())))
        traces.add(tuple(trace))

    ((status, body, headers),) = answers
    assert status == 401
    assert body == (
        b'{"detail":"Invalid credentials","code":"invalid_credentials",'
        b'"error":"invalid_grant","error_description":"Invalid credentials"}'
    )
    assert dict(headers)["www-authenticate"] == f'{REALM}, error="invalid_grant"'
    assert len(traces) == 1
    assert sql("SELECT id FROM sessions") == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("UPDATE users SET is_active = FALSE", id="disabled"),
        pytest.param("UPDATE users SET password_hash = 'another'", id="password-changed"),
        pytest.param("DELETE FROM users", id="deleted"),
    ],
)
def test_an_account_changed_during_the_check_is_not_let_in(client: TestClient, sql: Sql, change: str) -> None:
    register(client)

    def interfere(statement: str) -> None:
        if statement.startswith("SELECT users.id, users.password_hash"):
            thread = Thread(target=sql, args=(change,))  # the service's own thread runs an event loop
            thread.start()
            thread.join()

    with after_each_statement(interfere):
        response = attempt(client)

    assert response.status_code == 401
    assert response.json()["detail"] == "Invalid credentials"
    assert sql("SELECT id FROM sessions") == []


def test_a_login_strengthens_a_hash_and_never_weakens_one(
    client: TestClient, settings: Settings, clock: MovableClock, sql: Sql
) -> None:
    register(client)
    hashes = [str(sql("SELECT password_hash FROM users")[0][0])]

    for cost in Cost(16, 1, 1), Cost(16, 2, 1), Cost(16, 2, 2):
        with TestClient(create_app(settings, clock=clock, password_cost=cost)) as stronger:
            attempt(stronger, password="wrong horse battery")
            assert sql("SELECT password_hash FROM users") == [(hashes[-1],)]
            log_in(stronger)
            hashes.append(str(sql("SELECT password_hash FROM users")[0][0]))
            log_in(stronger)
    log_in(client)

    assert [stored.split("$")[3] for stored in hashes] == [
        "m=8,t=1,p=1",
        "m=16,t=1,p=1",
        "m=16,t=2,p=1",
        "m=16,t=2,p=2",
    ]
    assert sql("SELECT password_hash FROM users") == [(hashes[-1],)]


def test_lower_case_does_not_turn_a_letter_into_another(client: TestClient) -> None:
    register(client, "kate")

    assert attempt(client, username="KATE").status_code == 200
    assert attempt(client, username="\N{KELVIN SIGN}ate").status_code == 401


@on_one_database
@pytest.mark.rfc("6749", "3.2")
def test_a_field_that_is_missing_or_repeated_is_named(client: TestClient, subtests: pytest.Subtests) -> None:
    for form, detail in {
        "": "username: Field required",
        "password=x": "username: Field required",
        "username=&password=x": "username: Field required",
        "username=ada": "password: Field required",
        "username=ada&password=": "password: Field required",
        "grant_type=refresh_token&username=ada&password=x": "refresh_token: Field required",
        "grant_type=refresh_token&refresh_token=": "refresh_token: Field required",
        "username=ada&username=ada&password=x": "username: Field sent more than once",
        "username=ada&password=x&pass%77ord=": "password: Field sent more than once",
        "username=ada&password=x&scope=account&scope=admin": "scope: Field sent more than once",
        "username=ada&password=x&grant_type=&grant_type=password": "grant_type: Field sent more than once",
    }.items():
        with subtests.test(form):
            response = client.post("/auth/token", content=form, headers=URLENCODED)

            assert_bad_request(response, "invalid_request", detail)


@on_one_database
@pytest.mark.rfc("6749", "3.2")
def test_credentials_in_the_query_string_are_not_read(client: TestClient) -> None:
    register(client)

    response = client.post("/auth/token", params=LOGIN, data={"grant_type": "password"})

    assert_bad_request(response, "invalid_request", "username: Field required")


@on_one_database
@pytest.mark.rfc("6749", "5.2")
def test_another_grant_is_not_supported(client: TestClient, subtests: pytest.Subtests) -> None:
    for grant_type in "client_credentials", "PASSWORD", "password ":
        with subtests.test(grant_type):
            response = attempt(client, grant_type=grant_type)

            assert_bad_request(response, "unsupported_grant_type", "grant_type must be password or refresh_token")


def test_a_scope_that_may_not_be_had_is_refused(client: TestClient, sql: Sql, subtests: pytest.Subtests) -> None:
    register(client)

    for scope in "tasks:delete", "tasks:read tasks:delete", "Account", "tasks:read,account", "admin":
        with subtests.test(scope):
            response = attempt(client, scope=scope)

            assert_bad_request(response, "invalid_scope", "Unknown scope, or not allowed for this user")
    assert sql("SELECT id FROM sessions") == []


@on_one_database
@pytest.mark.parametrize("grant", ["password", "refresh_token"])
def test_a_scope_is_words_with_a_space_between(client: TestClient, grant: str, subtests: pytest.Subtests) -> None:
    """Else it would be everything, or more than one word: more than the client has asked for."""
    register(client)
    login = log_in(client)
    form = {"grant_type": grant, "refresh_token": login.refresh_token} | LOGIN
    blank = [chr(n) for n in range(1, 0x3001) if chr(n).isspace() and chr(n) != " "]
    malformed = [" ", "  ", " account", "account ", "account  tasks:read", *blank]
    malformed += [f"account{space}tasks:read" for space in blank] + [f"account {space}" for space in blank]
    malformed += ['"account"', "account,tasks:read", "account\\", "ACCOUNT", "\u200b", "account\u200b"]

    for scope in malformed:
        with subtests.test(ascii(scope)):
            response = client.post("/auth/token", data=form | {"scope": scope})

            assert_bad_request(response, "invalid_scope", "Unknown scope, or not allowed for this user")
    for scope, granted in {
        "": EVERYTHING,
        "account": "account",
        "account tasks:read": "tasks:read account",
        "account account": "account",
    }.items():
        response = client.post("/auth/token", data=form | {"scope": scope})
        assert response.json()["scope"] == granted


@on_one_database
@pytest.mark.parametrize("scope", ["bogus", " ", "account bogus"])
def test_an_unknown_scope_is_refused_before_the_password_check(client: TestClient, scope: str) -> None:
    register(client)
    statements: list[str] = []

    with after_each_statement(statements.append):
        answers = [attempt(client, scope=scope, password=password) for password in (PASSWORD, "wrong horse battery")]

    assert [answer.json()["error"] for answer in answers] == ["invalid_scope"] * 2
    assert answers[0].content == answers[1].content
    assert statements == []
    assert attempt(client, scope=scope, password="").json()["detail"] == "password: Field required"


def test_an_administrator_gets_what_is_asked_for(client: TestClient, sql: Sql, subtests: pytest.Subtests) -> None:
    register(client)
    sql("UPDATE users SET is_admin = TRUE")

    for asked, granted in {
        "": EVERY_SCOPE,
        "admin": "admin",
        "account tasks:read": "tasks:read account",
        "tasks:read tasks:read": "tasks:read",
    }.items():
        with subtests.test(asked):
            assert log_in(client, scope=asked).scope == granted
