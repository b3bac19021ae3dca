"""POST /auth/token, refresh grant: one successor, however often it is asked for, and no way back."""

from fastapi.testclient import TestClient
from httpx2 import Response

from tests.accounts import log_in, refresh, refreshed, sign_up
from tests.conftest import MovableClock

REUSED = "The session was ended because a replaced refresh token was used again"


def assert_invalid_grant(response: Response, detail: str) -> None:
    assert response.status_code == 400
    assert response.json() == {"detail": detail, "error": "invalid_grant", "error_description": detail}


def test_a_refresh_brings_a_new_pair_that_works(client: TestClient) -> None:
    login = sign_up(client)

    successor = refreshed(client, login.refresh_token)

    assert successor.refresh_token != login.refresh_token
    assert successor.scope == login.scope
    assert client.get("/tasks/mine", headers=successor.headers).status_code == 200
    assert refresh(client, successor.refresh_token).status_code == 200


def test_a_repeat_within_the_grace_gets_the_very_same_successor(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)
    successor = refreshed(client, login.refresh_token)

    clock.move(seconds=9.999)

    assert refreshed(client, login.refresh_token).refresh_token == successor.refresh_token


def test_a_repeat_after_the_grace_ends_the_session_and_no_other(client: TestClient, clock: MovableClock) -> None:
    login, other = sign_up(client), log_in(client)
    successor = refreshed(client, login.refresh_token)

    clock.move(seconds=10)

    assert_invalid_grant(refresh(client, login.refresh_token), REUSED)
    assert_invalid_grant(refresh(client, successor.refresh_token), REUSED)
    assert client.get("/tasks/mine", headers=successor.headers).status_code == 401
    assert client.get("/tasks/mine", headers=other.headers).status_code == 200
