"""The short path for GET answers as FastAPI's own path does, to the byte, and steps aside where it must."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.clock import get_now
from app.http.error_responses import ErrorHandlers
from app.http.planned_routes import Shortcut
from tests.conftest import MovableClock, Serve, on_one_database
from tests.support.accounts import PASSWORD, Login, bearer, create_task, sign_up

pytestmark = on_one_database

PLANNED = {
    "/auth/sessions",
    "/auth/sessions/",
    "/auth/introspect",
    "/auth/revoke",
    "/auth/token",
    "/tasks",
    "/tasks/",
    "/tasks/mine",
    "/tasks/mine/",
    "/tasks/public",
    "/tasks/public/",
    "/tasks/{task_id}",
    "/users",
    "/users/",
    "/docs",
    "/docs/start.js",
    "/redoc",
}
LISTS = sorted(path for path in PLANNED if path.startswith(("/auth/sessions", "/tasks")) and "{" not in path)
MISSING = "01a207a2-3280-7000-8422-653b1e4423a0"


@pytest.fixture
def app(client: TestClient) -> FastAPI:
    app = client.app
    assert isinstance(app, FastAPI)
    return app


@contextmanager
def overridden(app: FastAPI) -> Iterator[None]:
    """FastAPI's way alone: the short path leaves overridden dependencies to it."""
    app.dependency_overrides[object] = object
    yield
    app.dependency_overrides.clear()


def assert_same(client: TestClient, app: FastAPI, method: str, path: str, headers: dict[str, str]) -> int:
    short = client.request(method, path, headers=headers)
    with overridden(app):
        whole = client.request(method, path, headers=headers)
    assert (short.status_code, short.headers.multi_items(), short.content) == (
        whole.status_code,
        whole.headers.multi_items(),
        whole.content,
    )
    return short.status_code


@pytest.fixture
def ada(client: TestClient, clock: MovableClock) -> Login:
    ada = sign_up(client)
    for n in range(3):
        clock.move(seconds=1)
        create_task(client, ada, f"Task {n}", is_public=n == 0, due_at="2027-01-01T00:00:00Z" if n else None)
    return ada


def test_the_hot_routes_have_plans(app: FastAPI) -> None:
    shortcut = Shortcut(app, app, errors=cast("ErrorHandlers", None))

    assert {path for _, path in shortcut.plans} | {str(route.path) for route, _ in shortcut.patterns} == PLANNED


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_lists_are_the_same(client: TestClient, app: FastAPI, ada: Login, path: str, method: str) -> None:
    for query in "", "?limit=2", "?limit=2&sort=due_at&unknown=1&limit=1", "?limit=0", "?cursor=x", "?limit=1&limit=x":
        for headers in {}, ada.headers, {"Authorization": "Bearer x"}, {"Authorization": "Basic x"}:
            assert_same(client, app, method, path + query, headers)
    cursor = client.get(path, params={"limit": 1}, headers=ada.headers).json()["next_cursor"]
    assert_same(client, app, method, f"{path}?limit=1&cursor={cursor}", ada.headers)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_tasks_are_the_same(client: TestClient, app: FastAPI, ada: Login, method: str) -> None:
    [latest, *_, first] = client.get("/tasks/mine", headers=ada.headers).json()["items"]
    statuses = {
        assert_same(client, app, method, f"/tasks/{task_id}", headers | tags)
        for task_id in (latest["id"], first["id"], MISSING, "x", "x/y", latest["id"].upper())
        for headers in ({}, ada.headers, {"Authorization": "Bearer x"}, {"Authorization": "Bearer"})
        for tags in ({}, {"If-None-Match": '"1"'}, {"If-None-Match": 'W/"1", "7"'}, {"If-None-Match": "*"})
    }
    assert statuses == {200, 304, 401, 404, 422}


def test_refusals_are_the_same(serve: Serve, app: FastAPI, ada: Login, clock: MovableClock) -> None:
    client = serve()
    client.post("/auth/revoke", data={"token": ada.refresh_token})
    assert assert_same(client, app, "GET", "/tasks/mine", ada.headers) == 401
    assert assert_same(client, app, "GET", "/tasks/mine?limit=0", ada.headers) == 401
    few = client.post("/auth/token", data={"username": "ada", "password": "correct horse battery", "scope": "account"})
    headers = {"Authorization": f"Bearer {few.json()['access_token']}"}
    assert assert_same(client, app, "GET", "/tasks/mine", headers) == 403
    assert assert_same(client, app, "GET", "/tasks/mine?limit=0", headers) == 403
    clock.move(hours=1)
    assert assert_same(client, app, "GET", "/tasks/public", headers) == 401


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_behind_a_prefix_they_are_the_same(serve: Serve, prefix: str) -> None:
    client = serve(root_path="/api")
    assert isinstance(client.app, FastAPI)
    login = sign_up(client)
    for n in range(2):
        create_task(client, login, f"Task {n}")
    assert assert_same(client, client.app, "GET", f"{prefix}/tasks/mine?limit=1", login.headers) == 200
    task_id = client.get("/tasks/mine", headers=login.headers).json()["items"][0]["id"]
    assert assert_same(client, client.app, "GET", f"{prefix}/tasks/{task_id}", login.headers) == 200


def test_an_overridden_dependency_is_obeyed(client: TestClient, app: FastAPI, ada: Login, clock: MovableClock) -> None:
    assert client.get("/tasks/mine", headers=ada.headers).status_code == 200
    app.dependency_overrides[get_now] = lambda: clock.now.replace(year=2030)

    assert client.get("/tasks/mine", headers=ada.headers).status_code == 401

    app.dependency_overrides.clear()
    assert client.get("/tasks/mine", headers=ada.headers).status_code == 200


def test_a_missing_right_is_reported_before_a_bad_body(client: TestClient, ada: Login) -> None:
    text = {"Content-Type": "text/plain"}
    few = client.post("/auth/token", data={"username": "ada", "password": PASSWORD, "scope": "tasks:read"})
    reader = bearer(few.json()["access_token"])
    client.post("/auth/revoke", data={"token": ada.refresh_token})
    for headers, status in (ada.headers, 401), (reader, 403):
        for more, body in ({}, "{}"), (text, "{}"), (text, "x"):
            assert client.post("/tasks/", headers=headers | more, content=body).status_code == status


def test_introspection_checks_the_caller_before_the_form(client: TestClient) -> None:
    assert client.post("/auth/introspect", data={"token": ""}).status_code == 401
