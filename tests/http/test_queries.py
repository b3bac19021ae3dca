"""Query parameters: a route refuses those that it does not know or gets twice, lest a mistyped filter shows all."""

import re
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import quote

import pytest
from fastapi import APIRouter, Depends, FastAPI, Query, Security
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field

from app.auth.dependencies import get_current_user
from app.config import Settings
from app.http.router import SafeRoute
from app.main import create_app
from app.testing import assert_bearer_error
from tests.conftest import CHEAP, MovableClock, Sql, on_one_database
from tests.support.accounts import EVERY_SCOPE, Login, create_task, log_in, register, sign_up
from tests.support.oauth_errors import assert_oauth_error
from tests.support.operations import GOOD_BODIES

pytestmark = on_one_database

CANARY = "canary7Q"
ID = "01890000-0000-7000-8000-000000000000"
LENIENT = {"/health/live", "/health/ready"}
FORMS = {"/auth/token", "/auth/revoke", "/auth/introspect"}


@pytest.fixture
def ada(client: TestClient, sql: Sql) -> Login:
    """She is an administrator."""
    register(client)
    sql("UPDATE users SET is_admin = TRUE")
    return log_in(client, scope=EVERY_SCOPE)


def operations(client: TestClient) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        yield from ((method, path, operation) for method, operation in methods.items() if path not in LENIENT)


def test_the_table_has_a_body_for_each_operation_that_needs_one(client: TestClient) -> None:
    missing = [
        (method, path)
        for method, path, operation in operations(client)
        if operation.get("requestBody", {}).get("required") and (method, path) not in GOOD_BODIES
    ]

    assert not missing, f"tests/support/operations.py lacks {missing}: add a good body for each to GOOD_BODIES"


def url_of(path: str) -> str:
    return re.sub(r"\{\w+\}", ID, path)


def test_every_operation_refuses_unknown_parameters(
    client: TestClient, ada: Login, sql: Sql, subtests: pytest.Subtests
) -> None:
    before = [sql(f"SELECT * FROM {table}") for table in ("users", "sessions", "tasks")]

    for method, path, _ in operations(client):
        with subtests.test(f"{method} {path}"):
            body = GOOD_BODIES.get((method, path), {})
            response = client.request(method, f"{url_of(path)}?{CANARY}={CANARY}", headers=ada.headers, **body)

            assert CANARY not in f"{response.text}{response.headers}"
            if path in FORMS:
                assert_oauth_error(response, "invalid_request")
            else:
                assert response.status_code == 422
                assert response.json() == {
                    "detail": [{"type": "extra_forbidden", "loc": ["query"], "msg": "Unknown parameter"}],
                    "code": "invalid_input",
                }

    assert [sql(f"SELECT * FROM {table}") for table in ("users", "sessions", "tasks")] == before


def test_the_caller_is_told_who_may_ask_before_what_is_unknown(client: TestClient, subtests: pytest.Subtests) -> None:
    reader = sign_up(client)
    client.post("/auth/revoke", data={"token": reader.access_token})

    for method, path, operation in operations(client):
        body = GOOD_BODIES.get((method, path), {})
        url = f"{url_of(path)}?{CANARY}=1"
        if operation["security"] and path not in FORMS:
            with subtests.test(f"{method} {path}"):
                assert_bearer_error(client.request(method, url, headers=reader.headers, **body), "invalid_token")
                if {} not in operation["security"]:
                    assert_bearer_error(client.request(method, url, **body), None)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("stauts=done", "Unknown parameter; did you mean status?"),
        ("Due_Before=2026-11-23T09:00:00Z", "Unknown parameter; did you mean due_before?"),
        ("status[]=done", "Unknown parameter; did you mean status?"),
        ("limitt=1", "Unknown parameter; did you mean limit?"),
        ("page=2", "Unknown parameter"),
        ("=1", "Unknown parameter"),
        ("limit" * 7, "Unknown parameter"),
    ],
)
def test_the_nearest_known_parameter_is_offered(client: TestClient, query: str, message: str) -> None:
    response = client.get(f"/tasks/public?{query}")

    assert response.status_code == 422
    assert response.json()["detail"] == [{"type": "extra_forbidden", "loc": ["query"], "msg": message}]


@pytest.mark.parametrize("path", ["/tasks", "/tasks/", "/tasks/mine", "/auth/sessions", "/users"])
def test_a_parameter_comes_once(client: TestClient, ada: Login, path: str) -> None:
    for query in "limit=1&limit=1", "limit=1&cursor=x&limit=2", "cursor=&limit=1&cursor=":
        response = client.get(f"{path}?{query}", headers=ada.headers)

        name = "limit" if query.count("limit") > 1 else "cursor"
        assert response.status_code == 422
        assert {"type": "repeated", "loc": ["query", name], "msg": "must be given once"} in response.json()["detail"]


@pytest.mark.parametrize("limit", ["1_0", " 5", "5 ", "+5", "1.0", "1e1", "0x10", "\uff15", "", "9" * 20])
def test_a_number_is_written_in_digits(client: TestClient, limit: str) -> None:
    response = client.get(f"/tasks/public?limit={quote(limit)}")

    assert response.status_code == 422
    assert [fault["loc"] for fault in response.json()["detail"]] == [["query", "limit"]]


def test_there_are_64_parameters_at_most(client: TestClient) -> None:
    few, many = (client.get("/tasks/public?" + "&".join(f"x{n}=1" for n in range(count))) for count in (64, 65))

    assert len(few.json()["detail"]) == 64
    assert [fault["loc"] for fault in many.json()["detail"]] == [["query"]]
    assert many.json()["detail"][0]["msg"] == "must have at most 64 parameters"


@pytest.mark.parametrize("path", [*sorted(LENIENT), "/docs", "/redoc", "/openapi.json", "/metrics"])
def test_probes_and_pages_ignore_the_query(settings: Settings, path: str) -> None:
    app = create_app(settings.model_copy(update={"metrics": True}), password_cost=CHEAP)

    with TestClient(app) as client:
        assert client.get(f"{path}?{CANARY}=1&{CANARY}=2").status_code == 200


class Kinds(BaseModel):
    kind: list[str] = []
    colour: Annotated[str, Field(alias="color")] = ""


def get_sizes(size: Annotated[list[int] | None, Query()] = None) -> list[int]:
    return size or []


@pytest.fixture
def plants(settings: Settings, clock: MovableClock) -> Iterator[TestClient]:
    """A product's own routes: `/plants` is open; `/kept/plants` is for users, as its room is included."""
    router = APIRouter(route_class=SafeRoute)

    @router.get("/plants")
    def read_plants(kinds: Annotated[Kinds, Query()], sizes: Annotated[list[int], Depends(get_sizes)]) -> list[Any]:
        return [kinds.kind, kinds.colour, sizes]

    @router.get("/plants/stream")
    def stream_plants() -> Iterator[int]:
        yield from (1, 2)

    app: FastAPI = create_app(settings, clock=clock, password_cost=CHEAP)
    app.include_router(router)
    app.include_router(router, prefix="/kept", dependencies=[Security(get_current_user, scopes=["account"])])
    with TestClient(app) as client:
        yield client


def test_a_product_s_route_knows_its_parameters(plants: TestClient) -> None:
    assert plants.get("/plants?kind=a&kind=b&color=red&size=1&size=2").json() == [["a", "b"], "red", [1, 2]]
    assert plants.get("/plants?color=red&color=blue").status_code == 422
    assert plants.get("/plants?colour=red").json()["detail"][0]["msg"] == "Unknown parameter; did you mean color?"
    assert plants.get("/plants?sizes=1").json()["detail"][0]["msg"] == "Unknown parameter; did you mean size?"
    assert plants.get("/plants/stream").text == "1\n2\n"
    assert plants.get("/plants/stream?x=1").status_code == 422


def test_a_product_s_included_route_checks_the_caller_first(plants: TestClient) -> None:
    login = sign_up(plants)

    assert_bearer_error(plants.get("/kept/plants?x=1"), None)
    assert plants.get("/kept/plants?x=1", headers=login.headers).status_code == 422
    assert plants.get("/kept/plants?kind=a", headers=login.headers).status_code == 200


def test_both_ways_refuse_alike(client: TestClient, ada: Login) -> None:
    create_task(client, ada)
    app: Any = client.app
    queries = ["?x=1", "?limit=1&limit=1", "?stauts=done&limit=0", f"?{CANARY}"]

    short = [client.get(f"/tasks/mine{query}", headers=ada.headers).content for query in queries]
    app.dependency_overrides[object] = object  # FastAPI's way alone
    whole = [client.get(f"/tasks/mine{query}", headers=ada.headers).content for query in queries]
    app.dependency_overrides.clear()

    assert short == whole
