"""An administrator issues reset tokens. A token works once, within an hour, and only for one hash."""

import asyncio
from base64 import urlsafe_b64decode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from app.auth.claims import ResetClaims
from app.auth.errors import InvalidResetToken
from app.auth.keys import load_tokens
from app.auth.liveness import Moment
from app.auth.networks import LoginOrigin
from app.auth.throttle import Limiter
from app.config import Settings
from app.db.connect import connect
from app.users.recovery import reset_password
from tests.conftest import SECRET, MovableClock, Sql, on_one_database
from tests.support.accounts import PASSWORD, Login, faults, log_in, refresh, sign_up

NEW = "another long one"


def issue(client: TestClient, root: Login, login: Login) -> str:
    user_id = client.get("/users/me", headers=login.headers).json()["id"]
    response = client.post(f"/users/{user_id}/reset-token", headers=root.headers)
    assert response.status_code == 201, response.text
    body = response.json()
    assert body.keys() == {"reset_token", "expires_in"}
    assert body["expires_in"] == 3600
    assert response.headers["cache-control"] == "no-store"
    return str(body["reset_token"])


def reset(client: TestClient, token: str, password: str = NEW) -> Response:
    return client.post("/users/reset-password", json={"reset_token": token, "new_password": password})


def change_password(settings: Settings, token: str, clock: MovableClock) -> None:
    """Do what a reset does after its token was checked and the new password is hashed."""
    claims = load_tokens(settings).verify(ResetClaims, token, clock())

    async def change() -> None:
        async with connect(settings.database) as database:
            moment = Moment.at(clock(), settings)
            counters = Limiter(settings, SECRET).account(claims.sub)
            await database.write(reset_password, claims, "a new hash", counters, moment, LoginOrigin("", ""))

    asyncio.run(change())


def assert_refused(response: Response) -> None:
    assert response.status_code == 400
    assert response.json() == {"detail": "The reset token is invalid or has expired", "code": "invalid_reset_token"}


def can_log_in(client: TestClient, password: str) -> bool:
    return client.post("/auth/token", data={"username": "ada", "password": password}).status_code == 200


def test_a_reset_sets_the_password_and_ends_every_session(client: TestClient, root: Login) -> None:
    first, second, bob = sign_up(client), log_in(client), sign_up(client, "bob")

    response = reset(client, issue(client, root, first))

    assert (response.status_code, response.content) == (204, b"")
    for login in first, second:
        assert client.get("/tasks/mine", headers=login.headers).json() == {
            "detail": "The password was changed",
            "code": "invalid_token",
        }
        assert refresh(client, login.refresh_token).status_code == 400
    assert client.get("/tasks/mine", headers=bob.headers).status_code == 200
    assert can_log_in(client, NEW)
    assert not can_log_in(client, PASSWORD)


def test_a_reset_token_works_once(client: TestClient, root: Login) -> None:
    token = issue(client, root, sign_up(client))
    assert reset(client, token).status_code == 204

    assert_refused(reset(client, token, "and another one"))
    assert can_log_in(client, NEW)


def test_one_of_several_parallel_resets_succeeds(client: TestClient, root: Login) -> None:
    token = issue(client, root, sign_up(client))

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda n: reset(client, token, f"new password {n}").status_code, range(8)))

    assert sorted(statuses) == [204] + [400] * 7
    assert can_log_in(client, f"new password {statuses.index(204)}")


def test_a_reset_token_works_for_an_hour(client: TestClient, root: Login, clock: MovableClock) -> None:
    ada = sign_up(client)
    late, in_time = issue(client, root, ada), issue(client, root, ada)
    clock.move(seconds=3599)
    assert reset(client, in_time, PASSWORD).status_code == 204
    token = issue(client, log_in(client, "root"), log_in(client))
    clock.move(seconds=3600)

    assert_refused(reset(client, late))
    assert_refused(reset(client, token))


def test_a_password_change_voids_a_reset_token(client: TestClient, root: Login) -> None:
    ada = sign_up(client)
    token = issue(client, root, ada)
    body = {"current_password": PASSWORD, "new_password": "remembered it"}
    assert client.put("/users/me/password", json=body, headers=ada.headers).is_success

    assert_refused(reset(client, token))
    assert can_log_in(client, "remembered it")


def test_a_disabled_and_enabled_account_voids_a_reset_token(
    client: TestClient, root: Login, clock: MovableClock
) -> None:
    """A user was disabled and enabled again, because somebody else had the token, for example."""
    ada = sign_up(client)
    user_id = client.get("/users/me", headers=ada.headers).json()["id"]
    token = issue(client, root, ada)
    clock.move(minutes=1)
    for is_active in False, True:
        client.patch(f"/users/{user_id}", json={"is_active": is_active}, headers=root.headers)

    assert_refused(reset(client, token))
    assert can_log_in(client, PASSWORD)


@pytest.mark.parametrize(
    "change", ["updated_at = '2026-11-23T09:00:01.000000Z'", "password_hash = 'another'", "is_active = FALSE"]
)
def test_a_change_during_the_reset_voids_the_token(
    client: TestClient, root: Login, settings: Settings, clock: MovableClock, sql: Sql, change: str
) -> None:
    """No request can be held between the check of its token and the change, so the test runs the change alone."""
    token = issue(client, root, sign_up(client))
    sql(f"UPDATE users SET {change} WHERE username = 'ada'")

    with pytest.raises(InvalidResetToken):
        change_password(settings, token, clock)

    assert sql("SELECT count(*) FROM users WHERE password_hash = 'a new hash'") == [(0,)]


@pytest.mark.parametrize("statement", ["UPDATE users SET is_active = FALSE", "DELETE FROM users"])
def test_a_reset_token_of_a_disabled_or_deleted_user_is_void(
    client: TestClient, root: Login, sql: Sql, statement: str
) -> None:
    token = issue(client, root, sign_up(client))
    sql(f"{statement} WHERE username = 'ada'")

    assert_refused(reset(client, token))


def test_none_is_issued_to_who_is_disabled(client: TestClient, root: Login) -> None:
    user_id = client.get("/users/me", headers=sign_up(client).headers).json()["id"]
    client.patch(f"/users/{user_id}", json={"is_active": False}, headers=root.headers)

    refused = client.post(f"/users/{user_id}/reset-token", headers=root.headers)

    assert (refused.status_code, refused.json()) == (409, {"detail": "The user is disabled", "code": "user_disabled"})


def test_a_reset_lets_a_throttled_user_log_in(client: TestClient, root: Login) -> None:
    token = issue(client, root, sign_up(client))
    guesses = [client.post("/auth/token", data={"username": "ada", "password": f"guess {n}"}) for n in range(11)]
    assert guesses[-1].status_code == 429

    assert reset(client, token).status_code == 204

    assert can_log_in(client, NEW)


@on_one_database
def test_no_other_token_does_it_nor_does_it_anything_else(client: TestClient, root: Login) -> None:
    ada = sign_up(client)
    token = issue(client, root, ada)
    head, body, signature = token.split(".")

    for other in ada.access_token, ada.refresh_token, "x", "", f"{head}.{body}.{signature[::-1]}":
        assert_refused(reset(client, other))
    assert client.get("/tasks/mine", headers={"Authorization": f"Bearer {token}"}).status_code == 401
    assert refresh(client, token).status_code == 400
    introspected = client.post("/auth/introspect", data={"token": token}, headers=root.headers)
    assert introspected.json() == {"active": False}
    assert client.post("/auth/revoke", data={"token": token}).status_code == 200
    assert client.get("/tasks/mine", headers=ada.headers).status_code == 200
    assert reset(client, token).status_code == 204


def test_a_password_that_will_not_do_does_not_use_it_up(client: TestClient, root: Login) -> None:
    token = issue(client, root, sign_up(client))

    assert faults(reset(client, token, "short")) == [["body", "new_password"]]
    assert reset(client, token, "password123").status_code == 422
    assert reset(client, token, "ada").status_code == 422
    assert reset(client, token).status_code == 204


def test_a_reset_token_tells_nothing_of_the_hash(client: TestClient, root: Login, sql: Sql) -> None:
    token = issue(client, root, sign_up(client))
    [(password_hash,)] = sql("SELECT password_hash FROM users WHERE username = 'ada'")

    said = urlsafe_b64decode(token.split(".")[1] + "==").decode()

    assert not any(part in said for part in password_hash.split("$") if len(part) > 8)


def test_a_newer_one_voids_the_older(client: TestClient, root: Login, clock: MovableClock) -> None:
    ada = sign_up(client)
    profile = client.get("/users/me", headers=ada.headers).json()
    clock.move(minutes=1)
    older, newer = issue(client, root, ada), issue(client, root, ada)

    assert_refused(reset(client, older))
    assert client.get("/users/me", headers=ada.headers).json() == profile
    assert reset(client, newer).status_code == 204
    assert_refused(reset(client, older, "and another one"))


def test_a_reset_token_of_the_old_version_works(client: TestClient, root: Login, sql: Sql) -> None:
    """That version stored no token in the user's row. A newer token voids it."""
    ada = sign_up(client)
    tokens = [issue(client, root, ada)]
    sql("UPDATE users SET reset_id = NULL")
    assert reset(client, tokens[0]).status_code == 204
    tokens = [issue(client, root, log_in(client, password=NEW))]
    sql("UPDATE users SET reset_id = NULL")
    issue(client, root, log_in(client, password=NEW))

    assert_refused(reset(client, tokens[0]))


def test_a_newer_token_voids_one_that_is_being_used(
    client: TestClient, root: Login, settings: Settings, clock: MovableClock
) -> None:
    """No request can be held between the check of its token and the change, so the test runs the change alone."""
    ada = sign_up(client)
    token = issue(client, root, ada)
    issue(client, root, ada)

    with pytest.raises(InvalidResetToken):
        change_password(settings, token, clock)


@pytest.mark.parametrize(
    "hook", ["nothing.there:send", "tests.support.mail_hook:nothing", "tests.users", "7", "os:getcwd", "broken:send"]
)
def test_a_hook_that_is_none_is_refused_at_the_start(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("broken.py").write_text("this is no Python")
    monkeypatch.syspath_prepend(Path.cwd())
    given: dict[str, Any] = {"mail_hook": hook}

    with pytest.raises(ValueError, match="must be an async function that can be imported") as refused:
        Settings(**given)

    assert hook not in str(refused.value)
