"""A line for each request: what became of it, and nothing of what was sent."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from starlette.responses import StreamingResponse
from starlette.types import Message

from app.config import Settings
from app.main import create_app
from tests.conftest import CHEAP, Serve, Sql, on_one_database
from tests.support.accounts import PASSWORD, bearer, sign_up

Lines = Callable[[], list[dict[str, Any]]]

CANARY = "canary"
NOBODY = {"user_id": None, "session_id": None}
FROM = {"event": "request", "request_id": "test", "ip": "testclient"}


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Lines]:
    """The requests logged since it was last asked, less their times, which are checked."""
    caplog.set_level(logging.INFO, "app.http.request_log")

    def read() -> list[dict[str, Any]]:
        found = [json.loads(record.getMessage()) for record in caplog.records if record.name == "app.http.request_log"]
        caplog.clear()
        for line in found:
            assert abs(datetime.fromisoformat(line.pop("time")) - datetime.now(UTC)) < timedelta(minutes=1)
            assert 0 <= line.pop("ms") < 60_000
        return found

    yield read
    assert CANARY not in caplog.text


def line(method: str, route: str | None, status: int | None, whose: dict[str, Any] = NOBODY) -> dict[str, Any]:
    return FROM | whose | {"method": method, "route": route, "status": status}


@on_one_database
def test_a_line_has_the_route_and_who_asked_never_what(client: TestClient, lines: Lines) -> None:
    login = sign_up(client)
    claims = jwt.decode(login.access_token, options={"verify_signature": False})
    ada = {"user_id": claims["sub"], "session_id": claims["sid"]}
    lines()

    client.get("/tasks/", params={"access_token": CANARY}, headers=login.headers)
    client.head(f"/tasks/{CANARY}")
    client.post("/tasks/", headers=login.headers, json={"title": 1})
    client.get("/tasks/mine", headers=bearer(CANARY))
    client.get(f"/{CANARY}")
    client.put("/tasks/")
    client.get("/docs/files/favicon.png")

    assert lines() == [
        line("GET", "/tasks", 422, ada),
        line("HEAD", "/tasks/{task_id}", 422),
        line("POST", "/tasks", 422, ada),
        line("GET", "/tasks/mine", 401),
        line("GET", None, 404),
        line("PUT", "/tasks", 405),
        line("GET", "/docs/files/{path}", 200),
    ]


@on_one_database
def test_the_route_is_named_as_it_is_included_and_mounted(settings: Settings, lines: Lines) -> None:
    app, mounted, router = create_app(settings, password_cost=CHEAP), FastAPI(), APIRouter(prefix="/plants")
    router.get("/{name}")(lambda name: name)
    app.get("/own/{name}")(lambda name: name)
    mounted.get("/own/{name}")(lambda name: name)
    mounted.include_router(router, prefix="/v1")
    app.include_router(router, prefix="/v2")
    app.mount("/mounted", mounted)
    holder = APIRouter()
    holder.mount("/held", mounted)
    app.include_router(holder, prefix="/v3")

    with TestClient(app) as client:
        for path in "/own", "/mounted/own", "/mounted/v1/plants", "/v2/plants", "/v3/held/own":
            assert client.get(f"{path}/{CANARY}").status_code == 200
        client.get(f"/mounted/{CANARY}")

    assert [line["route"] for line in lines()] == [
        *("/own/{name}", "/mounted/own/{name}", "/mounted/v1/plants/{name}", "/v2/plants/{name}"),
        *("/v3/held/own/{name}", "/mounted/{path}"),
    ]


@on_one_database
def test_the_request_log_can_be_off_while_metrics_are_on(serve: Serve, lines: Lines) -> None:
    serve(log_requests=False).get("/tasks/")
    client = serve(log_requests=False, metrics=True)
    client.get("/tasks/")

    assert lines() == []
    assert 'count{method="GET",route="/tasks",status="200"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # the other one is everybody's
def test_probes_and_scrapes_are_told_only_when_they_fail(serve: Serve, sql: Sql, lines: Lines) -> None:
    client = serve(metrics=True)
    for path in "/health/live", "/health/ready", "/metrics":
        assert client.get(path).status_code == 200
    assert lines() == []

    sql("UPDATE alembic_version SET version_num = '0001'")
    assert client.get("/health/ready").status_code == 503

    assert lines() == [line("GET", "/health/ready", 503)]


@on_one_database
def test_a_request_refused_by_the_limits_has_no_route(client: TestClient, lines: Lines) -> None:
    client.get("/tasks/", params={"x": CANARY * 2000})

    assert lines() == [line("GET", None, 414)]


@on_one_database
def test_an_unexpected_error_is_a_500(settings: Settings, lines: Lines) -> None:
    def broken_clock() -> datetime:
        raise LookupError(CANARY)

    app = create_app(settings, clock=broken_clock, password_cost=CHEAP)
    with TestClient(app, raise_server_exceptions=False, headers={"X-Request-ID": "test"}) as client:
        client.get("/tasks/", headers=bearer("x"))
        client.post("/users", json={"username": "ada", "password": PASSWORD})

    assert lines() == [line("GET", "/tasks", 500), line("POST", "/users", 500)]


@on_one_database
def test_an_answer_that_breaks_off_is_told_so(settings: Settings, lines: Lines) -> None:
    async def halves() -> AsyncIterator[bytes]:
        yield b"half"
        raise LookupError

    app = create_app(settings, password_cost=CHEAP)
    app.add_api_route("/halves", lambda: StreamingResponse(halves()))
    with TestClient(app, raise_server_exceptions=False, headers={"X-Request-ID": "test"}) as client:
        client.get("/halves")

    assert lines() == [line("GET", "/halves", 200) | {"reason": "broken off"}]


@on_one_database
def test_a_client_that_left_during_the_body_has_no_status(settings: Settings, lines: Lines) -> None:
    app = create_app(settings.model_copy(update={"metrics": True}), password_cost=CHEAP)

    async def leave() -> Message:
        return {"type": "http.disconnect"}

    asyncio.run(app(scope(app, "POST", "/users"), leave, unheard))

    assert lines() == [line("POST", "/users", None) | {"reason": "broken off"}]
    assert b'count{method="POST",route="/users",status="none"} 1.0' in app.state.metrics.text()


def scope(app: FastAPI, method: str, path: str) -> dict[str, Any]:
    headers = [(b"host", b"a"), (b"content-type", b"application/json"), (b"x-request-id", b"test")]
    asked = {"type": "http", "http_version": "1.1", "scheme": "http", "method": method, "path": path}
    return asked | {"query_string": b"", "headers": headers, "client": ("testclient", 1)}


async def unheard(message: Message) -> None:
    raise AssertionError(message)
