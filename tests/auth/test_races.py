"""Many at once, through two processes on one database."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import URL, make_url

from app.auth.passwords import Passwords
from app.clock import utc_now
from app.config import Settings
from app.db.types import new_id
from app.main import create_app
from tests.conftest import CHEAP, SECRET, execute, migrate, new_database
from tests.support import cheap
from tests.support.accounts import PASSWORD, bearer
from tests.support.processes import services
from tests.support.races import (
    AT_ONCE,
    Request,
    all_at_once,
    each_at_once,
    log_in,
    mixed_at_once,
    register,
    session_of,
    somebody,
)
from tests.support.second_factor import Factor, protect

HASHES_AT_ONCE = 12
GUESSES = 2 * HASHES_AT_ONCE
PROXY = "127.0.0.1"
HOME, AFAR = "192.0.2.1", "198.51.100.1"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    if request.param == "sqlite":
        folder: Path = tmp_path_factory.mktemp("races")
        yield make_url(f"sqlite:///{folder}/tasks.db")
    else:
        with new_database(request.getfixturevalue("postgres_server")) as url:
            yield url


@pytest.fixture(scope="module")
def urls(database: URL) -> Iterator[list[str]]:
    """Two services on one database, that let a proxy on this host say who asks."""
    asyncio.run(migrate(database))
    settings = {"database_url": database.render_as_string(hide_password=False), "secret_key": SECRET}
    with services(2, *cheap.COMMAND, **settings, login_failures=GUESSES, trusted_proxies=PROXY) as urls:
        yield urls


def login(user: dict[str, str], ip: str) -> dict[str, Any]:
    """The request of a login from there."""
    return {"data": user, "headers": {"X-Forwarded-For": ip}}


def sign_up(url: str) -> dict[str, str]:
    """Register a user and log in."""
    return log_in(url, register(url))


def live_sessions(url: str, access_token: str) -> int:
    return len(httpx2.get(f"{url}/auth/sessions", headers=bearer(access_token)).json()["items"])


def test_parallel_refreshes_of_one_token_get_one_successor(urls: list[str]) -> None:
    tokens = sign_up(urls[0])
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}

    answers = all_at_once(urls, "POST", "/auth/token", data=form)

    assert Counter(answer.status_code for answer in answers) == {200: AT_ONCE}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    assert live_sessions(urls[0], tokens["access_token"]) == 1


@pytest.mark.parametrize(
    "database", ["postgresql", pytest.param("sqlite", marks=pytest.mark.long)], indirect=True, scope="module"
)
def test_without_a_grace_one_parallel_refresh_wins(database: URL, urls: list[str]) -> None:
    """The session ends, as each other refresh is a reuse."""
    tokens = sign_up(urls[0])
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    settings = {"database_url": database.render_as_string(hide_password=False), "secret_key": SECRET}

    with services(2, *cheap.COMMAND, **settings, refresh_grace=0) as strict:
        answers = all_at_once(strict, "POST", "/auth/token", data=form)

    assert Counter(answer.status_code for answer in answers) == {200: 1, 400: AT_ONCE - 1}
    assert {answer.json().get("error") for answer in answers} == {None, "invalid_grant"}
    assert execute(database, "SELECT generation FROM sessions WHERE end_reason = 'reuse'") == [(2,)]


def test_parallel_creates_with_one_key_make_one_task(urls: list[str]) -> None:
    headers = bearer(sign_up(urls[0])["access_token"]) | {"Idempotency-Key": "once"}

    answers = all_at_once(urls, "POST", "/tasks/", json={"title": "Once"}, headers=headers)

    assert Counter(answer.status_code for answer in answers) == {201: AT_ONCE}
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_parallel_registrations_of_one_name_make_one_user(urls: list[str]) -> None:
    answers = all_at_once(urls, "POST", "/users", HASHES_AT_ONCE, json=somebody())

    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: HASHES_AT_ONCE - 1}


def test_parallel_password_changes_leave_one_password(urls: list[str]) -> None:
    user = register(urls[0])
    headers = bearer(log_in(urls[0], user)["access_token"])
    passwords = [f"another horse battery {n}" for n in range(HASHES_AT_ONCE)]
    changes = [{"current_password": PASSWORD, "new_password": password} for password in passwords]

    requests = [{"json": change, "headers": headers} for change in changes]
    answers = each_at_once(urls, "PUT", "/users/me/password", requests)

    [changed] = [n for n, answer in enumerate(answers) if answer.status_code == 200]
    assert {answer.status_code for answer in answers} <= {200, 401, 403}  # the session ends while some wait
    assert live_sessions(urls[1], answers[changed].json()["access_token"]) == 1
    assert httpx2.post(f"{urls[1]}/auth/token", data=user).status_code == 401
    log_in(urls[1], user | {"password": passwords[changed]})


def test_parallel_logins_make_a_session_each(urls: list[str]) -> None:
    user = register(urls[0])

    answers = all_at_once(urls, "POST", "/auth/token", HASHES_AT_ONCE, data=user)

    assert Counter(answer.status_code for answer in answers) == {200: HASHES_AT_ONCE}
    assert len({session_of(answer.json()) for answer in answers}) == HASHES_AT_ONCE
    assert live_sessions(urls[1], answers[0].json()["access_token"]) == HASHES_AT_ONCE


def test_parallel_guesses_are_limited_also_for_a_later_process(database: URL, urls: list[str]) -> None:
    """A process that starts later reads the counts of the others."""
    user = register(urls[0])
    wrong = user | {"password": "wrong horse battery"}

    at_once = each_at_once(urls, "POST", "/auth/token", [login(wrong, AFAR)] * (GUESSES + HASHES_AT_ONCE))
    right = each_at_once(urls, "POST", "/auth/token", [login(user, ip) for ip in (AFAR, AFAR, HOME)])
    url = database.render_as_string(hide_password=False)
    settings = Settings(database_url=url, secret_key=SECRET, login_failures=GUESSES, trusted_proxies=PROXY)
    with TestClient(create_app(settings, password_cost=cheap.COST), client=(PROXY, 4711)) as client:
        later = [client.post("/auth/token", **login(user, ip)) for ip in (AFAR, HOME)]

    assert Counter(answer.status_code for answer in at_once) == {401: GUESSES, 429: HASHES_AT_ONCE}
    assert [answer.status_code for answer in right + later] == [429, 429, 200, 429, 200]
    waits = {int(answer.headers["Retry-After"]) for answer in at_once + right + later if answer.status_code == 429}
    assert waits <= set(range(1, 902))  # one may have looked at the clock before the one that its window began with


@pytest.mark.long
def test_four_processes_that_are_started_again_count_on(database_url: str) -> None:
    user, settings = somebody(), {"database_url": database_url, "secret_key": SECRET}
    wrong = {"data": user | {"password": "wrong horse battery"}}
    with services(4, **settings) as urls:
        httpx2.post(f"{urls[0]}/users", json=user).raise_for_status()
        before = each_at_once(urls, "POST", "/auth/token", [wrong] * 9)
    with services(4, **settings) as urls:
        after = each_at_once(urls, "POST", "/auth/token", [wrong] * 64)

    assert Counter(answer.status_code for answer in before) == {401: 9}
    assert Counter(answer.status_code for answer in after) == {401: 1, 429: 63}


@pytest.mark.long
def test_a_hundred_of_a_thousand_guesses_are_checked(database_url: str) -> None:
    """The guesses come from as many addresses."""
    with services(4, database_url=database_url, secret_key=SECRET, trusted_proxies=PROXY) as urls:
        user = register(urls[0])
        wrong = user | {"password": "wrong horse battery"}
        before = each_at_once(urls, "POST", "/auth/token", [login(user, HOME)])
        batches = [[login(wrong, f"10.1.{n}.{m}") for m in range(50)] for n in range(20)]
        answers = [answer for batch in batches for answer in each_at_once(urls, "POST", "/auth/token", batch)]
        after = each_at_once(urls, "POST", "/auth/token", [login(user, ip) for ip in (AFAR, HOME)])

    assert Counter(answer.status_code for answer in answers) == {401: 100, 429: 900}
    assert [answer.status_code for answer in before + after] == [200, 429, 200]


def test_parallel_deletes_of_one_account_delete_it_once(database: URL, urls: list[str]) -> None:
    user = register(urls[0])
    headers = bearer(log_in(urls[0], user)["access_token"])

    answers = all_at_once(urls, "DELETE", "/users/me", headers=headers)

    assert Counter(answer.status_code for answer in answers) == {204: 1, 401: AT_ONCE - 1}
    assert execute(database, f"SELECT id FROM users WHERE username = '{user['username']}'") == []


def test_parallel_deletes_of_one_task_delete_it_once(urls: list[str]) -> None:
    headers = bearer(sign_up(urls[0])["access_token"])
    task = httpx2.post(f"{urls[0]}/tasks/", json={"title": "Gone"}, headers=headers).json()

    answers = all_at_once(urls, "DELETE", f"/tasks/{task['id']}", headers=headers)

    assert Counter(answer.status_code for answer in answers) == {204: 1, 404: AT_ONCE - 1}


def test_parallel_logins_leave_a_hundred_sessions(database: URL, urls: list[str]) -> None:
    """From other addresses each, so that they do not come one by one."""
    user = register(urls[0])
    tokens = httpx2.post(f"{urls[0]}/auth/token", data=user).json()
    mine = f"user_id = '{jwt.decode(tokens['access_token'], options={'verify_signature': False})['sub']}'"
    columns = "user_id, scope, created_at, rotated_at, expires_at, user_agent, ip"
    rows = [f"SELECT '{new_id(utc_now())}', {columns} FROM sessions WHERE {mine}" for _ in range(98)]
    if database.drivername == "postgresql":
        rows = [row.replace(",", "::uuid,", 1) for row in rows]
    execute(database, f"INSERT INTO sessions (id, {columns}) {' UNION ALL '.join(rows)}")
    requests = [{"data": user, "headers": {"X-Forwarded-For": f"192.0.2.{n}"}} for n in range(HASHES_AT_ONCE)]

    answers = each_at_once(urls, "POST", "/auth/token", requests)

    assert Counter(answer.status_code for answer in answers) == {200: HASHES_AT_ONCE}
    assert execute(database, f"SELECT count(*) FROM sessions WHERE {mine} AND ended_at IS NULL") == [(100,)]


def test_parallel_logins_that_strengthen_a_hash_all_succeed(database: URL, urls: list[str]) -> None:
    user = register(urls[0])
    with closing(Passwords(CHEAP)) as passwords:
        weaker = asyncio.run(passwords.hash(PASSWORD, user["username"], None, ""))
    execute(database, f"UPDATE users SET password_hash = '{weaker}' WHERE username = '{user['username']}'")

    answers = all_at_once(urls, "POST", "/auth/token", HASHES_AT_ONCE, data=user)

    assert Counter(answer.status_code for answer in answers) == {200: HASHES_AT_ONCE}


def protected(urls: list[str]) -> tuple[dict[str, str], dict[str, str], Factor]:
    """A user with a second factor, the headers of a login, and the factor. The code of the next step is unused."""
    user = register(urls[0])
    access_token = log_in(urls[0], user)["access_token"]
    return user, bearer(access_token), protect(urls[1], access_token)


def from_everywhere(form: dict[str, str]) -> list[dict[str, Any]]:
    """Logins from other addresses each, so that they do not come one by one."""
    return [login(form, f"192.0.2.{n}") for n in range(HASHES_AT_ONCE)]


@pytest.mark.parametrize("kind", ["one-time", "recovery"])
def test_one_code_in_parallel_starts_one_session(urls: list[str], kind: str) -> None:
    user, headers, factor = protected(urls)
    code = factor.code(utc_now()) if kind == "one-time" else factor.recovery_codes[0]

    answers = each_at_once(urls, "POST", "/auth/token", from_everywhere(user | {"otp": code}))

    assert Counter(answer.status_code for answer in answers) == {200: 1, 401: HASHES_AT_ONCE - 1}
    assert {answer.json().get("code") for answer in answers} == {None, "invalid_one_time_code"}
    assert live_sessions(urls[1], headers["Authorization"].removeprefix("Bearer ")) == 2


@pytest.mark.parametrize("kind", ["one-time", "recovery"])
def test_a_code_while_the_factor_is_removed(database: URL, urls: list[str], kind: str) -> None:
    """A login comes before the removal and uses the code up, or after it and needs none."""
    user, headers, factor = protected(urls)
    code = factor.code(utc_now()) if kind == "one-time" else factor.recovery_codes[0]
    requests = [("POST", "/auth/token", each) for each in from_everywhere(user | {"otp": code})]
    requests.insert(HASHES_AT_ONCE // 2, ("DELETE", "/users/me/totp", {"headers": headers}))

    answers = mixed_at_once(urls, requests)

    removal = answers.pop(HASHES_AT_ONCE // 2)
    assert removal.status_code == 204
    assert {answer.status_code for answer in answers} <= {200, 401}
    columns = "totp_secret, totp_step, (SELECT count(*) FROM recovery_codes WHERE user_id = users.id)"
    assert execute(database, f"SELECT {columns} FROM users WHERE username = '{user['username']}'") == [(None, None, 0)]
    log_in(urls[1], user)


def test_parallel_activations_make_one_set_of_recovery_codes(database: URL, urls: list[str]) -> None:
    user = register(urls[0])
    headers = bearer(log_in(urls[0], user)["access_token"])
    secret = httpx2.post(f"{urls[0]}/users/me/totp", headers=headers).json()["secret"]
    code = {"code": Factor(secret, []).code(utc_now())}

    answers = all_at_once(urls, "PUT", "/users/me/totp", json=code, headers=headers)

    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: AT_ONCE - 1}
    [codes] = [answer.json()["recovery_codes"] for answer in answers if answer.is_success]
    stored = "SELECT count(*) FROM recovery_codes JOIN users ON id = user_id WHERE username"
    assert execute(database, f"{stored} = '{user['username']}'") == [(10,)]
    for code in codes:
        log_in(urls[1], user | {"otp": code})


def test_a_setup_during_the_activation_changes_no_active_secret(urls: list[str]) -> None:
    user = register(urls[0])
    headers = bearer(log_in(urls[0], user)["access_token"])
    secret = httpx2.post(f"{urls[0]}/users/me/totp", headers=headers).json()["secret"]
    activation = {"json": {"code": Factor(secret, []).code(utc_now(), -1)}, "headers": headers}
    requests: list[Request] = [("PUT", "/users/me/totp", activation), ("POST", "/users/me/totp", {"headers": headers})]

    answers = mixed_at_once(urls, requests * HASHES_AT_ONCE)

    activations, setups = (Counter(answer.status_code for answer in each) for each in (answers[::2], answers[1::2]))
    if activations[200]:
        assert (activations, setups) == ({200: 1, 409: HASHES_AT_ONCE - 1}, {409: HASHES_AT_ONCE})
        log_in(urls[1], user | {"otp": Factor(secret, []).code(utc_now())})
    else:
        assert (activations, setups) == ({403: HASHES_AT_ONCE}, {201: HASHES_AT_ONCE})
        log_in(urls[1], user)
