"""A user verifies an e-mail address with a token that was mailed to it, and then logs in with the address."""

from base64 import urlsafe_b64decode
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy.exc import IntegrityError

from app.testing import LogIn, User
from tests.conftest import MovableClock, Serve, Sql
from tests.support.accounts import PASSWORD, Login, bearer, log_in, refresh, register, sign_up
from tests.support.mail_hook import HOOK, drain, fail, mails, verified

INVALID = {"detail": "The verification token is invalid or has expired", "code": "invalid_verification_token"}
TAKEN = {"detail": "Another account has verified this e-mail address", "code": "email_taken"}
NOT_CONFIGURED = {
    "detail": "The service sends no mail: an administrator sets SMTP_URL or MAIL_HOOK",
    "code": "mail_not_configured",
}


def verify(client: TestClient, token: str | None) -> Response:
    return client.post("/users/verify-email", json={"verification_token": token})


def ask(client: TestClient, login: Login) -> Response:
    return client.post("/users/me/verify-email", headers=login.headers)


def change(client: TestClient, login: Login, email: str | None) -> dict[str, Any]:
    response = client.patch("/users/me", json={"email": email}, headers=login.headers)
    assert response.status_code == 200, response.text
    profile: dict[str, Any] = response.json()
    return profile


def is_verified(client: TestClient, login: Login) -> bool:
    return bool(client.get("/users/me", headers=login.headers).json()["email_verified"])


def sign_in(client: TestClient, name: str, password: str = PASSWORD) -> int:
    return client.post("/auth/token", data={"username": name, "password": password}).status_code


def token_for(client: TestClient, username: str, email: str = "ada@example.com") -> str:
    """Register; the token that is mailed."""
    register(client, username, email=email)
    [mail] = mails(client)
    assert mail.token
    return mail.token


def test_a_registration_sends_the_first_token(mailing: TestClient, clock: MovableClock) -> None:
    user = register(mailing, email="Ada@Example.com")
    [mail] = mails(mailing)
    login = log_in(mailing)
    clock.move(minutes=1)

    assert user["email_verified"] is False
    assert (mail.kind, mail.to, mail.username) == ("verify_email", "Ada@example.com", "ada")
    assert not is_verified(mailing, login)
    for _ in range(2):  # a repeat does no harm
        answer = verify(mailing, mail.token)
        assert (answer.status_code, answer.content) == (204, b"")
    profile = mailing.get("/users/me", headers=login.headers).json()
    assert profile == user | {"email_verified": True, "updated_at": "2026-11-23T09:01:00Z"}


def test_a_registration_without_an_address_sends_nothing(mailing: TestClient) -> None:
    login = sign_up(mailing)

    answer = ask(mailing, login)

    assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_verify")
    assert mails(mailing) == []


def test_a_user_asks_for_another_token(mailing: TestClient, clock: MovableClock) -> None:
    older = token_for(mailing, "ada")
    login = log_in(mailing)

    answer = ask(mailing, login)

    [mail] = mails(mailing)
    assert (answer.status_code, answer.json()) == (202, {"expires_in": 86_400})
    assert mail.token != older
    assert verify(mailing, mail.token).status_code == verify(mailing, older).status_code == 204
    clock.move(minutes=1)
    answer = ask(mailing, login)
    assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_verify")


def test_a_token_is_sent_once_a_minute_and_five_times_an_hour(mailing: TestClient, clock: MovableClock) -> None:
    register(mailing, email="ada@example.com")
    login = log_in(mailing)
    statuses = []
    for _ in range(6):
        statuses += [ask(mailing, login), ask(mailing, login)]
        clock.move(seconds=61)

    assert [answer.status_code for answer in statuses] == [202, 429] * 5 + [429, 429]
    assert statuses[1].json()["code"] == "too_many_attempts"
    assert 0 < int(statuses[1].headers["Retry-After"]) <= 60
    assert 3000 < int(statuses[-1].headers["Retry-After"]) <= 3600
    assert len(mails(mailing)) == 6
    clock.move(hours=1)
    assert ask(mailing, log_in(mailing)).status_code == 202


def test_a_token_works_for_a_day(mailing: TestClient, clock: MovableClock) -> None:
    token = token_for(mailing, "ada")
    clock.move(days=1)

    answer = verify(mailing, token)

    assert (answer.status_code, answer.json()) == (400, INVALID)
    clock.move(seconds=-1)
    assert verify(mailing, token).status_code == 204


def test_a_token_is_for_one_address(mailing: TestClient) -> None:
    token = token_for(mailing, "ada")
    login = log_in(mailing)

    for email in "ada@example.org", "ADA@example.com", None:
        change(mailing, login, email)
        assert verify(mailing, token).json() == INVALID
    change(mailing, login, "ada@example.com")

    assert verify(mailing, token).status_code == 204


@pytest.mark.parametrize("statement", ["UPDATE users SET is_active = FALSE", "DELETE FROM users"])
def test_a_token_of_a_disabled_or_deleted_user_is_void(mailing: TestClient, sql: Sql, statement: str) -> None:
    token = token_for(mailing, "ada")
    sql(statement)

    assert verify(mailing, token).json() == INVALID


def test_no_other_token_verifies_an_address(mailing: TestClient) -> None:
    token = token_for(mailing, "ada")
    login = log_in(mailing)
    head, body, signature = token.split(".")

    for other in login.access_token, login.refresh_token, "x", "", f"{head}.{body}.{signature[::-1]}":
        assert verify(mailing, other).json() == INVALID
    assert mailing.get("/users/me", headers=bearer(token)).status_code == 401
    assert refresh(mailing, token).status_code == 400
    reset = {"reset_token": token, "new_password": "another long one"}
    assert mailing.post("/users/reset-password", json=reset).status_code == 400
    assert "ada@" not in urlsafe_b64decode(body + "==").decode()


def test_one_account_verifies_an_address(mailing: TestClient) -> None:
    """Another account may have it, but not verify it, in any letter case."""
    tokens = [token_for(mailing, "ada"), token_for(mailing, "eve", "ADA@example.com")]
    assert verify(mailing, tokens[0]).status_code == 204

    refused = verify(mailing, tokens[1])

    assert (refused.status_code, refused.json()) == (409, TAKEN)
    assert not is_verified(mailing, log_in(mailing, "eve"))
    assert sign_in(mailing, "ada@example.com") == 200
    change(mailing, log_in(mailing), None)
    assert verify(mailing, tokens[1]).status_code == 204


def test_another_violation_is_no_taken_address(mailing: TestClient, sql: Sql) -> None:
    token = token_for(mailing, "ada")
    register(mailing, "bob")
    sql("UPDATE users SET email_verified = TRUE WHERE username = 'bob'")
    sql("CREATE UNIQUE INDEX another ON users (email_verified)")
    try:
        with pytest.raises(IntegrityError):
            verify(mailing, token)
    finally:
        sql("DROP INDEX another")


def test_a_changed_address_is_unverified_until_its_token_comes(mailing: TestClient) -> None:
    login = verified(mailing)

    profile = change(mailing, login, "ada@example.org")

    [notice] = mails(mailing)
    assert (notice.kind, notice.to) == ("notice", "ada@example.com")
    assert "changed the e-mail address" in notice.text
    assert profile["email_verified"] is False
    assert sign_in(mailing, "ada@example.com") == sign_in(mailing, "ada@example.org") == 401
    change(mailing, login, "ada@example.net")
    assert mails(mailing) == []  # nobody had verified ada@example.org
    assert ask(mailing, login).status_code == 202
    [mail] = mails(mailing)
    assert mail.to == "ada@example.net"
    assert verify(mailing, mail.token).status_code == 204
    assert sign_in(mailing, "ada@example.net") == 200


def test_the_same_address_again_stays_verified(mailing: TestClient) -> None:
    login = verified(mailing)

    assert change(mailing, login, "ada@example.com")["email_verified"] is True
    assert mails(mailing) == []


def test_without_mail_there_is_nothing_of_it(client: TestClient, user: User, login: LogIn) -> None:
    answers = [
        ask(client, login(user)),
        verify(client, "x"),
        client.post("/users/forgot-password", json={"username": "ada"}),
    ]

    assert [(answer.status_code, answer.json()) for answer in answers] == [(404, NOT_CONFIGURED)] * 3
    assert register(client, "bob", email="bob@example.com")["email_verified"] is False


def test_a_mail_server_that_fails_changes_no_answer(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.mail.outbox.PAUSES", (0,))
        client = serve(mail_hook=fail)
        register(client, email="ada@example.com")
        login = log_in(client)
        assert ask(client, login).status_code == 202
        assert client.post("/users/forgot-password", json={"username": "ada"}).status_code == 202
        drain(client)

    assert "a mail is lost" in caplog.text
    assert "ada@example.com" not in caplog.text
    assert "no route" not in caplog.text


def test_a_mail_address_in_any_script_logs_in(mailing: TestClient) -> None:
    """The case of ASCII letters does not matter, other letters are taken exactly."""
    verified(mailing, email="\u00c4da@m\u00fcnchen.de")

    statuses = {name: sign_in(mailing, name) for name in ("\u00c4DA@M\u00fcnchen.de", "\u00e4da@m\u00fcnchen.de")}

    assert list(statuses.values()) == [200, 401]


def test_a_verified_address_logs_in_as_the_name_does(mailing: TestClient) -> None:
    token_for(mailing, "bob", "bob@example.com")
    verified(mailing, email="Ada.L@example.com")

    assert [sign_in(mailing, name) for name in ("ada", "ADA", "ada.l@EXAMPLE.com", " Ada.L@example.com ")] == [200] * 4
    assert sign_in(mailing, "bob@example.com") == 401
    assert sign_in(mailing, "bob") == 200


def test_failures_count_for_the_account_whichever_name_is_typed(mailing: TestClient, clock: MovableClock) -> None:
    verified(mailing)
    names = ["ada", "ada@example.com"] * 5

    assert [sign_in(mailing, name, "wrong") for name in names] == [401] * 10
    assert [sign_in(mailing, name) for name in names[:2]] == [429, 429]
    clock.move(minutes=16)
    assert sign_in(mailing, "ada@example.com") == 200


def test_a_token_is_logged_nowhere(serve: Serve, caplog: pytest.LogCaptureFixture, sql: Sql) -> None:
    caplog.set_level("INFO", "app")
    client = serve(mail_hook=HOOK)
    register(client, email="ada@example.com")
    [mail] = mails(client)
    verify(client, mail.token)

    assert '"event": "email_verified"' in caplog.text
    assert mail.token
    for canary in mail.token, mail.to, mail.token.split(".")[2]:
        assert canary not in caplog.text
    assert sql("SELECT event, reason FROM account_events WHERE event = 'email_verified'") == [("email_verified", None)]
