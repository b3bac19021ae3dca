"""Two services on one database, many requests at once: addresses and reset tokens."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import pytest
from sqlalchemy import URL, make_url

from tests.conftest import SECRET, execute, migrate, new_database
from tests.support.mail_hook import TO_FILE, appended
from tests.support.processes import services, wait_for
from tests.support.races import AT_ONCE, all_at_once, each_at_once, register, somebody


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[URL]:
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield make_url("sqlite:///./tasks.db")
        else:
            yield stack.enter_context(new_database(request.getfixturevalue("postgres_server")))


@pytest.fixture
def urls(database: URL) -> Iterator[list[str]]:
    asyncio.run(migrate(database))
    settings = {"database_url": database.render_as_string(hide_password=False), "secret_key": SECRET}
    with services(2, **settings, mail_hook=TO_FILE) as urls:
        yield urls


def verification_of(url: str, email: str) -> dict[str, str]:
    """Register a user; the body that verifies the address."""
    user = somebody() | {"email": email}
    httpx2.post(f"{url}/users", json=user).raise_for_status()
    wait_for(lambda: any(mail.username == user["username"] for mail in appended()))
    [token] = [mail.token for mail in appended() if mail.username == user["username"]]
    return {"verification_token": token or ""}


def test_one_of_several_accounts_verifies_an_address(database: URL, urls: list[str]) -> None:
    bodies = [{"json": verification_of(urls[0], "ada@example.com")} for _ in range(6)]

    answers = each_at_once(urls, "POST", "/users/verify-email", bodies)

    assert Counter(answer.status_code for answer in answers) == {204: 1, 409: 5}
    assert execute(database, "SELECT count(*) FROM users WHERE email_verified") == [(1,)]


def test_parallel_wishes_for_a_mail_send_one(database: URL, urls: list[str]) -> None:
    user = register(urls[0])
    name, wait = user["username"], len(appended())
    execute(database, f"UPDATE users SET email = 'x@example.com', email_verified = TRUE WHERE username = '{name}'")

    answers = all_at_once(urls, "POST", "/users/forgot-password", json={"username": name})

    assert Counter(answer.status_code for answer in answers) == {202: AT_ONCE}
    wait_for(lambda: len(appended()) > wait)
    hits = "SELECT count(*) FROM account_events WHERE event = 'password_reset_requested'"
    assert execute(database, hits) == [(1,)]
    assert len(appended()) == wait + 1
