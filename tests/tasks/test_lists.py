"""GET /tasks/, /tasks/mine and /tasks/public: who sees which tasks, in which order."""

from typing import Any

from fastapi.testclient import TestClient

from tests.conftest import MovableClock
from tests.support.accounts import Login, create_task, faults, log_in, sign_up

MONDAY = "2026-11-30T12:00:00Z"
TUESDAY = "2026-12-01T12:00:00Z"


def titles(client: TestClient, url: str, login: Login | None = None) -> list[str]:
    response = client.get(url, headers=login.headers if login else None)
    assert response.status_code == 200, response.text
    return [task["title"] for task in response.json()["items"]]


def create_in_order(client: TestClient, clock: MovableClock, login: Login, tasks: dict[str, dict[str, Any]]) -> None:
    for title, fields in tasks.items():
        create_task(client, login, title, **fields)
        clock.move(seconds=1)


def test_a_token_shows_own_tasks_and_nobody_sees_public_ones(client: TestClient, clock: MovableClock) -> None:
    ada, bob = sign_up(client), sign_up(client, "bob")
    create_in_order(client, clock, ada, {"Ada's": {}, "Ada's public": {"is_public": True}})
    create_in_order(client, clock, bob, {"Bob's": {}, "Bob's public": {"is_public": True}})

    own, public = ["Ada's public", "Ada's"], ["Bob's public", "Ada's public"]

    assert titles(client, "/tasks/", ada) == own
    assert titles(client, "/tasks/mine", ada) == own
    assert titles(client, "/tasks/public", ada) == public
    assert titles(client, "/tasks/") == public
    assert titles(client, "/tasks/public") == public


def test_a_list_holds_the_tasks_as_they_were_answered(client: TestClient) -> None:
    login = sign_up(client)
    task = create_task(client, login, description="Both", status="doing", due_at=MONDAY, is_public=True)

    for url, headers in ("/tasks/mine", login.headers), ("/tasks/public", {}):
        assert client.get(url, headers=headers).json() == {"items": [task], "next_cursor": None}


def test_ones_own_list_needs_a_token(client: TestClient) -> None:
    response = client.get("/tasks/mine")

    assert response.status_code == 401
    assert response.json() == {"detail": "Not authenticated", "code": "not_authenticated"}


def test_an_expired_token_is_refused_where_none_would_do(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)
    public = create_task(client, login, is_public=True)
    urls = ["/tasks/", "/tasks/mine", "/tasks/public", f"/tasks/{public['id']}"]

    clock.move(seconds=1800)

    answers = [client.get(url, headers=login.headers) for url in urls]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 401]
    assert all('error="invalid_token"' in answer.headers["WWW-Authenticate"] for answer in answers)


def test_a_token_without_tasks_read_reads_no_list(client: TestClient) -> None:
    public = create_task(client, sign_up(client), is_public=True)
    login = log_in(client, scope="tasks:write account")
    urls = ["/tasks/", "/tasks/mine", "/tasks/public", f"/tasks/{public['id']}"]

    answers = [client.get(url, headers=login.headers) for url in urls]

    assert [answer.status_code for answer in answers] == [403, 403, 403, 403]
    assert all('scope="tasks:read"' in answer.headers["WWW-Authenticate"] for answer in answers)


def test_filters_keep_what_meets_all_of_them(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)
    tasks = {
        "early": {"status": "done", "due_at": MONDAY},
        "late": {"status": "done", "due_at": TUESDAY},
        "open": {"status": "doing", "due_at": MONDAY},
        "undated": {},
    }
    create_in_order(client, clock, login, {title: fields | {"is_public": True} for title, fields in tasks.items()})
    expected = {
        "status=done": ["late", "early"],
        "status=todo": ["undated"],
        f"due_before={TUESDAY}": ["open", "early"],
        f"due_after={MONDAY}": ["late"],
        "due_before=2026-12-01T13:00:00.000001%2B01:00": ["open", "late", "early"],
        f"due_after=2026-11-30T11:59:59.999999Z&due_before={TUESDAY}": ["open", "early"],
        f"due_after={TUESDAY}&due_before={MONDAY}": [],
        f"due_before={TUESDAY}&status=done": ["early"],
    }

    assert {query: titles(client, f"/tasks/?{query}", login) for query in expected} == expected
    assert {query: titles(client, f"/tasks/public?{query}") for query in expected} == expected


def test_lists_are_sorted_and_undated_tasks_come_last(client: TestClient, clock: MovableClock) -> None:
    """Undated tasks come last in both directions."""
    login = sign_up(client)
    due = {"a": TUESDAY, "b": None, "c": MONDAY, "d": TUESDAY, "e": None}
    create_in_order(client, clock, login, {title: {"due_at": at, "is_public": True} for title, at in due.items()})
    ids = {task["title"]: task["id"] for task in client.get("/tasks/public").json()["items"]}
    for title in "c", "b":
        client.patch(f"/tasks/{ids[title]}", json={"status": "done"}, headers=login.headers)
        clock.move(seconds=1)
    expected = {
        "created_at": ["a", "b", "c", "d", "e"],
        "-created_at": ["e", "d", "c", "b", "a"],
        "due_at": ["c", "a", "d", "b", "e"],
        "-due_at": ["d", "a", "c", "e", "b"],
        "updated_at": ["a", "d", "e", "c", "b"],
        "-updated_at": ["b", "c", "e", "d", "a"],
    }

    assert {sort: titles(client, f"/tasks/mine?sort={sort}", login) for sort in expected} == expected
    assert {sort: titles(client, f"/tasks/public?sort={sort}") for sort in expected} == expected
    assert titles(client, "/tasks/mine", login) == expected["-created_at"]


def test_a_plus_in_a_url_must_be_encoded(client: TestClient) -> None:
    login = sign_up(client)

    encoded = client.get("/tasks/mine?due_before=2026-11-23T12:00:00%2B02:00", headers=login.headers)
    plain = client.get("/tasks/mine?due_before=2026-11-23T12:00:00+02:00", headers=login.headers)

    assert encoded.status_code == 200
    assert faults(plain) == [["query", "due_before"]]
    assert plain.json()["detail"][0]["msg"].endswith("a + in a URL must be written as %2B")


def test_a_query_that_means_nothing_is_refused(client: TestClient) -> None:
    queries = [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=9223372036854775808",
        "limit=many",
        "limit=1_0",
        "limit=+1",
        "limit=1.0",
        "limit=%201",
        "limit=\u0661",
        "limit=",
        "status=late",
        "status=",
        "sort=title",
        "sort=--due_at",
        "due_before=2026-11-30T12:00:00",
        "due_before=0001-01-01T00:00:00Z",
        "due_after=1764504000",
        "due_after=tomorrow",
    ]

    places = {query: faults(client.get(f"/tasks/public?{query}")) for query in queries}

    assert places == {query: [["query", query.partition("=")[0]]] for query in queries}
