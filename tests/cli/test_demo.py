"""python -m app demo: rows that the service itself could have made."""

import re

from fastapi.testclient import TestClient

from app.clock import utc_now
from tests.conftest import MovableClock, Sql, on_one_database
from tests.support.accounts import Login, register
from tests.support.command_line import Run


def test_users_and_tasks_are_made_and_can_be_used(client: TestClient, app: Run, sql: Sql, clock: MovableClock) -> None:
    made = app("demo", "--users", "3", "--tasks", "40")

    assert made.exit_code == 0, made.output
    assert "Made 3 users and 40 tasks" in made.stdout
    found = re.search(r"-F username=(demo-[0-9a-f]{4}-1) -F password=(\S+)", made.stdout)
    assert found
    clock.now = utc_now()
    answer = client.post("/auth/token", data={"username": found[1], "password": found[2]}).json()
    login = Login(answer["access_token"], answer["refresh_token"], answer["scope"])
    mine = client.get("/tasks/mine", params={"limit": 100}, headers=login.headers).json()["items"]
    assert len(mine) == 14
    assert {task["owner"] for task in mine} == {found[1]}
    assert [task["created_at"] for task in mine] == sorted((task["created_at"] for task in mine), reverse=True)
    assert len(client.get("/tasks/public", params={"limit": 100}).json()["items"]) == 10
    first_word = mine[0]["title"].split()[0]
    searched = client.get("/tasks/mine", params={"limit": 100, "q": first_word}, headers=login.headers).json()["items"]
    assert searched == [task for task in mine if first_word in task["title"].split()]
    changed = client.patch(f"/tasks/{mine[0]['id']}", json={"status": "done"}, headers=login.headers)
    assert changed.json() == mine[0] | {"status": "done", "updated_at": changed.json()["updated_at"]}


@on_one_database
def test_demo_can_run_again(app: Run, sql: Sql) -> None:
    for _ in range(2):
        assert app("demo", "--users", "2", "--tasks", "0").exit_code == 0

    assert sql("SELECT count(*), count(DISTINCT username) FROM users") == [(4, 4)]


def test_demo_asks_before_it_adds_to_accounts_of_others(client: TestClient, app: Run, sql: Sql) -> None:
    register(client, "ada")
    few = ("demo", "--users", "1", "--tasks", "0")

    for answer in "", "n\n":
        assert app(*few, stdin=answer).exit_code == 1
    assert sql("SELECT count(*) FROM users") == [(1,)]

    assert app(*few, stdin="y\n").exit_code == 0
    assert app(*few, "--yes").exit_code == 0
    assert sql("SELECT count(*) FROM users") == [(3,)]


@on_one_database
def test_more_than_a_batch_is_made(app: Run, sql: Sql) -> None:
    assert app("demo", "--users", "1", "--tasks", "5001").exit_code == 0

    assert sql("SELECT count(*) FROM tasks") == [(5001,)]
