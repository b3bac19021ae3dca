"""The OpenAPI document: what it says of errors, tokens, servers and tags."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.config import Settings
from app.main import create_app
from tests.conftest import CHEAP

EVERYWHERE = {
    "400": {"unknown_host"},
    "413": {"body_too_large"},
    "414": {"url_too_long"},
    "431": {"headers_too_large"},
    "500": {"internal_error"},
    "503": {"database_unavailable", "schema_behind", "shutting_down"},
}
FORMS = {"/auth/token", "/auth/revoke", "/auth/introspect"}
OPEN = {
    *("issue_token", "revoke_token", "read_metadata", "read_keys"),
    *("register", "reset_password", "live", "ready"),
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    client = TestClient(create_app(Settings(database_url="sqlite:///./unused.db"), password_cost=CHEAP))
    answers = [client.get("/openapi.json").json() for _ in range(2)]
    assert answers[0] == answers[1]
    document: dict[str, Any] = answers[0]
    return document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        yield from ((path, operation) for operation in methods.values())


def codes(operation: dict[str, Any]) -> dict[str, set[str]]:
    return {
        status: set(response["content"]["application/json"]["schema"]["properties"]["code"]["enum"])
        for status, response in operation["responses"].items()
        if status.startswith(("4", "5"))
    }


def test_every_operation_lists_the_common_status_codes(document: dict[str, Any]) -> None:
    for path, operation in operations(document):
        listed = codes(operation)

        for status, expected in EVERYWHERE.items():
            assert listed[status] >= expected
        assert "invalid_input" in listed["400" if path in FORMS else "422"]
        assert ("invalid_json" in listed.get("422", ())) == (
            "application/json" in operation.get("requestBody", {}).get("content", {})
        )
        assert ("unsupported_media_type" in listed.get("415", ())) == ("invalid_json" in listed.get("422", ()))
        of_bodies = {"unsupported_content_encoding", "body_too_slow"} & {*listed.get("415", ()), *listed.get("408", ())}
        assert len(of_bodies) == (2 if "requestBody" in operation else 0)


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [
        ("/tasks", "get", {"401": {"invalid_token"}, "422": {"invalid_input", "bad_cursor"}}),
        ("/tasks", "post", {"422": {"invalid_input", "invalid_json", "idempotency_key_reused"}}),
        ("/tasks/mine", "get", {"401": {"invalid_token", "not_authenticated"}, "403": {"insufficient_scope"}}),
        ("/tasks/{task_id}", "patch", {"404": {"task_not_found"}, "412": {"task_changed"}}),
        ("/users", "post", {"403": {"registration_closed"}, "409": {"username_taken"}}),
        ("/users/me/password", "put", {"403": {"insufficient_scope", "wrong_password"}}),
        ("/auth/token", "post", {"401": {"invalid_credentials"}, "429": {"too_many_attempts"}}),
        ("/auth/introspect", "post", {"401": {"invalid_token", "not_authenticated"}}),
    ],
)
def test_an_operation_lists_its_own_codes(
    document: dict[str, Any], path: str, method: str, expected: dict[str, set[str]]
) -> None:
    listed = codes(document["paths"][path][method])

    assert {status: listed[status] for status in expected} == expected


def test_every_operation_says_whom_it_is_open_to(document: dict[str, Any]) -> None:
    assert {each["operationId"] for _, each in operations(document) if each["security"] == []} == OPEN


def test_the_document_pleases_linters(document: dict[str, Any]) -> None:
    tags = [tag["name"] for tag in document["tags"]]

    assert tags == ["auth", "users", "tasks", "health"]
    assert all(tag["description"].endswith(".") for tag in document["tags"])
    assert {tag for _, operation in operations(document) for tag in operation["tags"]} == set(tags)
    assert document["info"]["license"] == {"name": "MIT", "identifier": "MIT"}
    assert document["servers"] == [{"url": "/"}]
    assert [path for path in document["paths"] if path.endswith("/")] == []
