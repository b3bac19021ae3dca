"""POST /auth/token, refresh grant: one successor, however often it is asked for, and no way back."""

from collections.abc import Callable
from typing import cast

import jwt
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response

from tests.conftest import SECRET, MovableClock, Serve, Sql
from tests.support.accounts import (
    EVERY_SCOPE,
    EVERYTHING,
    PASSWORD,
    Login,
    add_user,
    log_in,
    refresh,
    refreshed,
    register,
    sign_up,
)
from tests.support.oauth_errors import assert_oauth_error

REUSED = "The session was ended because a replaced refresh token was used again"
NOT_VALID = "The refresh token is not valid"
EXPIRED = "The refresh token has expired"
OTHER_SECRET = "another-key-for-tests-only-9876543210"
MISSING = "01a207a2-3280-7000-8422-653b1e4423a0"


def assert_invalid_grant(response: Response, detail: str) -> None:
    assert_oauth_error(response, "invalid_grant")
    assert response.json()["error_description"] == response.json()["detail"] == detail


def test_a_refresh_brings_a_new_pair_that_works(client: TestClient) -> None:
    login = sign_up(client)

    successor = refreshed(client, login.refresh_token)

    assert successor.refresh_token != login.refresh_token
    assert successor.scope == login.scope
    assert client.get("/tasks/mine", headers=successor.headers).status_code == 200
    assert refresh(client, successor.refresh_token).status_code == 200


@pytest.mark.rfc("6749", "5.1")
def test_the_answer_is_that_of_a_login(client: TestClient) -> None:
    login = sign_up(client)

    response = client.post(
        "/auth/token",
        files={
            "grant_type": (None, "refresh_token"),
            "refresh_token": (None, login.refresh_token),
            "scope": (None, ""),
        },
        headers={"Authorization": "Basic Og=="},
    )

    body = response.json()
    assert body == {
        "access_token": body["access_token"],
        "refresh_token": body["refresh_token"],
        "token_type": "bearer",
        "expires_in": 1800,
        "scope": EVERYTHING,
    }
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("scope", ["", "tasks:read", "admin"])
def test_a_refresh_is_one_statement(client: TestClient, statements: list[str], scope: str) -> None:
    """So it needs no transaction, and a crash leaves the old generation or the new one."""
    add_user(client, "ada", is_admin=True)
    login = log_in(client)
    statements.clear()

    refreshed(client, login.refresh_token, scope=scope)

    [statement] = statements
    assert statement.startswith("UPDATE sessions SET generation")


def test_a_repeat_within_the_grace_gets_the_very_same_successor(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)
    successor = refreshed(client, login.refresh_token)

    clock.move(seconds=9.999)

    assert refreshed(client, login.refresh_token).refresh_token == successor.refresh_token


def test_a_clock_that_was_set_back_is_within_the_grace(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)
    clock.move(minutes=5)
    successor = refreshed(client, login.refresh_token)

    clock.move(seconds=-30)

    assert refreshed(client, login.refresh_token).refresh_token == successor.refresh_token


@pytest.mark.rfc("9700", "4.14.2")
def test_a_repeat_after_the_grace_ends_the_session_and_no_other(client: TestClient, clock: MovableClock) -> None:
    login, other = sign_up(client), log_in(client)
    successor = refreshed(client, login.refresh_token)
    client.get("/tasks/mine", headers=successor.headers)
    clock.move(seconds=9.999)
    assert refreshed(client, login.refresh_token).refresh_token == successor.refresh_token

    clock.move(seconds=0.001)

    assert_invalid_grant(refresh(client, login.refresh_token), REUSED)
    assert_invalid_grant(refresh(client, successor.refresh_token), REUSED)
    assert client.get("/tasks/mine", headers=successor.headers).status_code == 401
    assert client.get("/tasks/mine", headers=other.headers).status_code == 200


@pytest.mark.parametrize("generation", [1, 2])
def test_a_lost_answer_is_given_again_while_nobody_used_it(
    client: TestClient, clock: MovableClock, generation: int
) -> None:
    """However long the phone slept, or the service was away."""
    login = sign_up(client)
    for _ in range(generation - 1):
        login = refreshed(client, login.refresh_token)
        client.get("/tasks/mine", headers=login.headers)
    lost = refreshed(client, login.refresh_token)

    for wait in 10, 3600, 20 * 86_400:
        clock.move(seconds=wait)
        client.get("/tasks/mine", headers=login.headers)  # this uses the generation before
        assert refreshed(client, login.refresh_token).refresh_token == lost.refresh_token

    assert client.get("/tasks/mine", headers=refreshed(client, login.refresh_token).headers).status_code == 200
    assert_invalid_grant(refresh(client, login.refresh_token), REUSED)


USES: dict[str, Callable[[TestClient, Login], Response]] = {
    "list": lambda client, login: client.get("/tasks/mine", headers=login.headers),
    "optional token": lambda client, login: client.get("/tasks/public", headers=login.headers),
    "create": lambda client, login: client.post("/tasks/", json={"title": "Once"}, headers=login.headers),
    "profile": lambda client, login: client.get("/users/me", headers=login.headers),
    "not found": lambda client, login: client.delete(f"/tasks/{MISSING}", headers=login.headers),
    "not valid": lambda client, login: client.post("/tasks/", json={}, headers=login.headers),
    "lacks a scope": lambda client, login: client.get("/users/", headers=login.headers),
    "introspect": lambda client, login: client.post(
        "/auth/introspect", data={"token": login.access_token}, headers=log_in(client).headers
    ),
    "introspect the refresh token": lambda client, login: client.post(
        "/auth/introspect", data={"token": login.refresh_token}, headers=log_in(client).headers
    ),
    "refresh": lambda client, login: refresh(client, login.refresh_token),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_late_repeat_after_any_use_ends_the_session(
    client: TestClient, clock: MovableClock, use: Callable[[TestClient, Login], Response]
) -> None:
    login = sign_up(client)
    successor = refreshed(client, login.refresh_token)

    use(client, successor)
    clock.move(seconds=10)

    assert_invalid_grant(refresh(client, login.refresh_token), REUSED)
    assert client.get("/tasks/mine", headers=successor.headers).status_code == 401


def test_a_use_is_seen_by_another_process_and_after_a_restart(serve: Serve, clock: MovableClock) -> None:
    client, other = serve(), serve()
    login = sign_up(client)
    successor = refreshed(client, login.refresh_token)
    assert other.get("/tasks/mine", headers=successor.headers).status_code == 200
    clock.move(seconds=10)

    assert_invalid_grant(refresh(serve(), login.refresh_token), REUSED)


def test_each_process_notes_a_used_generation_once(serve: Serve, statements: list[str]) -> None:
    """No process notes the first generation."""
    client = serve()
    login = sign_up(client)

    def noted(client: TestClient, login: Login) -> int:
        statements.clear()
        for path in "/tasks/mine", "/tasks/public", "/users/me":
            assert client.get(path, headers=login.headers).status_code == 200
        return len([statement for statement in statements if statement.startswith("UPDATE sessions")])

    assert noted(client, login) == 0
    successor = refreshed(client, login.refresh_token)
    again = refreshed(client, login.refresh_token)
    assert [noted(client, successor), noted(client, again), noted(client, successor)] == [1, 0, 0]
    assert [noted(serve(), successor), noted(serve(refresh_grace=0), again)] == [1, 0]


def test_the_noted_generations_are_bounded(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.auth.refresh.REMEMBERED", 2)
    login = sign_up(client)
    for _ in range(6):
        login = refreshed(client, login.refresh_token)
        assert client.get("/tasks/mine", headers=login.headers).status_code == 200

    uses = cast("FastAPI", client.app).state.services.uses
    assert len(uses.noted) <= 2


@pytest.mark.parametrize("ending", ["ended", "disabled"])
def test_a_use_of_a_dead_session_notes_nothing(client: TestClient, sql: Sql, ending: str) -> None:
    login = sign_up(client)
    successor = refreshed(client, login.refresh_token)
    if ending == "ended":
        client.post("/auth/revoke", data={"token": login.refresh_token})
        assert client.get("/tasks/mine", headers=successor.headers).status_code == 401
        assert sql("SELECT unused_generation FROM sessions") == [(2,)]
    else:
        sql("UPDATE users SET is_active = FALSE")
        assert client.get("/tasks/mine", headers=successor.headers).status_code == 401


def test_a_rotation_by_the_old_version_repeats_within_the_grace(
    client: TestClient, clock: MovableClock, sql: Sql
) -> None:
    """It does not note what is unused, nor do its rows say it."""
    login = sign_up(client)
    refreshed(client, login.refresh_token)
    sql("UPDATE sessions SET unused_generation = NULL")
    assert refresh(client, login.refresh_token).status_code == 200
    clock.move(seconds=10)

    assert_invalid_grant(refresh(client, login.refresh_token), REUSED)


def test_a_rotation_without_a_grace_is_never_repeated(serve: Serve, clock: MovableClock) -> None:
    """A use of it was not noted then."""
    strict, client = serve(refresh_grace=0), serve()
    login = sign_up(strict)
    refreshed(strict, login.refresh_token)
    clock.move(seconds=10)

    assert_invalid_grant(refresh(client, login.refresh_token), REUSED)


def test_a_clock_that_is_behind_ends_nothing_and_counts_nothing(
    serve: Serve, clock: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve(login_failures=1)
    login = sign_up(client)
    clock.move(seconds=-60)
    login = refreshed(client, login.refresh_token)
    clock.move(minutes=10)
    login = refreshed(client, login.refresh_token)
    clock.move(minutes=-10)

    for _ in range(12):
        refused = refresh(client, login.refresh_token)
        assert_oauth_error(refused, "temporarily_unavailable", 503)
        assert int(refused.headers["Retry-After"]) > 0
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert lines == ["this host's clock is behind: a refresh token that we have signed is not issued yet"] * 12

    assert client.get("/tasks/mine", headers=login.headers).status_code == 200
    clock.move(minutes=10)
    assert refresh(client, login.refresh_token).status_code == 200


@pytest.mark.parametrize("token_of", ["login", "successor"])
def test_a_token_for_another_user_of_the_session_ends_nothing(client: TestClient, token_of: str) -> None:
    ada, bob = sign_up(client), sign_up(client, "bob")
    first = ada.refresh_token
    ada = refreshed(client, first)
    claims = jwt.decode(first if token_of == "login" else ada.refresh_token, options={"verify_signature": False})
    sub = jwt.decode(bob.access_token, options={"verify_signature": False})["sub"]
    header = jwt.get_unverified_header(ada.refresh_token)
    forged = jwt.encode(claims | {"sub": sub}, SECRET, "HS256", headers=header)

    assert_invalid_grant(refresh(client, forged), NOT_VALID)
    assert client.post("/auth/revoke", data={"token": forged}).status_code == 200

    assert client.get("/tasks/mine", headers=ada.headers).status_code == 200
    assert refresh(client, ada.refresh_token).status_code == 200


def test_another_public_url_logs_nobody_out(serve: Serve) -> None:
    before, after = serve(), serve(public_url="https://tasks.example.org")
    login, other = sign_up(before), log_in(before)

    assert after.get("/tasks/mine", headers=login.headers).status_code == 401
    successor = refreshed(after, login.refresh_token)
    assert after.get("/tasks/mine", headers=successor.headers).status_code == 200
    asked = after.post("/auth/introspect", data={"token": other.refresh_token}, headers=successor.headers)
    assert asked.json()["active"] is True
    assert after.post("/auth/revoke", data={"token": other.refresh_token}).status_code == 200
    assert_invalid_grant(refresh(after, other.refresh_token), "The session was signed out")


def test_an_older_one_ends_the_session_even_within_the_grace(client: TestClient) -> None:
    login = sign_up(client)
    newest = refreshed(client, refreshed(client, login.refresh_token).refresh_token)

    assert_invalid_grant(refresh(client, login.refresh_token), REUSED)

    assert_invalid_grant(refresh(client, newest.refresh_token), REUSED)


def test_without_a_grace_every_repeat_ends_the_session(serve: Serve, sql: Sql) -> None:
    client = serve(refresh_grace=0)
    login = sign_up(client)
    successor = refreshed(client, login.refresh_token)

    assert_invalid_grant(refresh(client, login.refresh_token), REUSED)

    assert sql("SELECT end_reason FROM sessions WHERE ended_at IS NOT NULL") == [("reuse",)]
    assert_invalid_grant(refresh(serve(), successor.refresh_token), REUSED)


def test_a_narrower_scope_holds_for_the_access_token_only(client: TestClient) -> None:
    login = sign_up(client)

    narrowed = refreshed(client, login.refresh_token, scope="tasks:read")

    assert narrowed.scope == "tasks:read"
    assert client.get("/tasks/mine", headers=narrowed.headers).status_code == 200
    assert client.get("/users/me", headers=narrowed.headers).status_code == 403
    widened = refreshed(client, narrowed.refresh_token)
    assert widened.scope == login.scope
    assert client.get("/users/me", headers=widened.headers).status_code == 200


@pytest.mark.rfc("6749", "6")
@pytest.mark.parametrize("scope", ["tasks:read account", "admin", "tasks:delete"])
def test_too_wide_a_scope_is_refused_and_uses_nothing_up(client: TestClient, clock: MovableClock, scope: str) -> None:
    sign_up(client)
    login = log_in(client, scope="tasks:read tasks:write")

    response = refresh(client, login.refresh_token, scope=scope)

    detail = "Unknown scope, or not allowed for this user"
    assert response.status_code == 400
    assert response.json() == {
        "detail": detail,
        "code": "invalid_scope",
        "error": "invalid_scope",
        "error_description": detail,
    }
    clock.move(minutes=1)
    assert refreshed(client, login.refresh_token).scope == "tasks:read tasks:write"


@pytest.mark.rfc("9700", "4.14.2")
def test_a_session_ends_thirty_days_after_its_login(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)
    clock.move(days=29, hours=23, minutes=50)

    response = refresh(client, login.refresh_token)
    last = refreshed(client, response.json()["refresh_token"])

    assert response.json()["expires_in"] == 600
    clock.move(seconds=599)
    assert client.get("/tasks/mine", headers=last.headers).status_code == 200
    clock.move(seconds=1)
    assert client.get("/tasks/mine", headers=last.headers).status_code == 401
    assert_invalid_grant(refresh(client, last.refresh_token), EXPIRED)
    assert_invalid_grant(refresh(client, login.refresh_token), EXPIRED)


def test_a_session_that_is_cut_short_in_the_database_is_over(client: TestClient, sql: Sql) -> None:
    login = sign_up(client)
    sql("UPDATE sessions SET expires_at = '2026-11-23T09:00:00.000000Z'")

    assert_invalid_grant(refresh(client, login.refresh_token), "The session has expired")


def test_a_changed_password_ends_every_token_from_before(client: TestClient) -> None:
    login, other = sign_up(client), log_in(client)
    body = {"current_password": PASSWORD, "new_password": "a better horse"}
    renewed = Login.of(client.put("/users/me/password", json=body, headers=login.headers))

    for dead in login, other:
        assert_invalid_grant(refresh(client, dead.refresh_token), "The password was changed")
    assert refresh(client, renewed.refresh_token).status_code == 200


@pytest.mark.parametrize("used", ["current", "replaced"])
def test_a_disabled_user_gets_nothing_and_loses_nothing(client: TestClient, sql: Sql, used: str) -> None:
    login = sign_up(client)
    tokens = {"replaced": login.refresh_token, "current": refreshed(client, login.refresh_token).refresh_token}
    sql("UPDATE users SET is_active = FALSE")

    assert_invalid_grant(refresh(client, tokens[used]), NOT_VALID)

    sql("UPDATE users SET is_active = TRUE")
    assert refresh(client, tokens[used]).status_code == 200


def test_a_deleted_user_gets_nothing(client: TestClient) -> None:
    login = sign_up(client)
    assert client.delete("/users/me", headers=login.headers).status_code == 204
    sign_up(client)

    assert_invalid_grant(refresh(client, login.refresh_token), NOT_VALID)


def test_a_token_that_is_newer_than_the_database_ends_nothing(client: TestClient, sql: Sql) -> None:
    """A backup was restored: the token is not a copy of a replaced one."""
    login = sign_up(client)
    newest = refreshed(client, refreshed(client, login.refresh_token).refresh_token)
    sql("UPDATE sessions SET generation = 1")

    assert_invalid_grant(refresh(client, newest.refresh_token), NOT_VALID)

    assert refresh(client, login.refresh_token).status_code == 200


def test_any_other_token_is_not_valid_and_ends_nothing(
    client: TestClient, serve: Serve, clock: MovableClock, subtests: pytest.Subtests
) -> None:
    login = sign_up(client)
    head, payload, signature = login.refresh_token.split(".")
    _, newer_payload, _ = refreshed(client, log_in(client).refresh_token).refresh_token.split(".")
    wrong = {
        "access token": login.access_token,
        "garbage": "garbage",
        "not ASCII": "é.é.é",
        "too long": f"{head}.{payload}.{'A' * 5000}",
        "another payload": f"{head}.{newer_payload}.{signature}",
        "another signature": f"{head}.{payload}.{signature[::-1]}",
        "no signature": f"{head}.{payload}.",
        "another key": log_in(serve(secret_key=OTHER_SECRET)).refresh_token,
    }
    clock.move(minutes=1)

    for name, token in wrong.items():
        with subtests.test(name):
            assert_invalid_grant(refresh(client, token), NOT_VALID)

    assert refresh(client, login.refresh_token).status_code == 200


def test_a_new_key_beside_the_previous_one_logs_nobody_out(serve: Serve) -> None:
    login = sign_up(serve())

    rotating = serve(secret_key=OTHER_SECRET, secret_key_previous=SECRET)
    successor = refreshed(rotating, login.refresh_token)

    assert rotating.get("/tasks/mine", headers=login.headers).status_code == 200
    rotated = serve(secret_key=OTHER_SECRET)
    assert rotated.get("/tasks/mine", headers=successor.headers).status_code == 200
    assert rotated.get("/tasks/mine", headers=login.headers).status_code == 401
    assert refresh(rotated, successor.refresh_token).status_code == 200
    assert_invalid_grant(refresh(rotated, login.refresh_token), NOT_VALID)


def test_an_administrator_stays_one(client: TestClient, sql: Sql) -> None:
    register(client)
    register(client, "bob")
    sql("UPDATE users SET is_admin = true WHERE username = 'ada'")
    login = log_in(client)

    first, again = refreshed(client, login.refresh_token), refreshed(client, login.refresh_token)

    assert first.scope == again.scope == login.scope == EVERY_SCOPE


def test_a_former_administrator_gets_no_more_than_others(client: TestClient, sql: Sql) -> None:
    register(client)
    sql("UPDATE users SET is_admin = true")
    login, admin_only = log_in(client), log_in(client, scope="admin")
    sql("UPDATE users SET is_admin = false")

    for refused in refresh(client, login.refresh_token, scope="admin"), refresh(client, admin_only.refresh_token):
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")
    assert refreshed(client, login.refresh_token).scope == EVERYTHING
    assert sql("SELECT generation FROM sessions ORDER BY scope DESC") == [(2,), (1,)]
