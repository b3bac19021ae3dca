"""python -m app users, sessions and purge work on the database of the service."""

import json
import re
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.clock import utc_now
from app.observe.logs import Line
from tests.conftest import SECRET, MovableClock, Sql, on_one_database
from tests.support.accounts import PASSWORD, Login, add_user, create_task, log_in, register, sign_up
from tests.support.command_line import Run, run
from tests.support.forks import Fork
from tests.support.mail_hook import HOOK, mails
from tests.support.processes import PATIENCE, environment
from tests.support.second_factor import activate
from tests.support.tokens import claims_elsewhere

pytestmark = on_one_database

NEW = "another long one"
MISSING = "01a207a2-3280-7000-8422-653b1e4423a0"


def is_live(client: TestClient, login: Login) -> bool:
    return client.get("/tasks/mine", headers=login.headers).status_code == 200


def can_log_in(client: TestClient, password: str = PASSWORD) -> bool:
    return client.post("/auth/token", data={"username": "ada", "password": password}).status_code == 200


@pytest.mark.parametrize("command", ["enable", "unlock", "set-password", "reset-token"])
@pytest.mark.usefixtures("sqlite_url")
def test_a_secret_readable_by_others_ends_a_command(command: str) -> None:
    assert run("users", "add", "ada", stdin=PASSWORD).exit_code == 0
    kept = Path("tasks.db.secret")
    kept.write_text(SECRET)
    kept.chmod(0o644)

    refused = run("users", command, "ada", stdin=NEW)

    assert refused.exit_code == 2
    assert refused.stderr == "error: tasks.db.secret is open to every user of this host: chmod o= tasks.db.secret\n"


def test_users_are_listed_by_name(client: TestClient, app: Run, sql: Sql) -> None:
    for n in range(101):
        sql(
            "INSERT INTO users (id, username, password_hash, created_at, updated_at) VALUES"
            f" ('01a207a2-3280-7000-8422-653b1e44{n:04}', 'user{n:03}', 'x',"
            " '2026-11-23T09:00:00.000000Z', '2026-11-23T09:00:00.000000Z')"
        )
    register(client, "Ada", email="ada@example.com")
    register(client, "bob")
    register(client, "eve")
    for name in "ada", "bob":
        app("users", "promote", name)
    for name in "bob", "eve":
        app("users", "disable", name)

    listed = app("users", "list")

    assert listed.exit_code == 0
    assert len(listed.stdout.splitlines()) == 104
    ada, bob, eve, *others = listed.stdout.splitlines()
    assert re.fullmatch(r"Ada +admin +20\d\d-\d\d-\d\d ada@example\.com", ada)
    assert re.fullmatch(r"bob +disabled-admin +20\d\d-\d\d-\d\d", bob)
    assert re.fullmatch(r"eve +disabled-user +20\d\d-\d\d-\d\d", eve)
    assert [line.split()[:2] for line in others] == [[f"user{n:03}", "user"] for n in range(101)]
    assert [line.split()[0] for line in app("users", "list", "--prefix", "A").stdout.splitlines()] == ["Ada"]


def test_a_prefix_that_none_can_have_is_refused(app: Run) -> None:
    refused = app("users", "list", "--prefix", "a b")

    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: username: String should match pattern")


def test_a_disabled_user_is_out_until_enabled(client: TestClient, app: Run) -> None:
    login = sign_up(client)

    assert app("users", "disable", "ADA").stdout == "Disabled ada.\n"
    assert not is_live(client, login)
    assert not can_log_in(client)

    assert app("users", "enable", "ada").stdout == "Enabled ada.\n"
    assert not is_live(client, login)
    assert can_log_in(client)


def test_promote_makes_an_administrator_and_the_last_one_stays(client: TestClient, app: Run) -> None:
    register(client)

    assert app("users", "promote", "ada").stdout == "Promoted ada.\n"

    assert "admin" in log_in(client).scope
    for words in ("disable", "ada"), ("delete", "ada", "--yes"):
        refused = app("users", *words)
        assert (refused.exit_code, refused.stderr) == (1, "error: The last administrator cannot be removed\n")
    assert is_live(client, log_in(client))

    app("users", "add", "root", "--admin", stdin=f"{PASSWORD}\n")
    administrator, narrow = log_in(client), log_in(client, scope="account")
    assert app("users", "demote", "ada").stdout == "Demoted ada.\n"
    assert not is_live(client, administrator)
    assert client.get("/users/me", headers=narrow.headers).status_code == 200
    assert "admin" not in log_in(client).scope


def test_a_name_that_begins_with_a_dot_is_refused(app: Run) -> None:
    refused = app("users", "add", ".ada", stdin=f"{PASSWORD}\n")

    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: username: ")
    assert "no dot or hyphen at the start" in refused.stderr


def test_a_password_that_is_set_ends_every_session(client: TestClient, app: Run) -> None:
    login = sign_up(client)

    done = app("users", "set-password", "Ada", stdin=f"{NEW}\n")

    assert (done.exit_code, done.stdout) == (0, "Set the password of ada.\n")
    assert not is_live(client, login)
    assert not can_log_in(client)
    assert can_log_in(client, NEW)


def test_a_password_that_is_set_works_at_once_when_throttled(client: TestClient, app: Run) -> None:
    for name in "ada", "bob":
        register(client, name)
        guesses = [client.post("/auth/token", data={"username": name, "password": f"{n}"}) for n in range(11)]
        assert guesses[-1].status_code == 429

    app("users", "set-password", "ada", stdin=f"{NEW}\n")

    assert can_log_in(client, NEW)
    assert client.post("/auth/token", data={"username": "bob", "password": PASSWORD}).status_code == 429


def test_a_piped_password_is_what_can_be_typed(client: TestClient, database_url: str) -> None:
    """PowerShell adds a byte order mark in front and a carriage return at the end."""
    piped = b"\xef\xbb\xbf" + PASSWORD.encode() + b"\r\n"
    environ = environment(database_url=database_url, secret_key=SECRET)
    Path("piped").write_bytes(piped)

    with closing(Fork("app", "users", "add", "ada", environ=environ, stdin=Path("piped"))) as process:
        assert process.wait(PATIENCE) == 0

    assert can_log_in(client)


@pytest.mark.parametrize(("command", "done"), [("unlock", "Unlocked ada.\n"), ("enable", "Enabled ada.\n")])
def test_unlock_lets_a_throttled_account_log_in(client: TestClient, app: Run, command: str, done: str) -> None:
    for name in "ada", "bob":
        register(client, name)
        guesses = [client.post("/auth/token", data={"username": name, "password": f"{n}"}) for n in range(11)]
        assert guesses[-1].status_code == 429
    app("users", "promote", "ada")
    assert not can_log_in(client)

    assert app("users", command, "ADA").stdout == done

    assert can_log_in(client)
    assert client.post("/auth/token", data={"username": "bob", "password": PASSWORD}).status_code == 429


@pytest.mark.parametrize(
    ("password", "message"),
    [
        ("short", "new_password: String should have at least 8 characters"),
        ("password123", "The password is on the list of common passwords"),
        ("Ada@example.com", "The password is the e-mail address"),
    ],
)
def test_a_password_that_will_not_do_is_refused(client: TestClient, app: Run, password: str, message: str) -> None:
    register(client, email="ada@example.com")

    refused = app("users", "set-password", "ada", stdin=f"{password}\n")

    assert (refused.exit_code, refused.stderr) == (1, f"error: {message}\n")
    assert can_log_in(client)


def test_a_reset_token_is_printed_and_good_once(client: TestClient, app: Run, clock: MovableClock) -> None:
    register(client)
    clock.now = utc_now()  # the clock of the command

    token = app("users", "reset-token", "ada").stdout.strip()

    statuses = [
        client.post("/users/reset-password", json={"reset_token": token, "new_password": NEW}).status_code
        for _ in range(2)
    ]
    assert statuses == [204, 400]
    assert can_log_in(client, NEW)


def test_a_reset_token_goes_to_the_verified_address(
    client: TestClient, app: Run, sql: Sql, clock: MovableClock
) -> None:
    register(client, email="ada@example.com")
    clock.now = utc_now()  # the clock of the command

    unverified = app("users", "reset-token", "ada", mail_hook=HOOK).stdout
    sql("UPDATE users SET email_verified = TRUE")
    said = app("users", "reset-token", "ADA@example.com", mail_hook=HOOK).stdout

    [mail] = mails()
    assert unverified.startswith("ey")
    assert said == "The token goes to ada by mail.\n"
    assert (mail.kind, mail.to) == ("reset_password", "ada@example.com")
    body = {"reset_token": mail.token, "new_password": NEW}
    assert client.post("/users/reset-password", json=body).status_code == 204


def test_a_reset_token_that_cannot_be_mailed_leaves_a_line(
    client: TestClient, app: Run, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    register(client, email="ada@example.com")
    sql("UPDATE users SET email_verified = TRUE")

    app("users", "reset-token", "ada", mail_hook="tests.support.mail_hook:fail")

    assert "a mail is lost: the mail server did not take it (reset_password)" in caplog.text
    assert "no route" not in caplog.text


def test_a_user_is_deleted_with_tasks(client: TestClient, app: Run, sql: Sql) -> None:
    create_task(client, sign_up(client))

    assert app("users", "delete", "ada", "--yes").stdout == "Deleted ada.\n"

    assert sql("SELECT count(*) FROM users") == sql("SELECT count(*) FROM tasks") == [(0,)]


def test_sessions_are_listed_and_ended_one_by_one_or_all(client: TestClient, app: Run, sql: Sql) -> None:
    register(client)
    client.headers["User-Agent"] = "curl/8"
    logins = [log_in(client) for _ in range(3)]
    others = sign_up(client, "bob")

    lines = app("sessions", "list", "ada").stdout.splitlines()

    ids = [line.split()[0] for line in lines]
    hers = "(SELECT id FROM users WHERE username = 'ada')"
    rows = sql(f"SELECT CAST(id AS TEXT) FROM sessions WHERE user_id = {hers} ORDER BY id DESC")
    assert ids == [id_ for (id_,) in rows]
    assert all(line.endswith("  testclient  curl/8") for line in lines)

    assert app("sessions", "revoke", "ada", "--session", ids[0]).stdout == "Ended a session of ada.\n"
    assert [line.split()[0] for line in app("sessions", "list", "ada").stdout.splitlines()] == ids[1:]
    again = app("sessions", "revoke", "ada", "--session", ids[0])
    assert (again.exit_code, again.stderr) == (1, "error: Session not found\n")
    assert app("sessions", "revoke", "ada", "--session", "mine").exit_code == 2

    [ended] = app("sessions", "list", "ada", "--ended").stdout.splitlines()
    assert ended.split()[0] == ids[0]
    assert ended.endswith("  revoked  testclient  curl/8")

    assert app("sessions", "revoke", "ada").stdout == "Ended every session of ada.\n"
    assert app("sessions", "list", "ada").stdout == ""
    assert not any(is_live(client, login) for login in logins)
    assert is_live(client, others)


def test_tokens_are_listed_and_ended_one_by_one_or_all(client: TestClient, app: Run, clock: MovableClock) -> None:
    login = sign_up(client)
    for name in "Backup", "Report", "Import":
        client.post("/auth/tokens", json={"name": name}, headers=login.headers)
        clock.move(seconds=1)

    lines = app("tokens", "list", "ada").stdout.splitlines()

    assert [line.split(maxsplit=1)[1] for line in lines] == [
        f"2026-11-23  2027-02-21  never       tasks:read tasks:write  {name}" for name in ("Import", "Report", "Backup")
    ]
    ids = [line.split()[0] for line in lines]
    assert app("tokens", "revoke", "ada", "--token", ids[0]).stdout == "Ended a token of ada.\n"
    assert [json.loads(line)["id"] for line in app("tokens", "list", "ada", "--json").stdout.splitlines()] == ids[1:]
    again = app("tokens", "revoke", "ada", "--token", ids[0])
    assert (again.exit_code, again.stderr) == (1, "error: Personal token not found\n")
    assert app("tokens", "revoke", "ada").stdout == "Ended every token of ada.\n"
    assert app("tokens", "list", "ada").stdout == ""
    assert is_live(client, login)


def test_the_name_of_a_token_does_not_control_the_terminal(client: TestClient, app: Run) -> None:
    name = "\x1b[2JBack\nup\u202e\x9b2J"
    client.post("/auth/tokens", json={"name": name}, headers=sign_up(client).headers)

    [line] = app("tokens", "list", "ada").stdout.splitlines()
    [text] = app("tokens", "list", "ada", "--json").stdout.splitlines()

    assert line.endswith("  [2JBackup2J")
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["name"] == name


def test_a_second_factor_is_removed(client: TestClient, app: Run, clock: MovableClock) -> None:
    login = sign_up(client)
    activate(client, login, clock.now)

    for _ in range(2):
        assert app("users", "reset-totp", "ADA").stdout == "Removed the second factor of ada.\n"
    assert is_live(client, login)
    log_in(client)


def test_many_sessions_are_listed_to_the_last(client: TestClient, app: Run, sql: Sql) -> None:
    sign_up(client)
    for n in range(100):
        sql(
            "INSERT INTO sessions (id, user_id, scope, created_at, rotated_at, expires_at, user_agent, ip)"
            f" SELECT '01a207a2-3280-7000-8422-653b1e44{n:04}', id, '', '2026-11-23T09:00:00.000000Z',"
            " '2026-11-23T09:00:00.000000Z', '2099-11-23T09:00:00.000000Z', '', '' FROM users"
        )

    assert len(app("sessions", "list", "ada").stdout.splitlines()) == 101


@pytest.mark.parametrize(
    "words",
    [
        *[("users", command) for command in ("disable", "enable", "unlock", "promote", "delete")],
        *[("users", command) for command in ("reset-token", "reset-totp", "set-password")],
        ("sessions", "list"),
        ("sessions", "revoke"),
        ("tokens", "list"),
        ("tokens", "revoke"),
    ],
    ids=" ".join,
)
def test_nobody_of_that_name_is_one_line(app: Run, words: tuple[str, str]) -> None:
    refused = app(*words, "nobody", stdin=f"{PASSWORD}\n")

    assert (refused.exit_code, refused.stdout, refused.stderr) == (1, "", "error: User not found\n")


def test_purge_deletes_ended_sessions_only(client: TestClient, app: Run, clock: MovableClock, sql: Sql) -> None:
    live = sign_up(client)
    for _ in range(3):
        clock.move(seconds=1)
        log_in(client)
    ids = [id_ for (id_,) in sql("SELECT CAST(id AS TEXT) FROM sessions ORDER BY id")]
    ancient, recent = "2020-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"
    sql(f"UPDATE sessions SET expires_at = '{recent}'")
    sql(f"UPDATE sessions SET ended_at = '{ancient}', end_reason = 'revoked' WHERE id = '{ids[1]}'")
    sql(f"UPDATE sessions SET expires_at = '{ancient}' WHERE id = '{ids[2]}'")
    sql(f"UPDATE sessions SET ended_at = '{recent}', end_reason = 'revoked' WHERE id = '{ids[3]}'")
    sql("DELETE FROM throttle")
    for n, moment in enumerate([ancient, ancient, recent]):
        sql(f"INSERT INTO throttle (key, hits, resets_at) VALUES ('{n}', 1, '{moment}')")

    purged = app("purge")

    assert (purged.exit_code, purged.stdout) == (0, "Purged 2 sessions, 2 counts and 0 events.\n")
    assert [id_ for (id_,) in sql("SELECT CAST(id AS TEXT) FROM sessions ORDER BY id")] == [ids[0], ids[3]]
    assert sql("SELECT key FROM throttle") == [("2",)]
    assert is_live(client, live)
    assert app("purge").stdout == "Purged 0 sessions, 0 counts and 0 events.\n"


def test_more_than_a_batch_is_purged(client: TestClient, app: Run, sql: Sql, database_url: str) -> None:
    sign_up(client)
    number = "printf('%04d', n)" if database_url.startswith("sqlite") else "lpad(n::text, 4, '0')"
    id_ = f"'01a207a2-3280-7000-8422-653b1e44' || {number}"
    id_ = id_ if database_url.startswith("sqlite") else f"({id_})::uuid"
    cast = "" if database_url.startswith("sqlite") else "::timestamptz"
    times = ", ".join([f"'2020-01-01T00:00:00.000000Z'{cast}"] * 3)
    sql(
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1999)"
        " INSERT INTO sessions (id, user_id, scope, created_at, rotated_at, expires_at, user_agent, ip)"
        f" SELECT {id_}, u.id, '', {times}, '', '' FROM users u, numbers"
    )

    assert app("purge", "--keep-days", "0").stdout.startswith("Purged 1999 sessions")
    assert sql("SELECT count(*) FROM sessions") == [(1,)]


def test_lists_are_printed_as_json(client: TestClient, app: Run) -> None:
    client.headers["User-Agent"] = "curl/8"
    user = register(client, email="ada@example.com")
    log_in(client)

    [listed] = app("users", "list", "--json").stdout.splitlines()
    [session] = app("sessions", "list", "ada", "--json").stdout.splitlines()

    assert json.loads(listed) == user
    shown = json.loads(session)
    assert {name: shown[name] for name in ("ip", "user_agent")} == {"ip": "testclient", "user_agent": "curl/8"}
    assert shown.keys() == {"id", "created_at", "last_used_at", "expires_at", "ip", "user_agent", "current"}


def test_a_user_is_added_with_an_address(client: TestClient, app: Run) -> None:
    assert app("users", "add", "ada", "--email", "ada@example.com", stdin=f"{PASSWORD}\n").exit_code == 0

    profile = client.get("/users/me", headers=log_in(client).headers).json()

    assert (profile["email"], profile["is_admin"]) == ("ada@example.com", False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ADA"], "The username is taken"),
        (["a b"], "username: Value error, must be letters"),
        (["eve", "--email", "eve"], "email: Value error, is not an e-mail address"),
    ],
    ids=["taken", "name", "address"],
)
def test_a_name_is_checked_before_the_password_is_read(
    client: TestClient, app: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    register(client)
    monkeypatch.setattr("app.cli.users.read_password", lambda: pytest.fail("the password was read"))

    refused = app("users", "add", *words)

    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"error: {message}")


@pytest.mark.parametrize(("answer", "is_there"), [("n\n", True), ("", True), ("y\n", False)], ids=["no", "end", "yes"])
def test_a_deletion_asks_first(client: TestClient, app: Run, answer: str, is_there: bool) -> None:
    register(client)

    done = app("users", "delete", "ADA", stdin=answer)

    assert "Delete ada, with all their tasks and sessions? [y/N]:" in done.stderr
    assert done.exit_code == int(is_there)
    assert can_log_in(client) == is_there


EVENTS = {
    "users add bob": [("user_registered", None)],
    "users disable ada": [("user_changed", "is_active=False")],
    "users enable ada": [("user_changed", "is_active=True")],
    "users unlock ada": [("user_unlocked", None)],
    "users promote ada": [("user_changed", "is_admin=True")],
    "users demote ada": [("user_changed", "is_admin=False")],
    "users set-password ada": [("password_changed", None)],
    "users reset-token ada": [("reset_token_issued", None)],
    "users delete ada --yes": [("user_deleted", None)],
    "sessions revoke ada": [("session_revoked", "all")],
    "sessions revoke ada --session SESSION": [("session_revoked", None)],
    "users list": [],
    "sessions list ada": [],
    "users disable nobody": [],
}
"""The events of each command, with their reasons."""


@pytest.mark.parametrize("words", EVENTS)
def test_a_command_logs_its_event(client: TestClient, app: Run, words: str, caplog: pytest.LogCaptureFixture) -> None:
    user, login = register(client), log_in(client)
    add_user(client, "root", is_admin=True)
    session_id = claims_elsewhere(login.access_token)["sid"]
    caplog.clear()

    app(*words.replace("SESSION", session_id).split(), stdin=f"{NEW}\n")

    lines = [record.msg for record in caplog.records if isinstance(record.msg, Line)]
    assert [(line["event"], line.get("reason")) for line in lines] == EVENTS[words]
    assert all(line["request_id"] == "command line" for line in lines)
    assert all(line["target_id"] == user["id"] for line in lines if line["event"] != "user_registered")
    assert all(line["session_id"] == (session_id if "SESSION" in words else None) for line in lines)


def test_the_events_of_a_command_go_to_standard_error(database_url: str, client: TestClient) -> None:
    register(client)
    environ = environment(database_url=database_url, secret_key=SECRET, log_format="json")

    words = "app", "users", "disable", "ada"
    with closing(Fork(*words, environ=environ, stderr=Path("stderr"))) as process:
        assert process.wait(PATIENCE) == 0
        assert process.output() == "Disabled ada.\n"

    assert json.loads(Path("stderr").read_text())["event"] == "user_changed"
