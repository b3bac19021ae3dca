"""How long a login lives: by its row, and by settings that have changed since."""

import pytest
from fastapi.testclient import TestClient

from app.testing import Serve
from tests.conftest import MovableClock, Sql
from tests.support.accounts import Login, log_in, refresh, refreshed, sign_up
from tests.support.tokens import claims_elsewhere

EXPIRED = "The session has expired"


def assert_expired(client: TestClient, login: Login) -> None:
    """No statement of the service takes the session for live."""
    other = log_in(client)
    for method, url in ("GET", "/tasks/mine"), ("GET", "/users/me"), ("PUT", "/users/me/password"):
        assert client.request(method, url, headers=login.headers).json()["detail"] == EXPIRED, url
    assert refresh(client, login.refresh_token).json()["detail"] == EXPIRED
    asked = client.post("/auth/introspect", data={"token": login.access_token}, headers=other.headers)
    assert asked.json() == {"active": False}
    session_id = claims_elsewhere(login.access_token)["sid"]
    assert client.delete(f"/auth/sessions/{session_id}", headers=other.headers).status_code == 404
    listed = client.get("/auth/sessions", headers=other.headers).json()["items"]
    assert [session["id"] for session in listed] == [claims_elsewhere(other.access_token)["sid"]]


def test_a_shorter_ttl_ends_sessions_that_exist(serve: Serve, client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)
    clock.move(seconds=600)

    assert_expired(serve(session_ttl=600), login)
    assert client.get("/tasks/mine", headers=login.headers).status_code == 200


def test_tokens_end_with_the_shorter_ttl(serve: Serve, client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)
    began = clock.now.timestamp()
    clock.move(seconds=500)
    shorter = serve(session_ttl=600)

    new = refreshed(shorter, login.refresh_token)

    assert [claims_elsewhere(token)["exp"] for token in (new.access_token, new.refresh_token)] == [began + 600] * 2
    asked = shorter.post("/auth/introspect", data={"token": login.access_token}, headers=new.headers)
    assert asked.json()["exp"] == began + 600


def test_a_longer_ttl_revives_nothing(serve: Serve, clock: MovableClock) -> None:
    login = sign_up(serve(session_ttl=600))
    clock.move(seconds=600)

    assert refresh(serve(session_ttl=6000), login.refresh_token).json()["detail"] == "The refresh token has expired"


@pytest.mark.parametrize("seconds", [600, 601])
def test_a_session_without_a_refresh_ends(serve: Serve, clock: MovableClock, seconds: int) -> None:
    client = serve(session_idle_ttl=600)
    login = sign_up(client)
    clock.move(seconds=seconds)

    assert_expired(client, login)


def test_a_refresh_keeps_a_session_from_being_idle(serve: Serve, clock: MovableClock) -> None:
    client = serve(session_idle_ttl=600)
    login = sign_up(client)
    for _ in range(3):
        clock.move(seconds=599)
        assert client.get("/tasks/mine", headers=login.headers).status_code == 200
        login = refreshed(client, login.refresh_token)


def test_a_personal_token_has_no_end_but_its_own(
    serve: Serve, client: TestClient, clock: MovableClock, sql: Sql
) -> None:
    token = sign_up(client)
    sql("UPDATE sessions SET kind = 'personal'")
    clock.move(seconds=90)

    assert serve(session_ttl=60, session_idle_ttl=60).get("/tasks/mine", headers=token.headers).status_code == 200
    assert len(client.get("/auth/sessions", headers=token.headers).json()["items"]) == 0
