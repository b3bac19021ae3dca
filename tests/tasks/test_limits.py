"""The bounds of tasks: how many an owner may have, and how large a page gets."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from app.tasks.quota import remembered
from tests.conftest import MovableClock, Serve, Sql
from tests.support.accounts import Login, create_task, sign_up
from tests.support.task_lists import SORTS, create_many, in_one, walk

MOST = 960 * 1024
EMOJI = "\N{GRINNING FACE}"


def test_an_owner_has_at_most_so_many_tasks(serve: Serve) -> None:
    client = serve(tasks_limit=3)
    ada, bob = sign_up(client), sign_up(client, "bob")
    tasks = [create_task(client, ada) for _ in range(3)]

    refused = client.post("/tasks/", json={"title": "One more"}, headers=ada.headers)

    assert refused.status_code == 409
    assert refused.json()["detail"] == "You have as many tasks as this service allows: delete some first"
    assert create_task(client, bob)
    assert client.patch(f"/tasks/{tasks[0]['id']}", json={"status": "done"}, headers=ada.headers).status_code == 200
    client.delete(f"/tasks/{tasks[0]['id']}", headers=ada.headers)
    assert create_task(client, ada)
    assert client.post("/tasks/", json={"title": "One more"}, headers=ada.headers).status_code == 409
    client.post("/auth/revoke", data={"token": ada.refresh_token})
    assert client.post("/tasks/", json={"title": "One more"}, headers=ada.headers).status_code == 401


def test_without_a_limit_there_is_none(serve: Serve) -> None:
    client = serve(tasks_limit=0)
    ada = sign_up(client)

    assert all(create_task(client, ada) for _ in range(3))


def test_a_repeat_is_answered_at_the_limit_too(serve: Serve, sql: Sql) -> None:
    client = serve(tasks_limit=1)
    ada = sign_up(client)
    key = ada.headers | {"Idempotency-Key": "a key"}
    first = client.post("/tasks/", json={"title": "First"}, headers=key)

    assert client.post("/tasks/", json={"title": "First"}, headers=key).content == first.content
    assert client.post("/tasks/", json={"title": "Second"}, headers=key).status_code == 422
    other = ada.headers | {"Idempotency-Key": "another"}
    assert client.post("/tasks/", json={"title": "First"}, headers=other).status_code == 409
    assert sql("SELECT count(*) FROM tasks") == [(1,)]


def test_tasks_of_other_processes_count(serve: Serve, clock: MovableClock, sql: Sql, database_url: str) -> None:
    client = serve(tasks_limit=40)
    ada = sign_up(client)
    create_task(client, ada)
    owner_id = client.get("/users/me", headers=ada.headers).json()["id"]
    create_many(database_url, clock, owner_id, 38)

    statuses = [client.post("/tasks/", json={"title": "x"}, headers=ada.headers).status_code for _ in range(4)]

    assert statuses == [201] + [409] * 3
    assert sql("SELECT count(*) FROM tasks") == [(40,)]


def test_requests_at_one_moment_do_not_exceed_the_limit(serve: Serve, sql: Sql) -> None:
    client = serve(tasks_limit=2)
    owners = [sign_up(client, name) for name in ("ada", "bob", "eve")]

    for owner in owners:
        with ThreadPoolExecutor(10) as threads:
            asked = [threads.submit(create, client, owner) for _ in range(20)]
            statuses = [answer.result() for answer in asked]
        assert sorted(statuses) == [201] * 2 + [409] * 18

    assert sql("SELECT count(*) FROM tasks GROUP BY owner_id") == [(2,)] * 3


def test_the_same_key_at_one_moment_is_answered_at_the_limit(serve: Serve, sql: Sql) -> None:
    client = serve(tasks_limit=1)
    ada = sign_up(client)

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda _: create(client, ada, "a key"), range(16)))

    assert statuses == [201] * 16
    assert sql("SELECT count(*) FROM tasks") == [(1,)]


def create(client: TestClient, owner: Login, key: str | None = None) -> int:
    headers = owner.headers | ({"Idempotency-Key": key} if key else {})
    return client.post("/tasks/", json={"title": "At one moment"}, headers=headers).status_code


def test_few_owners_are_remembered(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.tasks.quota.MAX_REMEMBERED", 2)
    remembered.clear()
    for name in "ada", "bob", "eve":
        create_task(client, sign_up(client, name))

    assert len(remembered) == 2


def test_a_page_ends_at_about_a_mebibyte(client: TestClient, clock: MovableClock) -> None:
    ada = sign_up(client)
    for number in range(60):
        clock.move(microseconds=number % 2)
        due_at = None if number % 3 else "2026-12-01T12:00:00Z"
        create_task(client, ada, f"{number}", description=EMOJI * 10_000, due_at=due_at, is_public=True)

    whole = [task["title"] for task in client.get("/tasks/mine?limit=10", headers=ada.headers).json()["items"]]
    for sort in SORTS:
        for url, login in (f"/tasks/mine?limit=100&sort={sort}", ada), (f"/tasks/public?limit=100&sort={sort}", None):
            body = client.get(url, headers=login.headers if login else None).content
            assert 0.9 * MOST < len(body) < 1.1 * MOST
            pages = walk(client, url, login)
            assert [len(page) for page in pages] == [24, 24, 12]
            assert sorted(in_one(pages), key=int) == [str(number) for number in range(60)]
    assert in_one(walk(client, "/tasks/mine?limit=100", ada))[:10] == whole


def test_a_page_has_one_task_however_large(client: TestClient) -> None:
    ada = sign_up(client)
    for number in range(2):
        create_task(client, ada, f"{number}", description="\x01" * 10_000)

    assert [len(page) for page in walk(client, "/tasks/mine?limit=1", ada)] == [1, 1]
