"""/auth/sessions: people see where they are signed in, and end what they do not know."""

from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from app.auth.logins import ENDED_AT_ONCE, MAX_SESSIONS
from tests.conftest import MovableClock, Serve, Sql
from tests.support.accounts import PASSWORD, Login, add_sessions, log_in, refresh, refreshed, register, sign_up

NOT_FOUND = {"detail": "Session not found", "code": "session_not_found"}


def sessions(client: TestClient, login: Login, **params: Any) -> list[dict[str, Any]]:
    response = client.get("/auth/sessions/", params=params, headers=login.headers)
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


def current_id(client: TestClient, login: Login) -> str:
    (session,) = (session for session in sessions(client, login) if session["current"])
    return str(session["id"])


def assert_signed_out(client: TestClient, login: Login) -> None:
    answer = client.get("/tasks/mine", headers=login.headers)
    assert (answer.status_code, answer.json()) == (
        401,
        {"detail": "The session was signed out", "code": "invalid_token"},
    )
    assert refresh(client, login.refresh_token).json()["detail"] == "The session was signed out"


def assert_live(client: TestClient, login: Login) -> None:
    assert client.get("/tasks/mine", headers=login.headers).status_code == 200
    assert refresh(client, login.refresh_token).status_code == 200


@pytest.mark.parametrize("url", ["/auth/sessions", "/auth/sessions/"])
def test_the_list_shows_the_live_sessions_of_the_user(client: TestClient, clock: MovableClock, url: str) -> None:
    login = sign_up(client)
    sign_up(client, "bob")
    clock.move(seconds=90.5)
    phone = log_in(client)
    clock.move(minutes=1)
    refreshed(client, login.refresh_token)

    response = client.get(url, headers=login.headers)

    ids = [current_id(client, phone), current_id(client, login)]
    assert response.status_code == 200
    assert response.json() == {
        "items": [
            {
                "id": ids[0],
                "created_at": "2026-11-23T09:01:30.500000Z",
                "last_used_at": "2026-11-23T09:01:30.500000Z",
                "expires_at": "2026-12-23T09:01:30.500000Z",
                "user_agent": "testclient",
                "ip": "testclient",
                "current": False,
            },
            {
                "id": ids[1],
                "created_at": "2026-11-23T09:00:00Z",
                "last_used_at": "2026-11-23T09:02:30.500000Z",
                "expires_at": "2026-12-23T09:00:00Z",
                "user_agent": "testclient",
                "ip": "testclient",
                "current": True,
            },
        ],
        "next_cursor": None,
    }
    assert "Link" not in response.headers


def test_an_access_token_is_not_a_use(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)
    (before,) = sessions(client, login)
    clock.move(minutes=5)

    (after,) = sessions(client, login)

    assert after == before


def test_ended_sessions_are_not_listed(client: TestClient, clock: MovableClock) -> None:
    sign_up(client)
    clock.move(days=15)
    signed_out, kept = log_in(client), log_in(client)
    client.post("/auth/revoke", data={"token": signed_out.access_token})
    kept_id = current_id(client, kept)
    clock.move(days=15)  # to the very moment at which the first one ends

    listed = sessions(client, refreshed(client, kept.refresh_token))

    assert [session["id"] for session in listed] == [kept_id]


def test_pages_follow_each_other(client: TestClient) -> None:
    login = sign_up(client)
    for _ in range(4):
        log_in(client)
    everything = sessions(client, login)

    pages = [client.get("/auth/sessions", params={"limit": 2}, headers=login.headers)]
    while "next" in pages[-1].links:
        pages.append(client.get(pages[-1].links["next"]["url"], headers=login.headers))

    assert [len(page.json()["items"]) for page in pages] == [2, 2, 1]
    assert [session for page in pages for session in page.json()["items"]] == everything
    assert [page.json()["next_cursor"] is None for page in pages] == [False, False, True]
    assert pages[0].links["next"]["url"] == f"/auth/sessions?limit=2&cursor={pages[0].json()['next_cursor']}"


def live(sql: Sql) -> list[str]:
    rows = sql("SELECT CAST(id AS TEXT) FROM sessions WHERE ended_at IS NULL ORDER BY id")
    return [id_ for (id_,) in rows]


def test_the_session_used_longest_ago_makes_room_for_a_login(client: TestClient, clock: MovableClock, sql: Sql) -> None:
    first = sign_up(client)
    [first_id] = live(sql)
    clock.move(seconds=1)
    others = add_sessions(sql, clock, MAX_SESSIONS - 2)
    hundredth = log_in(client)
    assert len(live(sql)) == 100
    first = refreshed(client, first.refresh_token)

    latest = log_in(client)

    assert len(live(sql)) == 100
    assert others[0] not in live(sql)
    for login in first, hundredth, latest:
        assert_live(client, login)
    sql(f"UPDATE sessions SET rotated_at = '2020-01-01T00:00:00.000000Z' WHERE id = '{first_id}'")
    log_in(client)
    answer = client.get("/tasks/mine", headers=first.headers)
    reason = "The session was ended because the account had too many: it was used longest ago"
    assert (answer.status_code, answer.json()["detail"]) == (401, reason)
    assert refresh(client, first.refresh_token).json()["detail"] == reason
    assert others[1] in live(sql)


def test_ended_and_other_users_sessions_take_no_room(client: TestClient, clock: MovableClock, sql: Sql) -> None:
    login = sign_up(client)
    clock.move(seconds=1)
    over = add_sessions(sql, clock, MAX_SESSIONS)
    sql(f"UPDATE sessions SET ended_at = rotated_at, end_reason = 'revoked' WHERE id > '{over[49]}'")
    expired = "expires_at = '2026-11-23T09:00:01.000000Z'"
    sql(f"UPDATE sessions SET {expired} WHERE id BETWEEN '{over[0]}' AND '{over[49]}'")
    bob = sign_up(client, "bob")

    log_in(client)

    assert_live(client, login)
    assert_live(client, bob)
    assert sql("SELECT count(*) FROM sessions WHERE end_reason = 'too_many'") == [(0,)]


def test_a_login_ends_a_thousand_of_very_many_sessions(client: TestClient, clock: MovableClock, sql: Sql) -> None:
    """Each later login ends as many, until the limit holds."""
    register(client)
    clock.move(seconds=10)
    add_sessions(sql, clock, MAX_SESSIONS + 2 * ENDED_AT_ONCE)

    logins, counts = [], []
    for _ in range(3):
        logins.append(log_in(client))
        counts.append(len(live(sql)))

    assert counts == [MAX_SESSIONS + 1 + ENDED_AT_ONCE, MAX_SESSIONS + 2, MAX_SESSIONS]
    for login in logins:
        assert_live(client, login)


def test_a_login_lives_although_another_clock_was_ahead(client: TestClient, clock: MovableClock, sql: Sql) -> None:
    register(client)
    clock.move(seconds=1)
    others = add_sessions(sql, clock, MAX_SESSIONS)
    clock.move(days=-1)

    login = log_in(client)

    assert_live(client, login)
    assert others[0] not in live(sql)


def test_a_page_that_cannot_be_is_refused(client: TestClient, subtests: pytest.Subtests) -> None:
    login = sign_up(client)
    for _ in range(2):
        client.post("/tasks", json={"title": "Water the plants"}, headers=login.headers)
    of_tasks = client.get("/tasks/mine", params={"limit": 1}, headers=login.headers).json()["next_cursor"]

    for name, value in ("limit", "0"), ("limit", "101"), ("cursor", "x"), ("cursor", of_tasks):
        with subtests.test(name, value=value):
            response = client.get("/auth/sessions", params={name: value}, headers=login.headers)

            assert response.status_code == 422
            assert [fault["loc"] for fault in response.json()["detail"]] == [["query", name]]


@pytest.mark.parametrize(
    ("user_agent", "listed"),
    [
        pytest.param("Mozilla/5.0 (X11; Linux)", "Mozilla/5.0 (X11; Linux)", id="plain"),
        pytest.param("x" * 254 + "yz", "x" * 254 + "y", id="long"),
        pytest.param("a\tb\x7fc", "abc", id="not-printable"),
        pytest.param("", "", id="empty"),
    ],
)
def test_the_user_agent_is_cleaned_and_cut(client: TestClient, user_agent: str, listed: str) -> None:
    register(client)
    client.headers["User-Agent"] = user_agent

    (session,) = sessions(client, log_in(client))

    assert session["user_agent"] == listed


def test_a_client_may_be_without_a_name(client: TestClient) -> None:
    register(client)
    del client.headers["User-Agent"]

    (session,) = sessions(client, log_in(client))

    assert session["user_agent"] == ""


def test_one_session_ends_at_once(client: TestClient) -> None:
    login, phone = sign_up(client), log_in(client)

    response = client.delete(f"/auth/sessions/{current_id(client, phone)}", headers=login.headers)

    assert (response.status_code, response.content) == (204, b"")
    assert_signed_out(client, phone)
    assert_live(client, login)


def test_the_current_session_can_end_itself(client: TestClient) -> None:
    login = sign_up(client)

    response = client.delete(f"/auth/sessions/{current_id(client, login)}", headers=login.headers)

    assert response.status_code == 204
    assert_signed_out(client, login)


@pytest.mark.parametrize("url", ["/auth/sessions", "/auth/sessions/"])
def test_all_sessions_but_this_one_end(client: TestClient, url: str) -> None:
    login, phone, bob = sign_up(client), log_in(client), sign_up(client, "bob")

    response = client.delete(url, headers=login.headers)

    assert (response.status_code, response.content) == (204, b"")
    assert [session["current"] for session in sessions(client, login)] == [True]
    assert_signed_out(client, phone)
    assert_live(client, login)
    assert_live(client, bob)


def test_a_session_that_is_not_yours_is_not_found(client: TestClient) -> None:
    login, bob = sign_up(client), sign_up(client, "bob")

    answers = [
        client.delete(f"/auth/sessions/{session_id}", headers=login.headers)
        for session_id in (uuid4(), current_id(client, bob))
    ]

    assert [(answer.status_code, answer.json()) for answer in answers] == [(404, NOT_FOUND)] * 2
    assert_live(client, bob)


def test_a_session_that_is_over_is_not_found(client: TestClient, clock: MovableClock, sql: Sql) -> None:
    expired = current_id(client, sign_up(client))
    clock.move(days=30)
    login = log_in(client)
    ended = current_id(client, log_in(client))
    client.delete(f"/auth/sessions/{ended}", headers=login.headers)

    answers = [client.delete(f"/auth/sessions/{over}", headers=login.headers) for over in (expired, ended)]

    assert [(answer.status_code, answer.json()) for answer in answers] == [(404, NOT_FOUND)] * 2
    assert sql(f"SELECT ended_at FROM sessions WHERE id = '{expired}'") == [(None,)]


def test_an_id_that_cannot_be_is_refused(client: TestClient, subtests: pytest.Subtests) -> None:
    login = sign_up(client)
    session_id = current_id(client, login)

    def delete(text: str) -> Response:
        return client.delete(f"/auth/sessions/{text}", headers=login.headers)

    for malformed in "1", "null", session_id.upper(), session_id.replace("-", ""), f"{session_id}%0A", "%00", "%FF":
        with subtests.test(malformed):
            response = delete(malformed)

            assert response.status_code == 422
            (fault,) = response.json()["detail"]
            assert fault.keys() == {"type", "loc", "msg"}
            assert fault["loc"] == ["path", "session_id"]
    assert_live(client, login)


def test_ended_sessions_say_when_and_why(client: TestClient, clock: MovableClock) -> None:
    """For 30 days. The list is in the order of logins, as that of the live ones is."""
    revoked, reused, login = sign_up(client), log_in(client), log_in(client)
    clock.move(minutes=1)
    client.post("/auth/revoke", data={"token": revoked.access_token})
    newer = refreshed(client, reused.refresh_token)
    client.get("/tasks/mine", headers=newer.headers)
    clock.move(minutes=1)
    refresh(client, reused.refresh_token)

    items = sessions(client, login, ended="true")

    assert sorted((item["ended_at"], item["end_reason"]) for item in items) == [
        ("2026-11-23T09:01:00Z", "revoked"),
        ("2026-11-23T09:02:00Z", "reuse"),
    ]
    assert {item["current"] for item in items} == {False}
    assert items[0].keys() == {*sessions(client, login)[0], "ended_at", "end_reason"}
    assert client.get("/auth/sessions", params={"ended": "yes"}, headers=login.headers).status_code == 422
    clock.move(days=29, hours=23, minutes=59, seconds=30)
    left = sessions(client, log_in(client), ended="true")
    assert sorted(item["end_reason"] for item in left) == ["expired", "reuse"]


@pytest.mark.parametrize("changes", [{"session_ttl": 600}, {"session_idle_ttl": 600}])
def test_nothing_ends_a_session_that_has_expired(serve: Serve, clock: MovableClock, changes: dict[str, int]) -> None:
    """A password change makes it useless for longer settings too, and its end stays what it was."""
    client = serve(**changes)
    expired = sign_up(client)
    clock.move(days=1)
    body = {"current_password": PASSWORD, "new_password": "another long one"}
    Login.of(client.put("/users/me/password", json=body, headers=log_in(client).headers))

    login = log_in(client, password="another long one")

    ends = {item["ended_at"]: item["end_reason"] for item in sessions(client, login, ended="true")}
    assert ends == {"2026-11-23T09:10:00Z": "expired", "2026-11-24T09:00:00Z": "password_changed"}
    assert refresh(serve(), expired.refresh_token).status_code == 400
    clock.move(days=30, seconds=-1)
    later = sessions(client, log_in(client, password="another long one"), ended="true")
    assert "2026-11-23T09:10:00Z" not in {item["ended_at"] for item in later}


def test_expired_sessions_are_listed_with_their_end(client: TestClient, clock: MovableClock, serve: Serve) -> None:
    """By the settings of today: a shorter life has ended them at the time that it says."""
    sign_up(client)
    shorter, idle = serve(session_ttl=3600), serve(session_idle_ttl=600)
    clock.move(hours=2)
    login = log_in(client)

    [expired] = sessions(shorter, login, ended="true")
    [unused] = sessions(idle, login, ended="true")

    assert (expired["ended_at"], expired["end_reason"]) == ("2026-11-23T10:00:00Z", "expired")
    assert (unused["ended_at"], unused["end_reason"]) == ("2026-11-23T09:10:00Z", "expired")
    assert expired["expires_at"] == "2026-11-23T10:00:00Z"
    assert sessions(client, login, ended="true") == []
    assert sessions(shorter, login)[0]["expires_at"] == "2026-11-23T12:00:00Z"
    clock.move(days=30)
    assert sessions(shorter, log_in(shorter), ended="true")[-1]["ended_at"] == "2026-11-23T12:00:00Z"
