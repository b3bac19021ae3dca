"""Many at once, through two processes on one database."""

import asyncio
from collections import Counter

import httpx2

from tests.accounts import PASSWORD
from tests.conftest import SECRET, Sql
from tests.processes import services

ADA = {"username": "ada", "password": PASSWORD}
AT_ONCE = 50


def all_at_once(urls: list[str], method: str, path: str, **request: object) -> list[httpx2.Response]:
    """Send the same request `AT_ONCE` times, to each of the services in turn."""

    async def send() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=AT_ONCE)
        async with httpx2.AsyncClient(limits=limits, timeout=30) as client:
            targets = (f"{urls[n % len(urls)]}{path}" for n in range(AT_ONCE))
            return await asyncio.gather(*(client.request(method, url, **request) for url in targets))  # type: ignore[arg-type]

    return asyncio.run(send())


def test_parallel_refreshes_of_one_token_get_one_successor(database_url: str, sql: Sql) -> None:
    with services(2, database_url=database_url, secret_key=SECRET) as urls:
        httpx2.post(f"{urls[0]}/users", json=ADA).raise_for_status()
        login = httpx2.post(f"{urls[0]}/auth/token", data=ADA).json()
        form = {"grant_type": "refresh_token", "refresh_token": login["refresh_token"]}

        answers = all_at_once(urls, "POST", "/auth/token", data=form)

    assert Counter(answer.status_code for answer in answers) == {200: AT_ONCE}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    assert sql("SELECT generation, ended_at FROM sessions") == [(2, None)]


def test_without_a_grace_one_of_parallel_refreshes_wins_and_the_session_ends(database_url: str, sql: Sql) -> None:
    with services(2, database_url=database_url, secret_key=SECRET, refresh_grace=0) as urls:
        httpx2.post(f"{urls[0]}/users", json=ADA).raise_for_status()
        login = httpx2.post(f"{urls[0]}/auth/token", data=ADA).json()
        form = {"grant_type": "refresh_token", "refresh_token": login["refresh_token"]}

        answers = all_at_once(urls, "POST", "/auth/token", data=form)

    assert Counter(answer.status_code for answer in answers) == {200: 1, 400: AT_ONCE - 1}
    assert sql("SELECT generation, end_reason FROM sessions") == [(2, "reuse")]


def test_parallel_creates_with_one_idempotency_key_make_one_task(database_url: str, sql: Sql) -> None:
    with services(2, database_url=database_url, secret_key=SECRET) as urls:
        httpx2.post(f"{urls[0]}/users", json=ADA).raise_for_status()
        token = httpx2.post(f"{urls[0]}/auth/token", data=ADA).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "once"}

        answers = all_at_once(urls, "POST", "/tasks/", json={"title": "Once"}, headers=headers)

    assert Counter(answer.status_code for answer in answers) == {201: AT_ONCE}
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_parallel_registrations_of_one_name_make_one_user(database_url: str) -> None:
    with services(2, database_url=database_url, secret_key=SECRET) as urls:
        answers = all_at_once(urls, "POST", "/users", json=ADA)

    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: AT_ONCE - 1}
