"""Many at once, through two processes on one database."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import URL, make_url

from app.auth.passwords import Passwords
from tests.accounts import PASSWORD, bearer
from tests.conftest import CHEAP, SECRET, execute, migrate, new_database
from tests.processes import services

AT_ONCE = 50
HASHES_AT_ONCE = 12


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
    """Two services on one database."""
    asyncio.run(migrate(database))
    with services(2, database_url=database.render_as_string(hide_password=False), secret_key=SECRET) as urls:
        yield urls


def all_at_once(urls: list[str], method: str, path: str, count: int = AT_ONCE, **request: Any) -> list[httpx2.Response]:
    """Send the same request `count` times, to each of the services in turn."""

    async def send() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=AT_ONCE)
        async with httpx2.AsyncClient(limits=limits, timeout=30) as client:
            targets = (f"{urls[n % len(urls)]}{path}" for n in range(count))
            return await asyncio.gather(*(client.request(method, url, **request) for url in targets))

    return asyncio.run(send())


def somebody() -> dict[str, str]:
    return {"username": f"ada-{uuid4().hex}", "password": PASSWORD}


def sign_up(url: str) -> dict[str, str]:
    """What a new user's login brings."""
    user = somebody()
    httpx2.post(f"{url}/users", json=user).raise_for_status()
    tokens: dict[str, str] = httpx2.post(f"{url}/auth/token", data=user).raise_for_status().json()
    return tokens


def live_sessions(url: str, access_token: str) -> int:
    return len(httpx2.get(f"{url}/auth/sessions", headers=bearer(access_token)).json()["items"])


def test_parallel_refreshes_of_one_token_get_one_successor(urls: list[str]) -> None:
    tokens = sign_up(urls[0])
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}

    answers = all_at_once(urls, "POST", "/auth/token", data=form)

    assert Counter(answer.status_code for answer in answers) == {200: AT_ONCE}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    assert live_sessions(urls[0], tokens["access_token"]) == 1


def test_without_a_grace_one_of_parallel_refreshes_wins_and_the_session_ends(database: URL, urls: list[str]) -> None:
    tokens = sign_up(urls[0])
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    settings = {"database_url": database.render_as_string(hide_password=False), "secret_key": SECRET}

    with services(2, **settings, refresh_grace=0) as strict:
        answers = all_at_once(strict, "POST", "/auth/token", data=form)

    assert Counter(answer.status_code for answer in answers) == {200: 1, 400: AT_ONCE - 1}
    assert {answer.json().get("error") for answer in answers} == {None, "invalid_grant"}
    assert execute(database, "SELECT generation FROM sessions WHERE end_reason = 'reuse'") == [(2,)]


def test_parallel_creates_with_one_idempotency_key_make_one_task(urls: list[str]) -> None:
    headers = bearer(sign_up(urls[0])["access_token"]) | {"Idempotency-Key": "once"}

    answers = all_at_once(urls, "POST", "/tasks/", json={"title": "Once"}, headers=headers)

    assert Counter(answer.status_code for answer in answers) == {201: AT_ONCE}
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_parallel_registrations_of_one_name_make_one_user(urls: list[str]) -> None:
    answers = all_at_once(urls, "POST", "/users", HASHES_AT_ONCE, json=somebody())

    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: HASHES_AT_ONCE - 1}


def test_parallel_password_changes_leave_one_password(urls: list[str]) -> None:
    user = somebody()
    httpx2.post(f"{urls[0]}/users", json=user).raise_for_status()
    token = httpx2.post(f"{urls[0]}/auth/token", data=user).json()["access_token"]
    change = {"current_password": PASSWORD, "new_password": "another horse battery"}

    answers = all_at_once(urls, "PUT", "/users/me/password", HASHES_AT_ONCE, json=change, headers=bearer(token))

    assert Counter(answer.status_code for answer in answers) == {204: 1, 403: HASHES_AT_ONCE - 1}
    assert httpx2.post(f"{urls[1]}/auth/token", data=user).status_code == 401
    assert httpx2.post(f"{urls[1]}/auth/token", data=user | {"password": "another horse battery"}).status_code == 200


def test_parallel_logins_on_a_hash_that_is_to_be_strengthened_all_succeed(database: URL, urls: list[str]) -> None:
    user = somebody()
    httpx2.post(f"{urls[0]}/users", json=user).raise_for_status()
    with closing(Passwords(CHEAP)) as passwords:
        weaker = asyncio.run(passwords.hash(PASSWORD, user["username"]))
    execute(database, f"UPDATE users SET password_hash = '{weaker}' WHERE username = '{user['username']}'")

    answers = all_at_once(urls, "POST", "/auth/token", HASHES_AT_ONCE, data=user)

    assert Counter(answer.status_code for answer in answers) == {200: HASHES_AT_ONCE}
