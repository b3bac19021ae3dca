"""Notices tell the verified address of a user what has happened to the account."""

from threading import Thread

from fastapi.testclient import TestClient

from tests.conftest import SECRET, MovableClock, Serve, Sql, on_one_database, on_postgresql
from tests.support.accounts import PASSWORD, add_user, log_in, refresh, refreshed
from tests.support.command_line import run
from tests.support.mail_hook import HOOK, mails, verified
from tests.support.second_factor import activate
from tests.support.statements import after_each_statement

pytestmark = on_one_database

NEW = "another long one"


def told(client: TestClient | None = None) -> list[tuple[str, str]]:
    """The address and the first sentence of each notice."""
    return [(mail.to, mail.text.split("\n\n")[1]) for mail in mails(client) if mail.kind == "notice"]


def test_a_password_change_is_told(mailing: TestClient) -> None:
    login = verified(mailing)

    body = {"current_password": PASSWORD, "new_password": NEW}
    assert mailing.put("/users/me/password", json=body, headers=login.headers).is_success

    assert told(mailing) == [("ada@example.com", "Somebody has changed the password of your account.")]


def test_a_reuse_of_a_refresh_token_is_told(serve: Serve) -> None:
    client = serve(mail_hook=HOOK, refresh_grace=0)
    login = verified(client)
    refreshed(client, login.refresh_token)

    assert refresh(client, login.refresh_token).status_code == 400

    [(address, text)] = told(client)
    assert address == "ada@example.com"
    assert text.startswith("A session of your account has ended")


@on_postgresql
def test_a_reuse_is_told_once(serve: Serve, sql: Sql) -> None:
    """Of two repeats at once the other one has ended the session."""
    client = serve(mail_hook=HOOK, refresh_grace=0)
    login = verified(client)
    refreshed(client, login.refresh_token)

    def interfere(statement: str) -> None:
        if statement.startswith("SELECT sessions.id"):
            change = "UPDATE sessions SET ended_at = created_at, end_reason = 'reuse'"
            thread = Thread(target=sql, args=(change,))  # the service's own thread runs an event loop
            thread.start()
            thread.join()

    with after_each_statement(interfere):
        assert refresh(client, login.refresh_token).json()["code"] == "token_reused"

    assert told(client) == []


def test_a_password_of_the_command_line_is_told(client: TestClient, database_url: str, sql: Sql) -> None:
    mails()
    for name, is_verified in ("ada", True), ("bob", False):
        user = client.post("/users", json={"username": name, "password": PASSWORD, "email": f"{name}@example.com"})
        sql(f"UPDATE users SET email_verified = {is_verified} WHERE id = '{user.json()['id']}'")
        settings = {"database_url": database_url, "secret_key": SECRET, "mail_hook": HOOK}
        assert run("users", "set-password", name, stdin=f"{NEW}\n", **settings).exit_code == 0

    assert told() == [("ada@example.com", "Somebody has changed the password of your account.")]
    log_in(client, password=NEW)


def test_nothing_is_told_to_an_unverified_address(mailing: TestClient, sql: Sql) -> None:
    login = verified(mailing)
    sql("UPDATE users SET email_verified = FALSE")

    body = {"current_password": PASSWORD, "new_password": NEW}
    assert mailing.put("/users/me/password", json=body, headers=login.headers).is_success

    assert told(mailing) == []


def test_nothing_is_told_to_a_disabled_user(mailing: TestClient, clock: MovableClock) -> None:
    login = verified(mailing)
    activate(mailing, login, clock.now)
    mails(mailing)
    add_user(mailing, "root", is_admin=True)
    root, user = log_in(mailing, "root"), mailing.get("/users/me", headers=login.headers).json()["id"]
    assert mailing.patch(f"/users/{user}", json={"is_active": False}, headers=root.headers).is_success

    assert mailing.delete(f"/users/{user}/totp", headers=root.headers).is_success

    assert told(mailing) == []
