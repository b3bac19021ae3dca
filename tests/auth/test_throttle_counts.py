"""The counts beside logins, and the rows of their table: it holds neither names nor old rows."""

import asyncio
import hmac
import re
from collections.abc import Callable
from typing import cast

import pytest
from anyio.from_thread import BlockingPortal
from argon2 import low_level
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response

from app.auth.counters import forget
from app.auth.passwords import QUEUE_LENGTH
from app.auth.throttle import Limiter, forgive, reserve
from app.config import Settings
from app.db.connect import connect
from tests.conftest import SECRET, MovableClock, Serve, Sql
from tests.support.accounts import PASSWORD, Login, log_in, refresh, refreshed, register, sign_up
from tests.support.hashing import Library

NEW = "another long one"
OTHER_SECRET = "another-key-for-tests-9876543210fedcba"
WRONG = "wrong horse battery"
WAIT = {"detail": "Too many attempts; try again later", "code": "too_many_attempts"}
OAUTH_WAIT = WAIT | {"error": "temporarily_unavailable", "error_description": WAIT["detail"]}


def guess(client: TestClient, username: str = "ada", password: str = WRONG, **fields: str) -> Response:
    return client.post("/auth/token", data={"username": username, "password": password} | fields)


def post(client: TestClient, username: str = "ada", password: str = PASSWORD) -> Response:
    return client.post("/users", json={"username": username, "password": password})


def change(client: TestClient, login: Login, current: str = WRONG, new: str = NEW) -> Response:
    body = {"current_password": current, "new_password": new}
    return client.put("/users/me/password", json=body, headers=login.headers)


def assert_throttled(response: Response, body: dict[str, str], seconds: int) -> None:
    assert (response.status_code, response.json()) == (429, body)
    assert response.headers["Retry-After"] == str(seconds)


def keys(sql: Sql) -> set[str]:
    return {str(key) for (key,) in sql("SELECT key FROM throttle")}


def test_a_wrong_current_password_counts_and_is_throttled(serve: Serve, sql: Sql) -> None:
    client = serve(login_failures=4)
    login = sign_up(client, "Ada")
    (before,) = sql("SELECT password_hash FROM users")

    failures = [guess(client), guess(client), change(client, login), change(client, login)]

    assert [failure.status_code for failure in failures] == [401, 401, 403, 403]
    assert_throttled(change(client, login, PASSWORD), WAIT, 900)
    assert_throttled(guess(client, password=PASSWORD), OAUTH_WAIT, 900)
    assert sql("SELECT password_hash FROM users") == [before]
    assert client.get("/users/me", headers=login.headers).status_code == 200


def test_a_name_that_is_a_word_of_ours_is_counted_as_any_other(serve: Serve) -> None:
    client = serve(login_failures=1)

    for name in "account", "address", "login", "refresh", "registration", "session":
        assert [guess(client, name).status_code for _ in range(2)] == [401, 429]


def test_a_right_current_password_clears_the_count(serve: Serve) -> None:
    client = serve(login_failures=2)
    login = sign_up(client)
    current, new = PASSWORD, NEW

    for _ in range(3):
        assert change(client, login).status_code == 403
        login = Login.of(change(client, login, current, new))
        current, new = new, current

    assert [guess(client).status_code for _ in range(3)] == [401, 401, 429]


def test_all_bad_refresh_tokens_count_and_good_ones_work(serve: Serve, clock: MovableClock) -> None:
    client = serve(login_failures=1, session_ttl=60, refresh_grace=0)
    expired = sign_up(client)
    clock.move(seconds=60)
    reused, revoked, good = log_in(client), log_in(client), log_in(client)
    refreshed(client, reused.refresh_token)
    client.post("/auth/revoke", data={"token": revoked.access_token})
    bad = [login.refresh_token for login in (expired, revoked, reused, reused)]
    bad += [good.access_token, f"{good.refresh_token}x", *"wxyz"]

    assert [refresh(client, token).json()["error"] for token in bad] == ["invalid_grant"] * 10

    for token in bad:
        assert_throttled(refresh(client, token), OAUTH_WAIT, 900)
    good = refreshed(client, good.refresh_token)
    clock.move(seconds=899)
    assert_throttled(refresh(client, "x"), OAUTH_WAIT, 1)
    clock.move(seconds=1)
    assert refresh(client, "x").status_code == 400


def test_a_reuse_ends_its_session_though_the_answer_is_to_wait(serve: Serve) -> None:
    client = serve(login_failures=1, refresh_grace=0)
    old = sign_up(client)
    new = refreshed(client, old.refresh_token)
    for _ in range(10):
        assert refresh(client, "x").status_code == 400

    assert_throttled(refresh(client, old.refresh_token), OAUTH_WAIT, 900)

    ended = client.get("/users/me", headers=new.headers)
    assert ended.status_code == 401
    assert "used again" in ended.json()["detail"]


def test_registrations_are_limited_and_bad_ones_do_not_count(serve: Serve, clock: MovableClock, sql: Sql) -> None:
    client = serve(registration_limit=3)

    for username, password in ("a", PASSWORD), ("ada", "short"), ("ada", "nul\0 nul\0 nul\0"):
        assert post(client, username, password).status_code == 422
    assert [post(client, name).status_code for name in ("ada", "ADA", "bob")] == [201, 409, 201]
    for name in "eve", "ada":
        assert_throttled(post(client, name), WAIT, 3600)

    assert sql("SELECT count(*) FROM users") == [(2,)]
    clock.move(hours=1)
    assert [post(client, name).status_code for name in ("eve", "ada")] == [201, 409]


def test_registrations_without_a_limit_are_not_counted(serve: Serve, sql: Sql) -> None:
    client = serve(registration_limit=0)

    for name in "ada", "bob", "eve":
        register(client, name)

    assert sql("SELECT * FROM throttle") == []


def test_only_a_wrong_password_is_a_failure(serve: Serve) -> None:
    client = serve(login_failures=1)
    register(client)
    form: dict[str, str]

    for form in {"scope": "admin"}, {"scope": "x"}, {"grant_type": "x"}, {"password": ""}, {"username": ""}:
        for _ in range(2):
            assert guess(client, **({"password": PASSWORD} | form)).status_code == 400

    login = log_in(client)
    for _ in range(11):
        assert refresh(client, login.refresh_token, scope="admin").json()["error"] == "invalid_scope"
    assert refresh(client, "x").status_code == 400
    assert guess(client).status_code == 401


def test_a_full_hashing_queue_is_no_failure(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(low_level, "verify_secret", library.verify_secret)
    client = serve(login_failures=1)
    login = sign_up(client)
    app, portal = cast("FastAPI", client.app), cast("BlockingPortal", client.portal)
    library.go.clear()
    try:
        waiting = [
            portal.start_task_soon(app.state.services.passwords.verify, WRONG, None, "testclient")
            for _ in range(QUEUE_LENGTH)
        ]
        refused = [guess(client), guess(client), change(client, login), change(client, login)]
    finally:
        library.go.set()

    assert [answer.status_code for answer in refused] == [503] * 4
    for job in waiting:
        job.result()
    assert [guess(client).status_code for _ in range(2)] == [401, 429]


@pytest.mark.parametrize("times", [1, 2])
def test_a_release_in_a_later_window_leaves_no_negative_count(
    settings: Settings, clock: MovableClock, sql: Sql, times: int
) -> None:
    """It leaves no count at all."""
    attempt = Limiter(settings, SECRET).login("ada", "192.0.2.1")

    async def count() -> None:
        async with connect(settings.database) as database:
            await database.write(reserve, attempt, clock())
            clock.move(days=1)
            for _ in range(times):
                await database.write(forgive, attempt, clock())

    asyncio.run(count())

    assert sql("SELECT hits FROM throttle") == [(0,)] * 3


def test_the_table_holds_no_names_and_no_addresses(serve: Serve, sql: Sql) -> None:
    """Without the secret, nobody can compute the keys from names and addresses."""

    def keys_of(client: TestClient) -> set[str]:
        for table in "throttle", "users":
            sql(f"DELETE FROM {table}")
        guess(client)
        change(client, sign_up(client, "bob"))
        refresh(client, "x")
        return keys(sql)

    one, other = keys_of(serve()), keys_of(serve(secret_key=OTHER_SECRET))

    assert len(one) == 7
    assert len(one | other) == 14
    assert all(re.fullmatch("[0-9a-f]{64}", key) for key in one | other)


def test_an_account_is_forgotten_wherever_it_was_guessed_from(
    settings: Settings, clock: MovableClock, sql: Sql
) -> None:
    limiter = Limiter(settings, SECRET)
    attempts = [limiter.login("", f"192.0.2.{n}", id_) for n in range(40) for id_ in ("ada", "bob")]
    attempts += [limiter.confirmation(id_, "a session", "192.0.2.1") for id_ in ("ada", "bob")]

    async def guess_and_forget() -> None:
        async with connect(settings.database) as database:
            for attempt in attempts:
                await database.write(reserve, attempt, clock())
            await database.write(forget, limiter.account("ada"))

    asyncio.run(guess_and_forget())

    assert keys(sql) == {limit.key for attempt in attempts for limit in attempt.limits} - {
        limit.key for attempt in attempts[::2] for limit in (attempt.limits[0], attempt.limits[2])
    }


def test_the_keys_are_those_of_other_versions(serve: Serve, sql: Sql) -> None:
    """A deployment gives nobody new tries."""

    def key(*parts: str) -> str:
        return hmac.digest(SECRET.encode(), "\0".join(parts).encode(), "sha256").hex()

    client = serve()
    login = sign_up(client, "Ada")
    guess(client)
    guess(client, "Nobody")
    refresh(client, "x")
    change(client, login)
    [(session, user)] = sql("SELECT id, user_id FROM sessions")

    ada, nobody = key("account", str(user))[:32], key("name", "nobody")[:32]
    assert keys(sql) == {
        ada + key("account")[:32],
        ada + key("login", "testclient")[:32],
        ada + key("session", str(session))[:32],
        nobody + key("account")[:32],
        nobody + key("login", "testclient")[:32],
        key("address", "testclient"),
        key("refresh", "testclient"),
        key("registration", "testclient"),
    }


def test_another_secret_counts_anew_and_locks_nobody_out(serve: Serve, clock: MovableClock, sql: Sql) -> None:
    client = serve(login_failures=1)
    register(client)
    assert [guess(client).status_code for _ in range(2)] == [401, 429]
    old = keys(sql)

    client = serve(login_failures=1, secret_key=OTHER_SECRET, secret_key_previous=SECRET)

    log_in(client)
    assert [guess(client).status_code for _ in range(2)] == [401, 429]
    clock.move(days=1)
    assert guess(client).status_code == 401
    assert old.isdisjoint(keys(sql))


@pytest.mark.parametrize(
    "send", [guess, lambda client: refresh(client, "x"), post], ids=["login", "refresh", "registration"]
)
def test_every_count_clears_ten_that_are_over(
    serve: Serve, clock: MovableClock, sql: Sql, send: Callable[[TestClient], Response]
) -> None:
    client = serve()
    for n in range(7):
        guess(client, f"name-{n}")
    assert len(keys(sql)) == 15
    clock.move(days=1)

    send(client)
    assert len(keys(sql)) == (7 if send is guess else 6)
    send(client)
    assert len(keys(sql)) == (3 if send is guess else 1)
