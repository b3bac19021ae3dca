"""Personal tokens: made once, shown once, good where an access token is, and over at once."""

import logging
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from app.auth import personal_tokens
from app.auth.token_format import ALPHABET, hash_token, is_token, new_token
from tests.conftest import MovableClock, Serve, Sql
from tests.support.accounts import PASSWORD, Login, add_user, bearer, create_task, faults, log_in, sign_up
from tests.support.statements import after_each_statement

DAY = 86_400
GONE = {"detail": "Personal token not found", "code": "token_not_found"}


def make(client: TestClient, login: Login, **fields: Any) -> Response:
    return client.post("/auth/tokens", json={"name": "Backup", **fields}, headers=login.headers)


def made(client: TestClient, login: Login, **fields: Any) -> dict[str, Any]:
    response = make(client, login, **fields)
    assert response.status_code == 201, response.text
    body: dict[str, Any] = response.json()
    return body


def tokens(client: TestClient, login: Login, **params: Any) -> list[dict[str, Any]]:
    response = client.get("/auth/tokens", params=params, headers=login.headers)
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


def assert_over(client: TestClient, token: str, detail: str) -> None:
    for url in "/tasks/mine", "/tasks":
        answer = client.get(url, headers=bearer(token))
        assert (answer.status_code, answer.json()) == (401, {"detail": detail, "code": "invalid_token"})
        assert f'error="invalid_token", error_description="{detail}"' in answer.headers["WWW-Authenticate"]


def test_the_answer_shows_the_token_once(client: TestClient, sql: Sql) -> None:
    login = sign_up(client)

    response = make(client, login, name="Backup script")

    body = response.json()
    token = body.pop("token")
    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    assert body == {
        "id": body["id"],
        "name": "Backup script",
        "scope": "tasks:read tasks:write",
        "created_at": "2026-11-23T09:00:00Z",
        "last_used_at": None,
        "expires_at": "2027-02-21T09:00:00Z",
    }
    assert re.fullmatch("bt_[0-9A-Za-z]{46}", token)
    assert tokens(client, login) == [body]
    [(kept,)] = sql("SELECT token_hash FROM sessions WHERE kind = 'personal'")
    assert kept == hash_token(token)


def test_a_token_does_what_its_scope_allows(client: TestClient) -> None:
    login = sign_up(client)
    reading = bearer(made(client, login, scope="tasks:read")["token"])
    writing = bearer(made(client, login)["token"])
    account = bearer(made(client, login, scope="account")["token"])

    assert client.post("/tasks/", json={"title": "Water"}, headers=writing).status_code == 201
    assert [task["title"] for task in client.get("/tasks/", headers=reading).json()["items"]] == ["Water"]
    assert client.get("/users/me", headers=account).json()["username"] == "ada"
    refused = client.post("/tasks/", json={"title": "Water"}, headers=reading)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert client.get("/tasks/mine", headers=account).status_code == 403


def test_a_token_has_no_scope_that_its_maker_lacks(client: TestClient) -> None:
    sign_up(client)
    login = log_in(client, scope="account tasks:read")

    refused = make(client, login)

    assert refused.json() == {"detail": "The access token lacks the scope tasks:write", "code": "insufficient_scope"}
    assert make(client, login, scope="tasks:read admin").status_code == 403
    assert made(client, login, scope="tasks:read account")["scope"] == "tasks:read account"


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "\u200b"},
        {"name": "x" * 101},
        {"name": None},
        {"scope": ""},
        {"scope": "tasks:read  account"},
        {"scope": "tasks"},
        {"expires_in": 0},
        {"expires_in": 366 * DAY + 1},
        {"expires_in": "60"},
        {"expires_in": 60.5},
        {"expires_in": True},
    ],
)
def test_a_bad_field_is_refused(client: TestClient, fields: dict[str, Any]) -> None:
    login = sign_up(client)

    assert faults(make(client, login, **fields)) == [["body", *fields]]
    assert tokens(client, login) == []


@pytest.mark.rfc("9470", "3")
def test_a_fresh_login_is_needed(client: TestClient, clock: MovableClock, serve: Serve) -> None:
    """A personal token is never fresh, so it makes no other one."""
    login = sign_up(client)
    token = made(client, login, scope="account")["token"]
    lasting = serve(fresh_login=DAY)

    for service, headers in (client, bearer(token)), (lasting, bearer(token)):
        answer = service.post("/auth/tokens", json={"name": "x", "scope": "account"}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "insufficient_user_authentication")
    clock.move(seconds=300)
    assert make(client, login).status_code == 401
    assert len(tokens(client, login)) == 1


def test_the_day_of_the_latest_use_is_noted(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)
    token = made(client, login)["token"]

    client.get("/tasks/mine", headers=bearer(token))
    assert tokens(client, login)[0]["last_used_at"] == "2026-11-23T00:00:00Z"
    clock.move(days=2, hours=3)
    client.get("/tasks/mine", headers=bearer(token))
    client.get("/tasks/mine", headers=bearer(token))
    assert tokens(client, log_in(client))[0]["last_used_at"] == "2026-11-25T00:00:00Z"


def test_a_token_expires(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)
    token = made(client, login, expires_in=60)["token"]

    clock.move(seconds=59)
    assert client.get("/tasks/mine", headers=bearer(token)).status_code == 200
    clock.move(seconds=1)

    assert_over(client, token, "The access token has expired")
    assert tokens(client, login) == []


def test_a_deleted_token_stops_at_once(client: TestClient) -> None:
    login, bob = sign_up(client), sign_up(client, "bob")
    body = made(client, login)
    client.get("/tasks/mine", headers=bearer(body["token"]))

    for_bob = client.delete(f"/auth/tokens/{body['id']}", headers=bob.headers)
    gone = client.delete(f"/auth/tokens/{body['id']}", headers=login.headers)
    again = client.delete(f"/auth/tokens/{body['id']}", headers=login.headers)

    assert [for_bob.status_code, gone.status_code, again.status_code] == [404, 204, 404]
    assert for_bob.json() == again.json() == GONE
    assert_over(client, body["token"], "The session was signed out")


def test_sessions_and_tokens_are_two_lists(client: TestClient) -> None:
    login = sign_up(client)
    body = made(client, login)

    [session] = client.get("/auth/sessions", headers=login.headers).json()["items"]
    as_token = client.delete(f"/auth/tokens/{session['id']}", headers=login.headers)
    as_session = client.delete(f"/auth/sessions/{body['id']}", headers=login.headers)
    others = client.delete("/auth/sessions", headers=login.headers)

    assert [as_token.status_code, as_session.status_code, others.status_code] == [404, 404, 204]
    assert client.get("/tasks/mine", headers=bearer(body["token"])).status_code == 200


@pytest.mark.rfc("7009", "2.1")
def test_a_token_can_be_revoked(client: TestClient, clock: MovableClock, caplog: pytest.LogCaptureFixture) -> None:
    login = sign_up(client)
    token, old = made(client, login)["token"], made(client, login, expires_in=1)["token"]
    clock.move(seconds=2)

    with caplog.at_level(logging.INFO, "app.observe.events"):
        for each in token, token, old, new_token():
            assert client.post("/auth/revoke", data={"token": each}).status_code == 200

    assert re.findall('"event": "([a-z]+_revoked)"', caplog.text) == ["token_revoked", "token_revoked"]
    assert_over(client, token, "The session was signed out")


@pytest.mark.rfc("7662", "2.2")
def test_a_token_is_introspected(client: TestClient, clock: MovableClock) -> None:
    login, bob = sign_up(client), sign_up(client, "bob")
    body = made(client, login, expires_in=60.0)

    def ask(asker: Login, token: str = body["token"]) -> dict[str, Any]:
        found: dict[str, Any] = client.post("/auth/introspect", data={"token": token}, headers=asker.headers).json()
        return found

    mine = ask(login)
    assert mine == {
        "active": True,
        "scope": "tasks:read tasks:write",
        "username": "ada",
        "token_type": "bearer",
        "sub": mine["sub"],
        "iss": "http://127.0.0.1:8000",
        "aud": "http://127.0.0.1:8000",
        "jti": body["id"],
        "iat": 1795424400,
        "exp": 1795424460,
    }
    assert ask(bob) == ask(login, new_token()) == ask(login, f"{body['token'][:-1]}-") == {"active": False}
    clock.move(seconds=60)
    assert ask(login) == {"active": False}


@pytest.mark.parametrize("which", ["reset", "disabled", "signed out", "demoted", "deleted"])
def test_tokens_end_with_all_sessions_of_the_account(client: TestClient, which: str) -> None:
    sign_up(client)
    add_user(client, "root", is_admin=True)
    root, ada = log_in(client, "root"), log_in(client)
    user_id = client.get("/users/me", headers=ada.headers).json()["id"]
    token = made(client, ada)["token"]
    admins = made(client, root, scope="admin")["token"]
    plain = made(client, root)["token"]
    assert client.get("/users", headers=bearer(admins)).status_code == 200
    url = f"/users/{user_id}"

    match which:
        case "reset":
            reset = client.post(f"{url}/reset-token", headers=root.headers).json()["reset_token"]
            new = {"reset_token": reset, "new_password": PASSWORD[::-1]}
            assert client.post("/users/reset-password", json=new).status_code == 204
            assert_over(client, token, "The password was changed")
        case "disabled":
            client.patch(url, json={"is_active": False}, headers=root.headers)
            assert_over(client, token, "The user was disabled")
        case "signed out":
            client.delete(f"{url}/sessions", headers=root.headers)
            assert_over(client, token, "The session was signed out")
        case "demoted":
            client.patch(url, json={"is_admin": True}, headers=root.headers)
            own = client.get("/users/me", headers=root.headers).json()["id"]
            client.patch(f"/users/{own}", json={"is_admin": False}, headers=root.headers)
            assert_over(client, admins, "The user is no longer an administrator")
            assert client.get("/tasks/mine", headers=bearer(plain)).status_code == 200
        case "deleted":
            client.delete(url, headers=root.headers)
            assert_over(client, token, "The access token is not valid")


def test_a_password_change_leaves_tokens(client: TestClient) -> None:
    login = sign_up(client)
    token = made(client, login)["token"]

    new = {"current_password": PASSWORD, "new_password": PASSWORD[::-1]}
    assert client.put("/users/me/password", json=new, headers=login.headers).is_success

    assert client.get("/tasks/mine", headers=bearer(token)).status_code == 200


def test_an_account_has_at_most_a_hundred(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(personal_tokens, "MAX_TOKENS", 2)
    login, bob = sign_up(client), sign_up(client, "bob")
    first = made(client, login)
    made(client, login)

    refused = make(client, login)

    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_tokens")
    assert made(client, bob)
    client.delete(f"/auth/tokens/{first['id']}", headers=login.headers)
    assert made(client, login)


def test_the_list_has_pages(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)
    for name in "abc":
        made(client, login, name=name)
        clock.move(seconds=1)

    first = client.get("/auth/tokens", params={"limit": 2}, headers=login.headers).json()
    rest = tokens(client, login, limit=2, cursor=first["next_cursor"])

    assert [token["name"] for token in (*first["items"], *rest)] == ["c", "b", "a"]


def test_a_wrong_checksum_costs_no_look_at_the_database(client: TestClient) -> None:
    login = sign_up(client)
    token = made(client, login)["token"]
    wrong = [token[:-1] + ("a" if token[-1] != "a" else "b"), token[:-1], f"{token}a", "bt_", f"bt_{'é' * 46}"]

    statements: list[str] = []
    with after_each_statement(statements.append):
        for each in wrong:
            headers = {b"Authorization": b"Bearer " + each.encode()}
            answer = client.get("/tasks/mine", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")

    assert statements == []
    assert_over(client, new_token(), "The access token is not valid")


def test_a_process_reads_a_token_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """It forgets all that it knows when that gets too much, and reads them again."""
    monkeypatch.setattr(personal_tokens, "REMEMBERED", 2)
    login = sign_up(client)
    made_tokens = [made(client, login)["token"] for _ in range(3)]
    create_task(client, login)

    for token in [*made_tokens, *made_tokens]:
        assert len(client.get("/tasks/mine", headers=bearer(token)).json()["items"]) == 1


def test_a_checksum_finds_each_wrong_character() -> None:
    token = new_token()

    assert is_token(token)
    for at in range(3, len(token)):
        for character in ALPHABET:
            assert is_token(token[:at] + character + token[at + 1 :]) == (character == token[at])
