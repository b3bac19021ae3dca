"""A user who has forgotten the password gets a reset token by mail. The answer tells nothing of the account."""

import logging
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from tests.conftest import MovableClock, Serve, Sql, on_one_database
from tests.support.accounts import faults, log_in, refresh, register
from tests.support.mail_hook import HOOK, drain, mails, verified
from tests.support.statements import after_each_statement

NEW = "another long one"
ANSWER = 202, {"expires_in": 3600}


def forget(client: TestClient, username: str = "ada") -> Response:
    """Ask, and wait until all that the service does is done."""
    answer = client.post("/users/forgot-password", json={"username": username})
    drain(client)
    return answer


def reset(client: TestClient, token: str | None) -> int:
    body = {"reset_token": token, "new_password": NEW}
    return client.post("/users/reset-password", json=body).status_code


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if "password_reset_requested" in record.getMessage()]
    return [line.partition('"reason": ')[2].strip('}"') for line in lines]


@pytest.fixture(autouse=True)
def _events(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app")


def test_a_mailed_token_sets_the_password(mailing: TestClient) -> None:
    login = verified(mailing)

    answer = forget(mailing)

    [mail] = mails(mailing)
    assert (answer.status_code, answer.json()) == ANSWER
    assert (mail.kind, mail.to, mail.username) == ("reset_password", "ada@example.com", "ada")
    assert reset(mailing, mail.token) == 204
    assert refresh(mailing, login.refresh_token).status_code == 400
    log_in(mailing, password=NEW)
    [notice] = mails(mailing)
    assert (notice.kind, notice.to) == ("notice", "ada@example.com")
    assert "changed the password" in notice.text
    assert reset(mailing, mail.token) == 400


@pytest.mark.parametrize("name", ["ADA", "ada@EXAMPLE.com", " ada@example.com "])
def test_a_user_is_named_as_at_the_login(mailing: TestClient, name: str) -> None:
    verified(mailing)

    forget(mailing, name)

    assert [mail.to for mail in mails(mailing)] == ["ada@example.com"]


def test_the_answer_is_the_same_for_everybody(mailing: TestClient, sql: Sql, caplog: pytest.LogCaptureFixture) -> None:
    verified(mailing)
    verified(mailing, "eve", "eve@example.com")
    register(mailing, "bob", email="bob@example.com")
    register(mailing, "dan")
    mails(mailing)
    sql("UPDATE users SET is_active = FALSE WHERE username = 'eve'")

    names = "ada", "bob", "bob@example.com", "dan", "eve", "nobody", "nobody@example.com"
    answers = [forget(mailing, name) for name in names]

    assert [(answer.status_code, answer.json()) for answer in answers] == [ANSWER] * 7
    assert len({tuple(answer.headers.items()) for answer in answers}) == 1
    assert [mail.to for mail in mails(mailing)] == ["ada@example.com"]
    no_address, unknown = "no_verified_address", "user_not_found"
    assert sorted(reasons(caplog)) == sorted(
        ["null", no_address, unknown, no_address, "user_disabled", unknown, unknown]
    )
    assert sql("SELECT count(*) FROM account_events WHERE event = 'password_reset_requested'") == [(1,)]


@pytest.mark.parametrize("username", ["", "x" * 255, 7, None, "a\0b"])
def test_a_name_that_none_can_have_is_refused(mailing: TestClient, username: Any) -> None:
    assert faults(mailing.post("/users/forgot-password", json={"username": username})) == [["body", "username"]]


def test_a_mail_is_sent_once_a_minute_and_five_times_an_hour(
    mailing: TestClient, clock: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """All names of an account count together. The answer does not tell."""
    verified(mailing)
    for _ in range(6):
        for name in "ada", "ada@example.com":
            answer = forget(mailing, name)
            assert (answer.status_code, answer.json()) == ANSWER
        clock.move(seconds=61)

    assert len(mails(mailing)) == 5
    assert reasons(caplog) == ["null", "too_many_attempts"] * 5 + ["too_many_attempts"] * 2
    clock.move(hours=1)
    forget(mailing)
    assert len(mails(mailing)) == 1


def test_a_network_gets_thirty_mails_an_hour(
    mailing: TestClient, clock: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    verified(mailing)
    for n in range(30):
        forget(mailing, f"nobody{n}")

    answer = forget(mailing)

    assert (answer.status_code, answer.json()) == ANSWER
    assert mails(mailing) == []
    assert reasons(caplog)[-1] == "too_many_attempts"
    clock.move(hours=1, seconds=1)
    forget(mailing)
    assert len(mails(mailing)) == 1


def test_a_newer_mail_voids_the_older_and_an_hour_voids_both(mailing: TestClient, clock: MovableClock) -> None:
    verified(mailing)
    tokens = []
    for _ in range(3):
        forget(mailing)
        tokens += [mail.token for mail in mails(mailing)]
        clock.move(minutes=2)

    assert [reset(mailing, token) for token in tokens[:2]] == [400, 400]
    clock.move(minutes=58)
    assert reset(mailing, tokens[2]) == 400


def test_without_a_verified_address_an_older_token_stays_good(serve: Serve, sql: Sql) -> None:
    """Anybody may ask for a mail: that voids nothing where no mail is sent."""
    client = serve(mail_hook=HOOK)
    ada = register(client, email="ada@example.com")
    register(client, "chief")
    sql("UPDATE users SET is_admin = TRUE WHERE username = 'chief'")
    root = log_in(client, "chief").headers
    issued = client.post(f"/users/{ada['id']}/reset-token", headers=root)
    assert issued.status_code == 201
    mails(client)

    forget(client)

    assert mails(client) == []
    assert reset(client, issued.json()["reset_token"]) == 204


def test_the_token_of_an_administrator_goes_by_mail(mailing: TestClient, sql: Sql) -> None:
    verified(mailing)
    register(mailing, "chief")
    sql("UPDATE users SET is_admin = TRUE WHERE username = 'chief'")
    root = log_in(mailing, "chief").headers
    [(user_id,)] = sql("SELECT id FROM users WHERE username = 'ada'")

    answer = mailing.post(f"/users/{user_id}/reset-token", headers=root)

    [mail] = mails(mailing)
    assert (answer.status_code, answer.json()) == ANSWER
    assert (mail.kind, mail.to) == ("reset_password", "ada@example.com")
    assert reset(mailing, mail.token) == 204


@pytest.fixture
def order() -> Iterator[list[str]]:
    """The statements that the service runs."""
    seen: list[str] = []
    with after_each_statement(lambda statement: seen.append(statement.split()[0])):
        yield seen


@on_one_database
def test_everything_happens_after_the_answer(mailing: TestClient, order: list[str]) -> None:
    """The time of the answer cannot tell whether there is an account."""
    verified(mailing)
    order.clear()

    async def noted(scope: Any, receive: Any, send: Any) -> None:
        async def note(message: Any) -> None:
            order.append(message["type"])
            await send(message)

        await mailing.app(scope, receive, note)

    async def ask() -> int:
        transport = httpx2.ASGITransport(noted)
        async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return (await client.post("/users/forgot-password", json={"username": "ada"})).status_code

    assert mailing.portal is not None
    assert mailing.portal.call(ask) == 202
    assert len(mails(mailing)) == 1
    assert order[:2] == ["http.response.start", "http.response.body"]
    assert "UPDATE" in order
