"""Each statement that a request runs is served by an index: none sorts, or reads more than the range that it is for.

But a range of due dates in another order than by due date is filtered on the way along the index.
"""

import asyncio
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import combinations, product
from typing import Any

import asyncpg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event, make_url

from app.db.types import Base
from app.tasks.search import MAX_SORTED
from app.tasks.service import FILTERS, MANY, SORT_ORDERS
from tests.conftest import SECRET, MovableClock, Sql
from tests.support.accounts import PASSWORD, Login, create_task, log_in, refreshed, sign_up
from tests.support.command_line import run
from tests.support.task_lists import create_many

VALUES = {"status": "todo", "due_before": "2028-01-01T00:00:00Z", "due_after": "2026-01-01T00:00:00Z"}
KNOWN_FILTERS = [name for name in FILTERS if name in VALUES]
FILTERED = [names for count in range(len(KNOWN_FILTERS) + 1) for names in combinations(KNOWN_FILTERS, count)]
FEW_FILTERED = [names for names in FILTERED if len(names) in {0, 1, len(KNOWN_FILTERS)}]
OTHER_INDEXES = {index.name for index in Base.metadata.tables["tasks"].indexes} - {"ix_tasks_words"}

Statements = dict[str, tuple[Any, ...]]


def test_every_filter_has_a_value_to_be_tried_with() -> None:
    missing = set(FILTERS) - VALUES.keys()

    assert not missing, f"tests/db/test_plans.py lacks the filters {sorted(missing)}: add a value of each to VALUES"


@pytest.fixture
def statements() -> Iterator[Statements]:
    """The statements that the service runs, with the latest parameters of each."""
    seen: Statements = {}

    def see(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        seen[statement] = tuple(parameters)

    event.listen(Engine, "before_cursor_execute", see)
    yield seen
    event.remove(Engine, "before_cursor_execute", see)


@pytest.fixture
def ada(client: TestClient, clock: MovableClock) -> Login:
    ada = sign_up(client)
    for n in range(6):
        clock.move(seconds=1)
        create_task(client, ada, is_public=True, due_at=f"2027-01-0{n + 1}T00:00:00Z" if n < 3 else None)
    return ada


@pytest.mark.parametrize("path", ["/tasks/mine", "/tasks/public"])
@pytest.mark.parametrize("count", [1, 2 * MANY], ids=["few", "many"])
def test_each_page_is_a_range_of_an_index(
    client: TestClient,
    ada: Login,
    clock: MovableClock,
    database_url: str,
    statements: Statements,
    path: str,
    count: int,
) -> None:
    """Few tasks of a status are found first, and then sorted by due date or change."""
    owner_id = client.get("/users/me", headers=ada.headers).json()["id"]
    create_many(database_url, clock, owner_id, count)
    statements.clear()
    for sort, names in product(SORT_ORDERS, FILTERED):
        query = {"sort": sort, "limit": "2"} | {name: VALUES[name] for name in names}
        cursor: str | None = ""
        for _ in range(4):
            found = client.get(path, params=query | ({"cursor": cursor} if cursor else {}), headers=ada.headers)
            cursor = found.json()["next_cursor"]
            if cursor is None:
                break

    sorting = {name: values for name, values in statements.items() if "ORDER BY coalesce" in name}
    counting = {name: values for name, values in statements.items() if name.startswith("SELECT tasks.id \n")}
    assert len(statements) > 60
    assert (len(sorting) > 20) == (count == 1)
    assert len(counting) == 1
    assert_served(database_url, {name: values for name, values in statements.items() if name not in sorting})
    if database_url.startswith("sqlite"):  # its index of public tasks serves only conditions in the index's own words
        by_status = counting | {name: values for name, values in statements.items() if "tasks.status = ?" in name}
        plans = plans_on_sqlite(database_url, by_status)
        assert len(plans) > 10
        assert [plan for _, plan in plans if not any("_status_id" in step for step in plan)] == []
    else:
        plans = plans_on_postgresql(database_url, sorting, avoiding("seqscan"))
        assert [name for name, plan in plans if "Seq Scan" in plan] == []
        ids_are_cheap = "ANALYZE tasks", "SET random_page_cost = 100"
        [(_, plan)] = plans_on_postgresql(database_url, counting, [*ids_are_cheap, *avoiding("sort")])
        assert any("_status_id" in step for step in plan), plan


@pytest.mark.parametrize(
    "filtered", [FEW_FILTERED, pytest.param(FILTERED, marks=pytest.mark.long)], ids=["alone", "pairs"]
)
@pytest.mark.parametrize(("others", "count"), [("Others", 100), ("Plants", MAX_SORTED)], ids=["few", "many"])
def test_a_search_uses_the_index_of_words_or_walks_the_list(
    client: TestClient,
    ada: Login,
    database_url: str,
    clock: MovableClock,
    statements: Statements,
    others: str,
    count: int,
    filtered: list[tuple[str, ...]],
) -> None:
    """Few are found first, and then sorted; of more, PostgreSQL may choose."""
    owner_id = client.get("/users/me", headers=ada.headers).json()["id"]
    create_many(database_url, clock, owner_id, count, title=others)
    statements.clear()
    for path, sort, names in product(("/tasks/mine", "/tasks/public"), SORT_ORDERS, filtered):
        query = {"sort": sort, "limit": "2", "q": "plants"} | {name: VALUES[name] for name in names}
        page = client.get(path, params=query, headers=ada.headers).json()
        if cursor := page["next_cursor"]:
            client.get(path, params=query | {"cursor": cursor}, headers=ada.headers)

    pages = {name: values for name, values in statements.items() if "FROM tasks" in name}
    assert len(pages) > 15 * len(filtered)
    if count == MAX_SORTED:
        assert_served(database_url, pages)
    elif database_url.startswith("postgresql"):
        plans = plans_on_postgresql(database_url, pages, avoiding("seqscan"))
        assert {name: plan for name, plan in plans if "ORDER BY" in name and "Sort" not in plan} == {}
    if database_url.startswith("postgresql"):
        first = ["ALTER TABLE tasks DROP CONSTRAINT pk_tasks", *(f"DROP INDEX {name}" for name in OTHER_INDEXES)]
        plans = plans_on_postgresql(database_url, pages, [*avoiding("seqscan", "indexscan"), "BEGIN", *first])
        assert [name for name, plan in plans if "ix_tasks_words" not in plan] == []
    elif count < MAX_SORTED:
        for _, plan in plans_on_sqlite(database_url, pages):
            assert "SEARCH tasks USING INDEX sqlite_autoindex_tasks_1 (id=?)" in plan
            assert [step for step in plan if step.startswith("SCAN") and "VIRTUAL" not in step] == []


def test_each_other_statement_finds_its_rows_by_an_index(
    client: TestClient, ada: Login, database_url: str, statements: Statements, clock: MovableClock, sql: Sql
) -> None:
    task = create_task(client, ada)
    client.post("/tasks/", json={"title": "x"}, headers=ada.headers | {"Idempotency-Key": "k"})
    client.post("/tasks/", json={"title": "x"}, headers=ada.headers | {"Idempotency-Key": "k"})
    for headers in ada.headers, {}:
        client.get(f"/tasks/{task['id']}", headers=headers)
    client.patch(f"/tasks/{task['id']}", json={"title": "y"}, headers=ada.headers | {"If-Match": '"1"'})
    client.delete(f"/tasks/{task['id']}", headers=ada.headers | {"If-Match": '"1"'})
    client.delete(f"/tasks/{task['id']}", headers=ada.headers)
    client.get("/users/me", headers=ada.headers)
    client.patch("/users/me", json={"email": None}, headers=ada.headers)
    client.post("/auth/token", data={"username": "ada", "password": "a wrong password"})
    sql("UPDATE throttle SET hits = 1000")
    client.post("/auth/token", data={"username": "ada", "password": "a wrong password"})
    sql("DELETE FROM throttle")
    clock.move(seconds=1)
    other = refreshed(client, log_in(client).refresh_token)
    client.post("/auth/introspect", data={"token": other.refresh_token}, headers=ada.headers)
    client.post("/auth/revoke", data={"token": other.refresh_token})
    client.post("/auth/token", data={"grant_type": "refresh_token", "refresh_token": other.refresh_token})
    cursor = {"limit": "1"}
    log_in(client)
    page = client.get("/auth/sessions", params=cursor, headers=ada.headers).json()
    client.get("/auth/sessions", params=cursor | {"cursor": page["next_cursor"]}, headers=ada.headers)
    client.delete(f"/auth/sessions/{page['items'][0]['id']}", headers=ada.headers)
    client.delete("/auth/sessions", headers=ada.headers)
    change = {"current_password": PASSWORD, "new_password": "another horse battery"}
    renewed = Login.of(client.put("/users/me/password", json=change, headers=ada.headers))
    page = client.get("/users/me/events", params=cursor, headers=renewed.headers).json()
    client.get("/users/me/events", params=cursor | {"cursor": page["next_cursor"]}, headers=renewed.headers)
    assert client.get("/users/me/export", headers=renewed.headers).status_code == 200
    assert client.delete("/users/me", headers=renewed.headers).status_code == 204

    assert len(statements) > 25
    assert len([name for name in statements if "coalesce(sessions.network" in name]) == 1
    assert_served(database_url, statements)


def test_administration_finds_its_rows_by_an_index(
    client: TestClient, ada: Login, database_url: str, statements: Statements, sql: Sql
) -> None:
    bob = sign_up(client, "bob")
    bob_url = f"/users/{client.get('/users/me', headers=bob.headers).json()['id']}"
    sql("UPDATE users SET is_admin = TRUE")
    root = log_in(client, "ada").headers
    for query in {}, {"username": "b"}:
        cursor = client.get("/users/", params=query | {"limit": "1"}, headers=root).json()["next_cursor"]
        client.get("/users/", params=query | {"cursor": cursor or ""}, headers=root)
    client.get(bob_url, headers=root)
    token = client.post(f"{bob_url}/reset-token", headers=root).json()["reset_token"]
    client.post("/users/reset-password", json={"reset_token": token, "new_password": "another horse battery"})
    client.patch(bob_url, json={"is_active": False}, headers=root)
    client.patch(bob_url, json={"is_active": True}, headers=root)
    client.post(f"{bob_url}/unlock", headers=root)
    client.delete(f"{bob_url}/sessions", headers=root)
    assert client.delete(bob_url, headers=root).status_code == 204

    assert len([name for name in statements if "lower(users.username)" in name and "ORDER BY" in name]) == 2
    assert_served(database_url, statements)


def test_a_purge_reads_what_it_deletes_alone(
    client: TestClient, ada: Login, database_url: str, statements: Statements, sql: Sql
) -> None:
    client.post("/auth/revoke", data={"token": ada.refresh_token})
    sql("UPDATE sessions SET ended_at = '2020-01-01T00:00:00.000000Z', expires_at = created_at")
    sql("UPDATE throttle SET resets_at = '2000-01-01T00:00:00.000000Z'")
    statements.clear()

    assert run("purge", database_url=database_url, secret_key=SECRET).exit_code == 0

    deleting = {name: values for name, values in statements.items() if name.startswith("DELETE FROM")}
    assert len(deleting) == 3
    assert_served(database_url, deleting)
    if database_url.startswith("sqlite"):
        plans = plans_on_sqlite(database_url, deleting)
    else:
        plans = plans_on_postgresql(database_url, deleting, avoiding("seqscan", "sort"))
    [plan] = [plan for name, plan in plans if "sessions" in name]
    assert any("ix_sessions_end" in step for step in plan)
    [values] = [values for name, values in deleting.items() if "sessions" in name]
    assert str(values[0]).startswith("2020-01-01"), "a batch begins where the last one ended"


def assert_served(url: str, statements: Statements) -> None:
    explain = explain_on_sqlite if url.startswith("sqlite") else explain_on_postgresql
    explained = {name: values for name, values in statements.items() if not name.startswith(("SAVEPOINT", "RELEASE"))}
    bad = {name: plan for name, plan in explain(url, explained) if plan}
    advice = (
        "These statements read or sort more rows than they need. Add an index with a migration, "
        "or write a filter of a list as the others in app/tasks/service.py are."
    )
    assert not bad, "\n\n".join([advice, *(f"{statement}\n{plan}" for statement, plan in bad.items())])


def explain_on_sqlite(url: str, statements: Statements) -> Iterator[tuple[str, list[str]]]:
    for statement, plan in plans_on_sqlite(url, statements):
        steps = [step for step in plan if step.startswith("SCAN") and "INDEX" not in step and "CONSTANT" not in step]
        yield statement, steps + [step for step in plan if "TEMP B-TREE" in step]


def plans_on_sqlite(url: str, statements: Statements) -> list[tuple[str, list[str]]]:
    with closing(sqlite3.connect(str(make_url(url).database))) as connection:
        return [
            (statement, [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)])
            for statement, parameters in statements.items()
        ]


def explain_on_postgresql(url: str, statements: Statements) -> Iterator[tuple[str, list[str]]]:
    """With few rows it would rather read them all: what is left of that when it should not is what it cannot help."""
    for statement, plan in plans_on_postgresql(url, statements, avoiding("seqscan", "sort", "bitmapscan")):
        yield statement, [step for step in plan if step in {"Seq Scan", "Sort"}]


def avoiding(*ways: str) -> list[str]:
    return [f"SET enable_{way} = off" for way in ways]


def plans_on_postgresql(url: str, statements: Statements, before: Iterable[str]) -> list[tuple[str, list[str]]]:
    async def explain() -> list[tuple[str, list[str]]]:
        connection = await asyncpg.connect(url, statement_cache_size=0)
        for statement in before:
            await connection.execute(statement)
        found = []
        for statement, parameters in statements.items():
            [[plan]] = await connection.fetch(f"EXPLAIN (FORMAT JSON) {statement}", *parameters)
            found.append((statement, list(nodes_of(json.loads(plan)[0]["Plan"]))))
        await connection.close()
        return found

    return asyncio.run(explain())


def nodes_of(plan: dict[str, Any]) -> Iterator[str]:
    """The kinds of a plan's nodes, and their indexes."""
    yield plan["Node Type"]
    if "Index Name" in plan:
        yield plan["Index Name"]
    for part in plan.get("Plans", ()):
        yield from nodes_of(part)
