"""POST /auth/revoke (RFC 7009): whoever holds a token of a session can end it, and learns nothing else."""

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from tests.conftest import MovableClock, Serve, Sql
from tests.support.accounts import Login, log_in, refresh, refreshed, sign_up

SIGNED_OUT = "The session was signed out"


def revoke(client: TestClient, token: str, **fields: str) -> Response:
    return client.post("/auth/revoke", data={"token": token} | fields)


def assert_done(response: Response) -> None:
    assert (response.status_code, response.content) == (200, b"{}")
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"


def assert_ended(client: TestClient, login: Login) -> None:
    answer = client.get("/tasks/mine", headers=login.headers)
    assert (answer.status_code, answer.json()) == (401, {"detail": SIGNED_OUT, "code": "invalid_token"})
    assert refresh(client, login.refresh_token).json()["detail"] == SIGNED_OUT


@pytest.mark.rfc("7009", "2")
@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        pytest.param("refresh_token", {}, id="refresh-token"),
        pytest.param("access_token", {}, id="access-token"),
        pytest.param("refresh_token", {"token_type_hint": "refresh_token"}, id="right-hint"),
        pytest.param("refresh_token", {"token_type_hint": "access_token"}, id="wrong-hint"),
        pytest.param("access_token", {"token_type_hint": "saml2", "client_id": "app"}, id="unknown-hint"),
    ],
)
def test_a_token_of_either_kind_ends_its_session_and_no_other(
    client: TestClient, kind: str, fields: dict[str, str]
) -> None:
    login, other = sign_up(client), log_in(client)

    assert_done(revoke(client, getattr(login, kind), **fields))

    assert_ended(client, login)
    assert client.get("/tasks/mine", headers=other.headers).status_code == 200
    assert refresh(client, other.refresh_token).status_code == 200


def test_a_form_of_parts_is_taken(client: TestClient) -> None:
    login = sign_up(client)

    assert_done(client.post("/auth/revoke", files={"token": (None, login.refresh_token)}))

    assert_ended(client, login)


def test_a_replaced_refresh_token_ends_its_session(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)
    successor = refreshed(client, login.refresh_token)
    clock.move(minutes=1)

    assert_done(revoke(client, login.refresh_token))

    assert_ended(client, successor)


def test_an_expired_access_token_ends_its_session(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)
    clock.move(hours=1)

    assert_done(revoke(client, login.access_token))

    assert refresh(client, login.refresh_token).json()["detail"] == SIGNED_OUT


def test_a_repeat_changes_nothing(client: TestClient, clock: MovableClock, sql: Sql) -> None:
    login = sign_up(client)
    revoke(client, login.refresh_token)
    ended = sql("SELECT ended_at, end_reason FROM sessions")
    clock.move(days=31)

    assert_done(revoke(client, login.refresh_token))

    assert sql("SELECT ended_at, end_reason FROM sessions") == ended


def test_a_token_of_a_deleted_user_is_done_with(client: TestClient) -> None:
    login = sign_up(client)
    assert client.delete("/users/me", headers=login.headers).status_code == 204

    assert_done(revoke(client, login.refresh_token))


@pytest.mark.rfc("7009", "2.2")
def test_an_unknown_token_is_done_with_and_ends_nothing(client: TestClient, serve: Serve) -> None:
    login = sign_up(client)
    head, payload, signature = login.refresh_token.split(".")
    elsewhere = log_in(serve(secret_key="some-other-key-of-32-bytes-or-more!"))

    for token in "garbage", "é", "x" * 5000, f"{head}.{payload}.A{signature[1:]}A", elsewhere.refresh_token:
        assert_done(revoke(client, token))

    assert refresh(client, login.refresh_token).status_code == 200
    assert len(client.get("/auth/sessions", headers=login.headers).json()["items"]) == 2


@pytest.mark.parametrize(
    ("form", "code", "detail"),
    [
        ("token_type_hint=access_token", "field_required", "token: Field required"),
        ("token=", "field_required", "token: Field required"),
        ("token=a&token=b", "invalid_request", "token: Field sent more than once"),
    ],
)
def test_a_token_that_is_missing_or_repeated_is_refused(client: TestClient, form: str, code: str, detail: str) -> None:
    login = sign_up(client)

    response = client.post(
        "/auth/revoke",
        params={"token": login.refresh_token},
        content=form,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )

    assert response.status_code == 400
    assert response.json() == {"detail": detail, "code": code, "error": "invalid_request", "error_description": detail}
    assert client.get("/tasks/mine", headers=login.headers).status_code == 200
