"""Lists in pages: whatever the order, page after page is the whole list, and a cursor is good for nothing else."""

from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from tests.conftest import MovableClock, Serve
from tests.support.accounts import Login, create_task, faults, sign_up
from tests.support.task_lists import SORTS, in_one, read_page, walk

MONDAY, TUESDAY, WEDNESDAY = "2026-11-30T12:00:00Z", "2026-12-01T12:00:00Z", "2026-12-02T12:00:00Z"
ID = "01a207a2-3280-7000-8422-653b1e4423a0"
REFUSED = [["query", "cursor"]]


def cursor_of(client: TestClient, url: str, login: Login | None = None) -> str:
    cursor: str = client.get(url, headers=login.headers if login else None).json()["next_cursor"]
    return cursor


def test_page_after_page_is_the_whole_list_in_every_order(client: TestClient, clock: MovableClock) -> None:
    """Ties and missing dates stand on the borders of pages, as the tasks of each pair are made at one moment."""
    login = sign_up(client)
    for number, due_at in enumerate([MONDAY, TUESDAY, None, MONDAY, TUESDAY, None]):
        clock.move(microseconds=number % 2)
        create_task(client, login, f"{number}", due_at=due_at, is_public=True)

    for sort in SORTS:
        whole, _ = read_page(client, f"/tasks/public?sort={sort}")
        for limit, sizes in {1: [1] * 6, 2: [2, 2, 2], 3: [3, 3]}.items():
            pages = walk(client, f"/tasks/public?sort={sort}&limit={limit}")
            assert [len(page) for page in pages] == sizes
            assert in_one(pages) == whole
        assert in_one(walk(client, f"/tasks/mine?sort={sort}&limit=2", login)) == whole


def test_a_page_has_20_tasks_unless_asked_otherwise(client: TestClient) -> None:
    login = sign_up(client)
    for _ in range(21):
        create_task(client, login)

    assert [len(page) for page in walk(client, "/tasks/", login)] == [20, 1]
    assert [len(page) for page in walk(client, "/tasks/?limit=100", login)] == [21]


def test_the_link_is_the_same_request_with_the_next_cursor(client: TestClient) -> None:
    login = sign_up(client)
    for _ in range(2):
        create_task(client, login, due_at=MONDAY)
    url = "/tasks?limit=1&due_before=2026-12-01T12%3A00%3A00%2B01%3A00&sort=due_at"

    first = client.get(url, headers=login.headers)

    cursor = first.json()["next_cursor"]
    assert first.headers["Link"] == f'<{url}&cursor={quote(cursor, safe="")}>; rel="next"'
    assert len(walk(client, url, login)) == 2


@pytest.mark.parametrize("url", ["/api/tasks/?limit=1", "/tasks/?limit=1"], ids=["prefix kept", "prefix stripped"])
def test_the_link_has_the_prefix_that_the_proxy_adds(client: TestClient, serve: Serve, url: str) -> None:
    login = sign_up(client)
    for title in "one", "two":
        create_task(client, login, title)
    behind_proxy = serve(root_path="/api")

    _, link = read_page(behind_proxy, url, login)

    assert link is not None
    assert link.startswith("/api/tasks/?limit=1&cursor=")
    assert sorted(in_one(walk(behind_proxy, url, login))) == ["one", "two"]


@pytest.mark.parametrize(
    ("sort", "rest"),
    [
        ("created_at", ["c", "d", "old", "new", "undated"]),
        ("-created_at", ["a"]),
        ("due_at", ["c", "d", "new", "undated"]),
        ("-due_at", ["a", "old", "undated"]),
    ],
)
def test_tasks_that_come_and_go_meanwhile_move_no_other(
    client: TestClient, clock: MovableClock, sort: str, rest: list[str]
) -> None:
    """The page ends at b. Then b and the task before it go. A new task is seen if its place is further on."""
    login, ids = sign_up(client), {}
    dated = {"a": MONDAY, "b": TUESDAY, "c": TUESDAY, "d": WEDNESDAY}
    later = {"old": "2026-11-01T12:00:00Z", "new": "2026-12-24T12:00:00Z", "undated": None}
    for title, due_at in dated.items():
        ids[title] = create_task(client, login, title, due_at=due_at)["id"]
        clock.move(seconds=1)
    limit = 3 if sort.startswith("-") else 2
    page, link = read_page(client, f"/tasks/?sort={sort}&limit={limit}", login)
    assert page[-1] == "b"

    for title in page[-2:]:
        assert client.delete(f"/tasks/{ids[title]}", headers=login.headers).status_code == 204
    for title, added_due_at in later.items():
        create_task(client, login, title, due_at=added_due_at)
        clock.move(seconds=1)

    assert in_one(walk(client, link, login)) == [title for title in rest if title not in page]


def test_a_cursor_is_good_for_its_own_list_sort_and_filter_only(client: TestClient) -> None:
    ada, bob = sign_up(client), sign_up(client, "bob")
    for _ in range(2):
        create_task(client, ada, is_public=True)
    cursor = cursor_of(client, "/tasks/mine?limit=1", ada)

    def ask(url: str, login: Login) -> list[list[str]]:
        return faults(client.get(url, params={"cursor": cursor}, headers=login.headers))

    assert ask("/tasks/mine", bob) == REFUSED
    for url in "/tasks/public", "/auth/sessions":
        assert ask(url, ada) == REFUSED
    for query in {"sort": "created_at"}, {"status": "todo"}, {"due_before": MONDAY}, {"due_after": MONDAY}:
        response = client.get("/tasks/mine", params={"cursor": cursor, **query}, headers=ada.headers)
        assert faults(response) == REFUSED


def test_a_cursor_is_good_for_another_limit(client: TestClient) -> None:
    login = sign_up(client)
    for _ in range(3):
        create_task(client, login)
    cursor = cursor_of(client, "/tasks/mine?limit=1", login)

    response = client.get("/tasks/mine", params={"cursor": cursor, "limit": 100}, headers=login.headers)

    assert len(response.json()["items"]) == 2


def test_text_that_is_no_cursor_is_refused(client: TestClient) -> None:
    cursors = ["garbage", "%C3%A9", "bnVsbA==", "x" * 513, "x" * 5_000]

    assert [faults(client.get(f"/tasks/public?cursor={cursor}")) for cursor in cursors] == [REFUSED] * len(cursors)
