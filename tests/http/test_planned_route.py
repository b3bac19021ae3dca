"""The fast path answers as FastAPI's own way does, to the byte, and stands aside where it must."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.testclient import TestClient
from pydantic import AliasChoices, BaseModel

from app.clock import get_now
from app.http.planned_route import PlannedRoute, plan_for
from app.http.query import Handler
from app.main import create_app
from tests.conftest import CHEAP, SECRET, MovableClock, Serve, on_one_database
from tests.support.accounts import PASSWORD, Login, bearer, create_task, sign_up
from tests.support.processes import environment

pytestmark = on_one_database

PLANNED = {
    *("/auth/introspect", "/auth/revoke", "/auth/sessions", "/auth/token", "/auth/tokens", "/users"),
    "/users/me/events",
    *("/tasks", "/tasks/mine", "/tasks/public", "/tasks/{task_id}"),
}
LISTS = sorted(
    {
        path + slash
        for path in PLANNED
        if path.startswith(("/auth/s", "/tasks")) and "{" not in path
        for slash in ("", "/")
    }
)
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
    routes = [route for route in iter_route_contexts(app.routes) if isinstance(route.original_route, PlannedRoute)]

    assert {route.path for route in routes if plan_for(route)} == PLANNED


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


class Refused(Exception): ...


class Stamp:
    """Makes a route class that adds a header to each answer."""

    def get_route_handler(self) -> Handler:
        handle: Handler = super().get_route_handler()  # type: ignore[misc]

        async def stamp(request: Request) -> Response:
            response = await handle(request)
            response.headers["X-Stamp"] = "yes"
            return response

        return stamp


class StampedRoute(Stamp, APIRoute): ...


class StampedPlannedRoute(Stamp, PlannedRoute): ...


async def get_colour() -> str:
    return "red"


@pytest.mark.parametrize("route_class", [StampedRoute, StampedPlannedRoute])
def test_handlers_route_classes_and_overrides_are_obeyed(
    settings: Any, clock: MovableClock, route_class: type[APIRoute]
) -> None:
    app = create_app(settings, clock=clock, password_cost=CHEAP)
    router = APIRouter(prefix="/own", route_class=route_class)

    @router.get("/dict")
    async def answer_dict(colour: str = Depends(get_colour)) -> dict[str, str]:
        return {"colour": colour}

    @router.get("/response")
    async def answer_response(colour: str = Depends(get_colour)) -> Response:
        return JSONResponse({"colour": colour})

    @router.get("/refused/dict")
    async def refuse_dict() -> dict[str, str]:
        raise Refused

    @router.get("/refused/response")
    async def refuse_response() -> Response:
        raise Refused

    app.include_router(router, prefix="/v1")

    @app.exception_handler(Refused)
    async def handle(request: Request, error: Refused) -> Response:
        return JSONResponse({"refused": True}, 418)

    with TestClient(app) as client:
        for kind in "dict", "response":
            answer = client.get(f"/v1/own/{kind}")
            assert (answer.status_code, answer.json(), answer.headers["X-Stamp"]) == (200, {"colour": "red"}, "yes")
            refused = client.get(f"/v1/own/refused/{kind}")
            assert (refused.status_code, refused.json()) == (418, {"refused": True})
        app.dependency_overrides[get_colour] = lambda: "blue"
        for kind in "dict", "response":
            assert client.get(f"/v1/own/{kind}").json() == {"colour": "blue"}


def test_a_route_that_no_router_includes_has_a_plan(settings: Any) -> None:
    app = create_app(settings, password_cost=CHEAP)

    async def answer(colour: str) -> Response:
        return Response(colour)

    app.router.add_api_route("/own", answer, route_class_override=PlannedRoute)
    app.router.routes.append(PlannedRoute("/alone", answer))

    with TestClient(app) as client:
        for path in "/own", "/alone":
            assert client.get(f"{path}?colour=red").text == "red"
            assert client.get(f"{path}?colour=red&color=blue").status_code == 422


def test_dependencies_of_an_inclusion_and_limits_are_obeyed(settings: Any) -> None:
    app = create_app(settings, password_cost=CHEAP)
    router = APIRouter(route_class=PlannedRoute)

    @router.get("/included")
    async def answer_included() -> Response:
        raise AssertionError("the dependency of the inclusion was not called")

    async def refuse() -> None:
        raise HTTPException(418)

    async def echo(request: Request) -> Response:
        return Response(await request.body())

    app.include_router(router, dependencies=[Depends(refuse)])
    app.router.routes.append(PlannedRoute("/limited", echo, methods=["POST"], max_body_size=3))

    with TestClient(app) as client:
        assert client.get("/included").status_code == 418
        assert client.post("/limited", content="red").text == "red"
        assert client.post("/limited", content="green").status_code == 413
        assert client.get("/limited").status_code == 405


class Tracing(BaseModel):
    trace_id: str = "none"


async def answer_headers(headers: Annotated[Tracing, Header()]) -> Response:
    return Response(headers.trace_id)


TraceId = Annotated[str, Header(validation_alias=AliasChoices("x-trace", "x-id"))]


async def answer_aliased(trace: TraceId = "") -> Response:
    return Response(trace)


async def answer_labels(labels: Annotated[list[str], Query()] = []) -> Response:  # noqa: B006 - FastAPI copies it
    labels.append("seen")
    return Response(",".join(labels))


def test_inputs_are_what_fastapi_gives(settings: Any) -> None:
    app = create_app(settings, password_cost=CHEAP)
    for endpoint in answer_headers, answer_aliased, answer_labels:
        app.router.add_api_route(f"/{endpoint.__name__}", endpoint, route_class_override=PlannedRoute)

    with TestClient(app) as client:
        for _ in range(2):
            assert client.get("/answer_labels").text == "seen"
        assert client.get("/answer_headers").text == "none"
        assert client.get("/answer_headers", headers={"Trace-Id": "7"}).text == "7"
        for name in "X-Trace", "X-Id":
            assert client.get("/answer_aliased", headers={name: "7"}).text == "7"


ANOTHER_FASTAPI = """
import fastapi.dependencies.models
del fastapi.dependencies.models._get_cache_key

from fastapi.testclient import TestClient
from app.config import read_settings
from app.main import create_app

with TestClient(create_app(read_settings())) as client:
    ada = {"username": "ada", "password": "correct horse battery"}
    assert client.post("/users/", json=ada).status_code == 201
    token = client.post("/auth/token", data=ada).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert client.post("/tasks", json={"title": "Water"}, headers=headers).status_code == 201
    assert client.post("/tasks", json={"titel": "Water"}, headers=headers).status_code == 422
    [task] = client.get("/tasks/mine?limit=1", headers=headers).json()["items"]
    assert task["title"] == "Water"
    assert client.get(f"/tasks/{task['id']}", headers=headers).json() == task
    assert client.get("/tasks/mine?limit=0", headers=headers).status_code == 422
    assert client.get("/tasks/mine").status_code == 401
    assert client.get("/tasks/mine?unknown=1", headers=headers).status_code == 200
    assert 'route="/tasks/{task_id}",status="200"} 1.0' in client.get("/metrics").text

from app.__main__ import cli
cli(["check"])
"""


def test_another_fastapi_serves_plainly_and_check_says_so(sqlite_url: str) -> None:
    settings = {"database_url": sqlite_url, "secret_key": SECRET, "metrics": True, "public_url": "http://127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER_FASTAPI],
        check=False,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.stderr == ""
    assert done.stdout.splitlines()[0].startswith("- This version of FastAPI is not known")
