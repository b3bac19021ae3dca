"""Statements that check the session: a product's own resource can run no other ones for a caller."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.testclient import TestClient
from sqlalchemy import bindparam, delete, exists, func, insert, select, union, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import StatementError

from app.auth.callers import LiveConnection, if_live, insert_if_live
from app.auth.dependencies import CurrentUser, OptionalUser
from app.db.types import new_id
from app.tasks.models import Task
from app.tasks.router import TaskReaderDb, TaskWriterDb
from app.testing import assert_bearer_error
from tests.conftest import MovableClock, Serve, Sql
from tests.support.accounts import Login, create_task, sign_up

IS_OWN = Task.owner_id == bindparam("user_id")
SELECT_TITLES = select(Task.title).where(IS_OWN)
COUNT_TITLES = select(func.count()).select_from(SELECT_TITLES.subquery())
INSERTED = [column.key for column in Task.__table__.columns]
MADE_WITHOUT_A_CHECK: dict[str, Any] = {
    "select": SELECT_TITLES,
    "update": update(Task).where(IS_OWN).values(title="changed"),
    "delete": delete(Task).where(IS_OWN),
    "insert": insert(Task).values(title="new"),
    "the check in a part": union(if_live(SELECT_TITLES), SELECT_TITLES),
    "the check in a subquery": select(Task.title).where(Task.title.in_(if_live(SELECT_TITLES))),
    "the check in a condition": select(Task.title).where(exists(if_live(SELECT_TITLES))),
}
MADE_WITH_A_CHECK: dict[str, Any] = {
    "select": if_live(SELECT_TITLES),
    "select, changed later": if_live(select(Task.title)).where(IS_OWN).order_by(Task.id).limit(5),
    "count": if_live(select(COUNT_TITLES.scalar_subquery())),
    "update": if_live(update(Task).where(IS_OWN)).values(title="changed").returning(Task.title),
    "delete": if_live(delete(Task).where(IS_OWN)).returning(Task.title),
}


@pytest.fixture
def run(serve: Serve) -> Iterator[Callable[[Any], TestClient]]:
    """Serve a resource that runs one statement: at /titles within the caller's reads, and within the writes."""

    def make(statement: Any, values: dict[str, Any] | None = None) -> TestClient:
        def run_it(connection: LiveConnection) -> list[Any]:
            return list(connection.execute(statement, values).scalars())

        router = APIRouter(prefix="/titles")

        @router.get("")
        async def read_titles(db: TaskReaderDb) -> list[Any]:
            return await db.read_if_live(run_it)

        @router.post("")
        async def write_titles(db: TaskWriterDb) -> list[Any]:
            return await db.write_if_live(run_it)

        client = serve()
        app: Any = client.app
        before = len(app.router.routes)
        app.include_router(router)
        routes.append((app, before))
        return client

    routes: list[tuple[Any, int]] = []
    yield make
    for app, before in routes:  # another test may get the app
        del app.router.routes[before:]


def log_out(client: TestClient, login: Login) -> None:
    client.post("/auth/revoke", data={"token": login.refresh_token})


@pytest.mark.parametrize("name", MADE_WITHOUT_A_CHECK)
def test_a_statement_without_the_check_is_an_error(
    run: Callable[..., TestClient], statements: list[str], name: str
) -> None:
    client = run(MADE_WITHOUT_A_CHECK[name])
    ada = sign_up(client)
    create_task(client, ada, "secret plan")

    for method in "GET", "POST":
        statements.clear()
        with pytest.raises(TypeError, match=r"use if_live\(\), or read\(\)"):
            client.request(method, "/titles", headers=ada.headers)
        assert [statement for statement in statements if "tasks" in statement] == []


@pytest.mark.parametrize("name", MADE_WITH_A_CHECK)
def test_a_checked_statement_sees_nothing_after_the_logout(run: Callable[..., TestClient], sql: Sql, name: str) -> None:
    client = run(MADE_WITH_A_CHECK[name])
    ada, bob = sign_up(client), sign_up(client, "bob")
    create_task(client, ada, "secret plan")
    create_task(client, bob, "another plan")
    found = {"count": [1], "update": ["changed"]}.get(name, ["secret plan"])
    method = "POST" if name in {"update", "delete"} else "GET"

    log_out(client, bob)
    assert_bearer_error(client.request(method, "/titles", headers=bob.headers), "invalid_token")
    assert client.request(method, "/titles", headers=ada.headers).json() == found
    titles = sql("SELECT title FROM tasks ORDER BY title")
    log_out(client, ada)
    assert_bearer_error(client.request(method, "/titles", headers=ada.headers), "invalid_token")
    assert sql("SELECT title FROM tasks ORDER BY title") == titles
    assert ("another plan",) in titles


def test_a_checked_insert_inserts_nothing_after_the_logout(
    run: Callable[..., TestClient], clock: MovableClock, sql: Sql, database_url: str
) -> None:
    make = sqlite.insert if database_url.startswith("sqlite") else postgresql.insert
    values: dict[str, Any] = {
        "id": new_id(clock.now),
        "title": "new",
        "description": None,
        "status": "todo",
        "due_at": None,
    }
    values |= {"is_public": False, "created_at": clock.now, "updated_at": clock.now, "version": 1, "words": None}
    values |= {"idempotency_key": None, "idempotency_hash": None, "owner_id": None, "user_id": "somebody else's"}
    columns = [name for name in values if name != "user_id"]
    client = run(insert_if_live(make(Task), columns).returning(Task.title), values)
    ada = sign_up(client)
    values["owner_id"] = client.get("/users/me", headers=ada.headers).json()["id"]

    log_out(client, ada)
    assert_bearer_error(client.post("/titles", headers=ada.headers), "invalid_token")
    assert sql("SELECT * FROM tasks") == []
    other = sign_up(client, "bob")
    assert client.post("/titles", headers=other.headers).json() == ["new"]


def test_an_insert_without_the_value_of_a_column_is_an_error(run: Callable[..., TestClient]) -> None:
    client = run(insert_if_live(insert(Task), INSERTED), dict.fromkeys(set(INSERTED) - {"status"}))
    ada = sign_up(client)

    with pytest.raises(StatementError, match="A value is required for bind parameter 'status'"):
        client.post("/titles", headers=ada.headers)


def test_a_parameter_cannot_take_the_callers_place(run: Callable[..., TestClient]) -> None:
    client = run(if_live(SELECT_TITLES), {"user_id": "01890000-0000-7000-8000-000000000000", "session_id": "x"})
    ada = sign_up(client)
    create_task(client, ada, "secret plan")

    assert client.get("/titles", headers=ada.headers).json() == ["secret plan"]


def test_a_search_asks_nothing_for_a_session_that_is_over(client: TestClient, statements: list[str]) -> None:
    ada = sign_up(client)
    create_task(client, ada)
    log_out(client, ada)
    statements.clear()

    assert_bearer_error(client.get("/tasks/mine?q=water", headers=ada.headers), "invalid_token")

    of_tasks = [statement for statement in statements if "task" in statement]
    assert of_tasks != []
    assert [statement for statement in of_tasks if "sessions.ended_at IS NULL" not in statement] == []


def test_an_ended_session_leaves_no_count_of_the_limit(client: TestClient, statements: list[str]) -> None:
    ada = sign_up(client)
    log_out(client, ada)
    for _ in range(2):
        statements.clear()
        response = client.post("/tasks/", json={"title": "One"}, headers=ada.headers)
        assert_bearer_error(response, "invalid_token")
        assert [statement for statement in statements if "count(*)" in statement] != []
        assert [statement for statement in statements if "INSERT INTO tasks" in statement] == []


def test_an_endpoint_may_take_the_caller(serve: Serve) -> None:
    client = serve()
    app: Any = client.app
    before = len(app.router.routes)
    router = APIRouter(prefix="/names")

    @router.get("/mine")
    async def read_name(user: CurrentUser) -> str:
        return user.username

    @router.get("/optional")
    async def read_optional_name(user: OptionalUser) -> str | None:
        return user.username if user else None

    app.include_router(router)
    ada = sign_up(client)

    assert client.get("/names/mine", headers=ada.headers).json() == "ada"
    assert client.get("/names/optional", headers=ada.headers).json() == "ada"
    assert client.get("/names/optional").json() is None
    assert_bearer_error(client.get("/names/mine"), None)
    log_out(client, ada)
    for path in "/names/mine", "/names/optional":
        assert_bearer_error(client.get(path, headers=ada.headers), "invalid_token")
    del app.router.routes[before:]
