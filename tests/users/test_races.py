"""Accounts, addresses and personal tokens under many requests at once, through two processes on one database."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import URL, make_url

from tests.conftest import SECRET, execute, migrate, new_database
from tests.support.accounts import PASSWORD, bearer
from tests.support.mail_hook import TO_FILE, appended
from tests.support.processes import services, wait_for
from tests.support.races import all_at_once, each_at_once, log_in, mixed_at_once, register, somebody

HASHES_AT_ONCE = 12
NEW = "another horse battery"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The services run in it, and their mails are there."""
    return tmp_path_factory.mktemp("races")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, folder: Path) -> Iterator[URL]:
    if request.param == "sqlite":
        yield make_url(f"sqlite:///{folder}/tasks.db")
    else:
        with new_database(request.getfixturevalue("postgres_server")) as url:
            yield url


def settings(database: URL) -> dict[str, Any]:
    url = database.render_as_string(hide_password=False)
    return {"database_url": url, "secret_key": SECRET, "mail_hook": TO_FILE, "trusted_proxies": "127.0.0.1"}


@pytest.fixture(scope="module")
def urls(database: URL, folder: Path) -> Iterator[list[str]]:
    asyncio.run(migrate(database))
    with chdir(folder), services(2, **settings(database)) as urls:
        yield urls


@pytest.fixture(autouse=True)
def _mails_are_here(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(folder)


def register_at(url: str, address: str) -> tuple[dict[str, str], str]:
    """Register with an address; the user, and the token that is mailed."""
    user = somebody()
    httpx2.post(f"{url}/users", json=user | {"email": address}).raise_for_status()

    def tokens() -> list[str | None]:
        return [mail.token for mail in appended() if mail.username == user["username"]]

    wait_for(tokens)
    [token] = tokens()
    assert token
    return user, token


def count(database: URL, rows: str, user: dict[str, str]) -> int:
    """Count the rows of a user. `rows` is a table, or a table and a condition."""
    table, _, condition = rows.partition(" WHERE ")
    owner = f"user_id = (SELECT id FROM users WHERE username = '{user['username']}')"
    [(found,)] = execute(database, f"SELECT count(*) FROM {table} WHERE {owner} AND {condition or 'TRUE'}")
    return int(found)


def test_one_of_several_accounts_verifies_an_address(database: URL, urls: list[str]) -> None:
    """Letter case does not matter, and a repeat of the winner's does no harm."""
    address = f"{somebody()['username']}@example.com"
    accounts = [register_at(urls[0], text) for text in (address, address.replace("ada", "Ada"), address.upper())]
    bodies = [{"json": {"verification_token": token}} for _, token in accounts for _ in urls]

    answers = each_at_once(urls, "POST", "/users/verify-email", bodies * 4)

    statuses = [{answer.status_code for answer in answers[n::6] + answers[n + 1 :: 6]} for n in (0, 2, 4)]
    assert sorted(map(sorted, statuses)) == [[204], [409], [409]]
    events = [count(database, "account_events WHERE event = 'email_verified'", user) for user, _ in accounts]
    assert events == [int(each == {204}) for each in statuses]
    assert httpx2.post(f"{urls[1]}/auth/token", data={"username": address, "password": PASSWORD}).status_code == 200


def test_parallel_creations_make_a_hundred_tokens(database: URL, urls: list[str]) -> None:
    """Through several sessions of the account."""
    user = register(urls[0])
    logins = [bearer(log_in(url, user)["access_token"]) for url in urls * 2]
    requests = [{"json": {"name": f"Token {n}"}, "headers": logins[n % len(logins)]} for n in range(112)]

    answers = each_at_once(urls, "POST", "/auth/tokens", requests)

    assert Counter(answer.status_code for answer in answers) == {201: 100, 409: 12}
    assert {answer.json().get("code") for answer in answers} == {None, "too_many_tokens"}
    assert count(database, "sessions WHERE kind = 'personal'", user) == 100
    assert count(database, "account_events WHERE event = 'token_created'", user) == 100


@pytest.mark.parametrize("way", ["delete", "revoke"])
def test_a_token_that_is_revoked_while_it_is_used(database: URL, urls: list[str], way: str) -> None:
    """A request before the end does its work, one after it nothing."""
    user = register(urls[0])
    login = bearer(log_in(urls[0], user)["access_token"])
    made = httpx2.post(f"{urls[0]}/auth/tokens", json={"name": "Backup"}, headers=login).json()
    use = ("POST", "/tasks/", {"json": {"title": "Water"}, "headers": bearer(made["token"])})
    end: tuple[str, str, dict[str, Any]] = ("DELETE", f"/auth/tokens/{made['id']}", {"headers": login})
    if way == "revoke":
        end = ("POST", "/auth/revoke", {"data": {"token": made["token"]}})

    answers = mixed_at_once(urls, [*[use] * 12, end, *[use] * 12])

    assert answers.pop(12).is_success
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() <= {201, 401}
    tasks = f"SELECT count(*) FROM tasks JOIN users ON users.id = owner_id WHERE username = '{user['username']}'"
    assert execute(database, tasks) == [(statuses[201],)]
    late = all_at_once(urls, "GET", "/tasks/mine", 4, headers=use[2]["headers"])
    assert [answer.status_code for answer in late] == [401] * 4
    assert count(database, "account_events WHERE event = 'token_revoked'", user) == 1


def test_parallel_requests_for_a_reset_send_one_mail(database: URL, urls: list[str]) -> None:
    """The services stop, so that each of them has done what it does after its answers."""
    user, token = register_at(urls[0], f"{somebody()['username']}@example.com")
    httpx2.post(f"{urls[0]}/users/verify-email", json={"verification_token": token}).raise_for_status()

    with services(2, **settings(database)) as two:
        body = {"username": user["username"].upper()}
        answers = all_at_once(two, "POST", "/users/forgot-password", HASHES_AT_ONCE, json=body)

    assert Counter(answer.status_code for answer in answers) == {202: HASHES_AT_ONCE}
    mails = [mail.kind for mail in appended() if mail.username == user["username"]]
    assert mails == ["verify_email", "reset_password"]
    assert count(database, "account_events WHERE event = 'password_reset_requested'", user) == 1


def test_logins_during_a_password_change_outlive_it_nowhere(database: URL, urls: list[str]) -> None:
    """A login with the old password is refused, or its session ends with the change."""
    user = register(urls[0])
    tokens = log_in(urls[0], user)
    change = {"json": {"current_password": PASSWORD, "new_password": NEW}, "headers": bearer(tokens["access_token"])}
    logins = [{"data": user, "headers": {"X-Forwarded-For": f"192.0.2.{n}"}} for n in range(HASHES_AT_ONCE)]
    requests = [("POST", "/auth/token", login) for login in logins]

    answers = mixed_at_once(urls, [*requests[:2], ("PUT", "/users/me/password", change), *requests[2:]])

    assert answers.pop(2).is_success
    assert {answer.status_code for answer in answers} <= {200, 401}
    headers = [bearer(answer.json()["access_token"]) for answer in answers if answer.is_success]
    after = [httpx2.get(f"{urls[1]}/tasks/mine", headers=each).status_code for each in headers]
    assert after == [401] * len(headers)
    assert count(database, "sessions WHERE ended_at IS NULL", user) == 1
    log_in(urls[0], user | {"password": NEW})
