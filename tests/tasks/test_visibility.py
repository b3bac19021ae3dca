"""Rules of who sees a task, and who may take a public one away."""

import json
import logging
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.conftest import MovableClock, Sql
from tests.support.accounts import Login, add_user, create_task, log_in, sign_up


@pytest.fixture
def root(client: TestClient) -> Login:
    add_user(client, "root", is_admin=True)
    return log_in(client, "root")


def set_active(client: TestClient, root: Login, username: str, *, is_active: bool) -> None:
    [user] = client.get("/users/", params={"username": username}, headers=root.headers).json()["items"]
    changed = client.patch(f"/users/{user['id']}", json={"is_active": is_active}, headers=root.headers)
    assert changed.status_code == 200


def test_nobody_else_sees_the_tasks_of_a_disabled_user(client: TestClient, root: Login, clock: MovableClock) -> None:
    ada, spammer = sign_up(client), sign_up(client, "spammer")
    titles = ["Buy pills 1", "Buy milk pi 1", "Buy pills 2", "Buy milk pi 2", "Buy pills 3"]
    tasks = []
    for title in titles:
        clock.move(seconds=1)
        tasks.append(create_task(client, ada if "milk" in title else spammer, title, is_public=True))

    def listed(url: str, login: Login | None) -> list[str]:
        found: list[str] = []
        cursor: dict[str, str] = {}
        while not found or cursor["cursor"]:
            headers = login.headers if login else {}
            page = client.get(url, params={"limit": "1", "sort": "created_at"} | cursor, headers=headers).json()
            found += [task["title"] for task in page["items"]]
            cursor = {"cursor": page["next_cursor"]}
        return found

    def seen(login: Login | None) -> list[int]:
        headers = login.headers if login else {}
        return [client.get(f"/tasks/{task['id']}", headers=headers).status_code for task in tasks]

    whole = {q: listed(f"/tasks/public{q}", None) for q in ("", "?q=buy", "?q=pi&status=todo")}
    assert set(map(tuple, whole.values())) == {tuple(titles)}

    set_active(client, root, "spammer", is_active=False)

    for login in None, ada, root:
        assert {q: listed(f"/tasks/public{q}", login) for q in whole} == dict.fromkeys(whole, titles[1:4:2])
        assert seen(login) == [404, 200, 404, 200, 404]
    assert client.get(f"/tasks/{tasks[0]['id']}", headers=spammer.headers).status_code == 401
    assert client.get("/tasks/mine", headers=spammer.headers).status_code == 401

    set_active(client, root, "spammer", is_active=True)

    assert {q: listed(f"/tasks/public{q}", None) for q in whole} == whole
    assert seen(log_in(client, "spammer")) == seen(None) == [200] * 5


def test_an_administrator_deletes_a_public_task_of_anybody(
    client: TestClient, root: Login, caplog: pytest.LogCaptureFixture
) -> None:
    bob = sign_up(client, "bob")
    owner_id = client.get("/users/me", headers=bob.headers).json()["id"]
    public, private, hidden = (create_task(client, bob, "Secret", is_public=n != 1) for n in range(3))
    caplog.set_level(logging.INFO, "app.observe.events")
    caplog.clear()

    def delete(task: dict[str, Any], login: Login, **headers: str) -> int:
        return client.delete(f"/tasks/{task['id']}", headers=login.headers | headers).status_code

    assert delete(public, root, **{"If-Match": '"2"'}) == 412
    assert delete(private, root, **{"If-Match": '"1"'}) == delete(private, root) == 404
    assert client.patch(f"/tasks/{public['id']}", json={"title": "x"}, headers=root.headers).status_code == 404
    assert delete(public, root, **{"If-Match": '"1"'}) == 204
    assert delete(public, root) == 404
    set_active(client, root, "bob", is_active=False)
    assert delete(hidden, root) == 204
    assert delete(create_task(client, root, is_public=True), root) == 204

    removed = [json.loads(line) for line in caplog.messages if "task_removed" in line]
    assert [(event["target_id"], event["task_id"]) for event in removed] == [
        (owner_id, public["id"]),
        (owner_id, hidden["id"]),
    ]
    assert "Secret" not in caplog.text


def test_only_an_administrator_s_scope_deletes_others_tasks(client: TestClient, root: Login, sql: Sql) -> None:
    ada, bob = sign_up(client), sign_up(client, "bob")
    task = create_task(client, bob, is_public=True)
    narrow = log_in(client, "root", scope="tasks:read tasks:write")
    reader = log_in(client, "root", scope="tasks:read admin")

    def delete(login: Login) -> int:
        return client.delete(f"/tasks/{task['id']}", headers=login.headers).status_code

    assert [delete(ada), delete(narrow), delete(reader)] == [404, 404, 403]
    sql("UPDATE users SET is_admin = FALSE")
    assert delete(root) == 404
    assert client.get(f"/tasks/{task['id']}").status_code == 200
