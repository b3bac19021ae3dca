"""ROOT_PATH: every path answers under the prefix and without it, and what is sent out carries it."""

import re
from datetime import datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.auth.schemas import SCOPES
from app.config import Settings
from app.main import create_app
from tests.conftest import CHEAP, MovableClock, Serve, on_one_database
from tests.support.accounts import PASSWORD, bearer, create_task, register, sign_up
from tests.support.oauth_errors import assert_oauth_error

pytestmark = on_one_database


@pytest.fixture
def client(serve: Serve) -> TestClient:
    return serve(root_path="/api")


@pytest.mark.parametrize("prefix", ["/api", ""], ids=["under the prefix", "stripped by the proxy"])
def test_a_login_and_a_task_work(client: TestClient, prefix: str) -> None:
    register(client)
    form = {"username": "ada", "password": PASSWORD}

    login = client.post(f"{prefix}/auth/token", data=form)
    made = client.post(f"{prefix}/tasks", json={"title": "Water"}, headers=bearer(login.json()["access_token"]))
    read = client.get(f"{prefix}/tasks/", headers=bearer(login.json()["access_token"]))

    assert [login.status_code, made.status_code, read.status_code] == [200, 201, 200]
    assert read.json() == {"items": [made.json()], "next_cursor": None}
    assert made.headers["Location"] == f"/api/tasks/{made.json()['id']}"
    assert client.get(made.headers["Location"], headers=bearer(login.json()["access_token"])).json() == made.json()


def test_every_operation_answers_the_same_with_and_without(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operations = [(method, path) for path, methods in document["paths"].items() for method in methods]

    differ = []
    for method, path in operations:
        url = re.sub(r"\{\w+\}", "019ab000-0000-7000-8000-000000000001", path)
        bare, under = client.request(method, url), client.request(method, f"/api{url}")
        if (bare.status_code, bare.content) != (under.status_code, under.content):
            differ.append((method, path, bare.status_code, under.status_code))

    assert ("post", "/auth/token") in operations
    assert differ == []


@pytest.mark.parametrize("prefix", ["/api", ""])
def test_a_link_to_the_next_page_carries_the_prefix_and_works(
    client: TestClient, clock: MovableClock, prefix: str
) -> None:
    login, titles = sign_up(client), ["one", "two", "three"]
    for title in titles:
        create_task(client, login, title)
        clock.move(seconds=1)

    url, seen = f"{prefix}/tasks/mine?limit=2&sort=created_at", []
    while url:
        page = client.get(url, headers=login.headers)
        seen += [task["title"] for task in page.json()["items"]]
        url = page.links["next"]["url"] if "next" in page.links else ""
        assert url == "" or url.startswith("/api/tasks/mine?limit=2&sort=created_at&cursor=")

    assert seen == titles


def test_the_docs_log_in_behind_the_prefix(client: TestClient) -> None:
    for prefix in "/api", "":
        document: dict[str, Any] = client.get(f"{prefix}/openapi.json").json()
        assert document["servers"] == [{"url": "/api"}]
        scheme = document["components"]["securitySchemes"]["OAuth2PasswordBearer"]
        flow = scheme["flows"]["password"]
        assert (flow["tokenUrl"], flow["refreshUrl"]) == ("auth/token", "auth/token")
        assert [*flow["scopes"]] == [*SCOPES]


@pytest.mark.parametrize(
    "path", ["/apitasks", "/apitasks/", "/api-tasks", "/api", "/api/api/tasks/", "/tasks/api/", "/API/tasks/"]
)
def test_a_path_that_only_looks_like_the_prefix_is_not_found(client: TestClient, path: str) -> None:
    response = client.get(path)

    assert (response.status_code, response.json()) == (404, {"detail": "Not Found", "code": "not_found"})


def test_without_a_prefix_there_is_none(serve: Serve) -> None:
    client = serve()
    login = sign_up(client)

    assert client.get("/api/tasks/").status_code == 404
    assert client.get("/openapi.json").json()["servers"] == [{"url": "/"}]
    made = client.post("/tasks/", json={"title": "Water"}, headers=login.headers)
    assert made.headers["Location"] == f"/tasks/{made.json()['id']}"


def test_a_prefix_of_several_segments_works(serve: Serve) -> None:
    client = serve(root_path="/a/b")

    assert client.get("/a/b/tasks/").status_code == 200
    assert client.get("/a/tasks/").status_code == 404
    assert client.get("/a/b/openapi.json").json()["servers"] == [{"url": "/a/b"}]


@pytest.mark.parametrize("prefix", ["/api", ""])
def test_oauth_errors_keep_their_shape_under_the_prefix(client: TestClient, prefix: str) -> None:
    """A form endpoint answers with OAuth's fields."""
    refused = client.post(f"{prefix}/auth/token", data={"username": "ada"})
    large = client.post(f"{prefix}/auth/token", content=b"x" * (128 * 1024 + 1))

    assert_oauth_error(refused, "invalid_request")
    assert_oauth_error(large, "invalid_request", 413)


@pytest.mark.parametrize("prefix", ["/api", ""])
def test_unexpected_errors_keep_their_shape_under_the_prefix(settings: Settings, prefix: str) -> None:
    """A form endpoint answers with OAuth's fields."""

    def broken_clock() -> datetime:
        raise LookupError("canary")

    app = create_app(settings.model_copy(update={"root_path": "/api"}), clock=broken_clock, password_cost=CHEAP)
    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.post(f"{prefix}/auth/token", data={"username": "ada", "password": PASSWORD})

    assert response.status_code == 500
    assert response.json() == {
        "detail": "Internal Server Error",
        "code": "internal_error",
        "error": "server_error",
        "error_description": "Internal Server Error",
    }
