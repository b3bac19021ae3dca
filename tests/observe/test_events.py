"""Security events: one line of JSON for each, that says who and from where, tells no secret, and cannot be forged."""

import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from fastapi.testclient import TestClient

from app.auth.logins import MAX_SESSIONS
from app.config import Settings
from app.main import create_app
from app.testing import LogIn, User
from tests.conftest import CHEAP, MovableClock, Serve, Sql, on_one_database
from tests.support.accounts import PASSWORD, Login, add_sessions, bearer, log_in, refresh, refreshed, register, sign_up
from tests.support.hostile import FORGED, FORGED_LOG_LINES
from tests.support.processes import serving

pytestmark = on_one_database

Event = dict[str, Any]
Events = Callable[[], list[Event]]

NOBODY = {"user_id": None, "session_id": None}
WRONG = "wrong horse battery"
KEYS = {"time", "event", "request_id", "ip", "user_id", "session_id"}


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Iterator[Events]:
    """Returns the events logged since its last call. Nothing of it may be a password or a token."""
    caplog.set_level(logging.INFO, "app.observe.events")
    lines: list[str] = []

    def read() -> list[Event]:
        new = [record.getMessage() for record in caplog.records if record.name == "app.observe.events"]
        caplog.clear()
        lines.extend(new)
        return [parsed(line) for line in new]

    yield read
    read()
    assert not [line for line in lines if PASSWORD in line or WRONG in line or "eyJ" in line]


def parsed(line: str) -> Event:
    """An event, less its time, which is now."""
    assert line.isascii()
    assert line.isprintable()
    event: Event = json.loads(line)
    assert event.keys() - {"reason", "target_id"} == KEYS
    happened = datetime.fromisoformat(event.pop("time"))
    assert abs(happened - datetime.now(UTC)) < timedelta(minutes=1)
    return event


def event(name: str, whose: dict[str, Any] = NOBODY, reason: str | None = None) -> Event:
    """As the service under test logs it, for a request of TestClient's."""
    reasons = {} if reason is None else {"reason": reason}
    return {"event": name, "request_id": "test", "ip": "testclient"} | whose | reasons


def of(login: Login) -> dict[str, Any]:
    claims = jwt.decode(login.access_token, options={"verify_signature": False})
    return {"user_id": claims["sub"], "session_id": claims["sid"]}


def try_password(client: TestClient, username: str = "ada", password: str = WRONG) -> int:
    return client.post("/auth/token", data={"username": username, "password": password}).status_code


def test_a_changed_address_and_a_login_that_is_too_old_for_it(
    client: TestClient, events: Events, clock: MovableClock
) -> None:
    login = sign_up(client)
    events()

    for email in "ada@example.com", "ada@example.com", None:
        assert client.patch("/users/me", json={"email": email}, headers=login.headers).status_code == 200
    assert events() == [event("email_changed", of(login))] * 2

    clock.move(minutes=5)
    client.patch("/users/me", json={"email": "ada@example.com"}, headers=login.headers)
    client.delete("/users/me", headers=login.headers)
    assert events() == [event("access_refused", of(login), "The login is too old for this: log in again")] * 2


def test_a_registration(client: TestClient, events: Events) -> None:
    user = register(client)

    assert events() == [event("user_registered", {"user_id": user["id"], "session_id": None})]


def test_a_login(client: TestClient, events: Events) -> None:
    register(client)
    events()

    login = log_in(client)

    assert events() == [event("login_succeeded", of(login))]


def test_a_failed_login_names_the_account_where_there_is_one(client: TestClient, events: Events, sql: Sql) -> None:
    user = register(client)
    whose = {"user_id": user["id"], "session_id": None}
    events()

    assert [try_password(client), try_password(client, "nobody")] == [401, 401]
    try_password(client, password="x" * 5000)
    sql("UPDATE users SET password_hash = 'corrupt'")
    try_password(client)
    sql("UPDATE users SET is_active = false")
    try_password(client, password=PASSWORD)

    assert events() == [
        event("login_failed", whose, "wrong password"),
        event("login_failed", NOBODY | {"user_id": None}, "unknown user"),
        event("login_failed", whose, "wrong password"),
        event("login_failed", whose, "corrupt hash"),
        event("login_failed", whose, "disabled user"),
    ]


def test_a_right_password_with_a_scope_that_is_refused(client: TestClient, events: Events) -> None:
    user = register(client)
    events()

    for scope, password in ("admin", PASSWORD), ("admin", WRONG), ("bogus", PASSWORD):
        client.post("/auth/token", data={"username": "ada", "password": password, "scope": scope})

    whose = {"user_id": user["id"], "session_id": None}
    assert events() == [event("login_refused", whose, "scope"), event("login_failed", whose, "wrong password")]


def test_a_session_that_makes_room(client: TestClient, events: Events, clock: MovableClock, sql: Sql) -> None:
    first = sign_up(client)
    clock.move(seconds=1)
    add_sessions(sql, clock, MAX_SESSIONS - 1)
    events()

    login = log_in(client)

    assert events() == [
        event("login_succeeded", of(login)),
        event("session_revoked", of(first), "too many sessions"),
    ]


def test_an_unlock(client: TestClient, events: Events, login: LogIn, admin: User) -> None:
    user, root = register(client), login(admin)
    events()

    for user_id in user["id"], of(root)["session_id"]:
        client.post(f"/users/{user_id}/unlock", headers=root.headers)

    assert events() == [event("user_unlocked", of(root)) | {"target_id": user["id"]}]


def test_a_throttled_login(serve: Serve, events: Events) -> None:
    client = serve(login_failures=1)
    register(client)
    try_password(client)
    events()

    assert try_password(client, password=PASSWORD) == 429

    assert events() == [event("throttled", reason="/auth/token")]


def test_a_throttled_registration(serve: Serve, events: Events) -> None:
    client = serve(registration_limit=1)
    register(client)
    events()

    assert client.post("/users", json={"username": "bob", "password": PASSWORD}).status_code == 429

    assert events() == [event("throttled", reason="/users")]


def test_a_throttled_refresh_is_refused_and_throttled(serve: Serve, events: Events) -> None:
    client = serve(login_failures=1)
    for _ in range(10):
        refresh(client, "unknown")
    events()

    assert refresh(client, "unknown").status_code == 429

    assert events() == [
        event("refresh_refused", reason="The refresh token is not valid"),
        event("throttled", reason="/auth/token"),
    ]


def test_a_refresh(client: TestClient, events: Events) -> None:
    login = sign_up(client)
    events()

    refreshed(client, login.refresh_token)

    assert events() == [event("token_refreshed", of(login))]


def test_a_refused_refresh_of_our_token_names_its_session(
    client: TestClient, events: Events, clock: MovableClock
) -> None:
    login = sign_up(client)
    ended = log_in(client)
    client.post("/auth/revoke", data={"token": ended.access_token})
    events()

    refresh(client, "unknown")
    refresh(client, ended.refresh_token)
    clock.move(days=30)
    refresh(client, login.refresh_token)

    assert events() == [
        event("refresh_refused", reason="The refresh token is not valid"),
        event("refresh_refused", of(ended), "The session was signed out"),
        event("refresh_refused", reason="The refresh token has expired"),
    ]


def test_a_reuse(client: TestClient, events: Events, clock: MovableClock) -> None:
    login = sign_up(client)
    client.get("/tasks/mine", headers=refreshed(client, login.refresh_token).headers)
    clock.move(seconds=11)
    events()

    assert refresh(client, login.refresh_token).status_code == 400

    reason = "The session was ended because a replaced refresh token was used again"
    assert events() == [event("token_reused", of(login), reason)]


def test_a_revocation_by_token(client: TestClient, events: Events) -> None:
    login = sign_up(client)
    events()

    for token in login.refresh_token, login.refresh_token, "unknown":
        assert client.post("/auth/revoke", data={"token": token}).status_code == 200

    assert events() == [event("session_revoked", of(login))]


def test_a_revocation_by_id_names_the_session_that_ends(client: TestClient, events: Events) -> None:
    other, login = sign_up(client), log_in(client)
    events()

    url = f"/auth/sessions/{of(other)['session_id']}"
    assert [client.delete(url, headers=login.headers).status_code for _ in range(2)] == [204, 404]

    assert events() == [event("session_revoked", of(other))]


def test_a_revocation_of_all_others(client: TestClient, events: Events) -> None:
    login = sign_up(client)
    events()

    client.delete("/auth/sessions", headers=login.headers)

    assert events() == [event("session_revoked", of(login), "all but this one")]


def test_a_password_change_and_its_failure(serve: Serve, events: Events) -> None:
    client = serve(login_failures=1)
    login = sign_up(client)
    events()

    def change(current: str, login: Login) -> httpx2.Response:
        body = {"current_password": current, "new_password": PASSWORD[::-1]}
        return client.put("/users/me/password", json=body, headers=login.headers)

    renewed = Login.of(change(PASSWORD, login))
    assert [change(current, renewed).status_code for current in (WRONG, PASSWORD[::-1])] == [403, 429]
    assert events() == [
        event("password_changed", of(login)),
        event("password_change_failed", of(renewed), "wrong password"),
        event("throttled", of(renewed), "/users/me/password"),
    ]


def test_a_deletion(client: TestClient, events: Events) -> None:
    login = sign_up(client)
    events()

    client.delete("/users/me", headers=login.headers)

    assert events() == [event("user_deleted", of(login))]


@pytest.mark.parametrize("path", ["/tasks/", "/tasks/mine", "/auth/sessions"])
def test_a_refused_token_names_the_session_where_it_is_ours(client: TestClient, events: Events, path: str) -> None:
    login = sign_up(client)
    client.post("/auth/revoke", data={"token": login.access_token})
    events()

    client.get(path, headers=bearer("unknown"))
    client.get(path, headers=login.headers)
    client.get(path)

    assert events() == [
        event("access_refused", reason="The access token is not valid"),
        event("access_refused", of(login), "The session was signed out"),
    ]


def test_a_missing_scope(client: TestClient, events: Events) -> None:
    register(client)
    login = log_in(client, scope="tasks:read")
    events()

    assert client.get("/users/me", headers=login.headers).status_code == 403

    assert events() == [event("access_refused", of(login), "The access token lacks the scope account")]


def test_an_unexpected_error_is_named_by_its_kind(settings: Settings, events: Events) -> None:
    def broken_clock() -> datetime:
        raise LookupError(PASSWORD)

    app = create_app(settings, clock=broken_clock, password_cost=CHEAP)
    with TestClient(app, raise_server_exceptions=False, headers={"X-Request-ID": "test"}) as client:
        assert try_password(client) == 500

    assert events() == [event("unexpected_error", reason="LookupError")]


def test_nothing_that_is_no_security_event_is_logged(client: TestClient, events: Events) -> None:
    login = sign_up(client)
    events()

    client.get("/tasks/")
    client.post("/tasks/", json={"title": "Water"}, headers=login.headers)
    client.post("/tasks/", json={"titel": "Typo"}, headers=login.headers)
    client.get("/nowhere")
    client.post("/auth/token", data={"username": "ada"})

    assert events() == []


def test_an_event_has_the_request_id_and_the_right_user(client: TestClient, events: Events) -> None:
    login = sign_up(client)
    events()

    refused = [client.get("/users/me", headers=bearer("unknown") | {"X-Request-ID": name}) for name in ("", "one")]
    client.get("/users/me", headers=login.headers)
    refused.append(client.get("/users/me", headers=bearer("unknown")))

    seen = events()
    assert [one["request_id"] for one in seen] == [answer.headers["X-Request-ID"] for answer in refused]
    assert [{name: one[name] for name in NOBODY} for one in seen] == [NOBODY] * 3


def test_nothing_that_is_sent_forges_a_line(settings: Settings, events: Events) -> None:
    changes = {"trusted_proxies": ("10.0.0.7/32",), "login_failures": 1000}
    app = create_app(settings.model_copy(update=changes), password_cost=CHEAP)

    with TestClient(app, client=("10.0.0.7", 50000)) as client:
        for number, evil in enumerate(FORGED_LOG_LINES.values()):
            sent = ("User-Agent", "X-Request-ID", "X-Forwarded-For", "Authorization", "Idempotency-Key", "Referer")
            client.headers = httpx2.Headers({header.encode(): evil.encode() for header in sent})
            register(client, name := f"ada-{number}")
            log_in(client, name)
            try_password(client, name)
            try_password(client, evil)
            try_password(client, name, evil)
            refresh(client, evil)
            client.post("/auth/token", data={evil: evil})
            client.get("/tasks/", headers=bearer("x"))

    seen = events()
    names = ["user_registered", "login_succeeded", *["login_failed"] * 3, "refresh_refused", "access_refused"]
    assert [one["event"] for one in seen] == names * len(FORGED_LOG_LINES)
    assert len({one["request_id"] for one in seen}) == len(seen)
    for one in seen:
        assert "forged" in one["ip"]
        assert "forged" not in f"{one | {'ip': ''}}"


@pytest.mark.parametrize(
    "words",
    [("app", "serve"), pytest.param(("uvicorn", "app.main:app"), marks=pytest.mark.long)],
    ids=["serve", "uvicorn"],
)
def test_the_events_are_lines_on_standard_error(words: tuple[str, ...], sqlite_url: str, tmp_path: Path) -> None:
    headers, log = {"User-Agent": FORGED, "X-Request-ID": "test"}, tmp_path / "stderr.log"

    with (
        serving(*words, log=log, database_url=sqlite_url) as url,
        httpx2.Client(base_url=url, headers=headers) as client,
    ):
        client.post("/users", json={"username": "ada", "password": PASSWORD})
        for username, password in ("ada", PASSWORD), ("ada", WRONG), (f"\n{FORGED}\n", f"\n{FORGED}\n"):
            client.post("/auth/token", data={"username": username, "password": password})
        client.get("/users/me", headers=bearer("unknown"))

    lines = log.read_text().splitlines()
    seen = [parsed(line) for line in lines if json.loads(line).get("event", "request") != "request"]
    names = ["user_registered", "login_succeeded", "login_failed", "login_failed", "access_refused"]
    assert [one["event"] for one in seen] == names
    assert {(one["request_id"], one["ip"]) for one in seen} == {("test", "127.0.0.1")}
