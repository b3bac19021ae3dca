"""The OpenAPI document: what it says of errors, tokens, servers and tags."""

import json
from collections.abc import Iterator
from itertools import chain
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
    "503": {
        *("database_unavailable", "database_read_only", "database_is_standby", "database_forbidden"),
        *("database_not_utf8", "pooler_forgets", "pooler_refuses", "schema_behind", "shutting_down"),
        *("database_damaged", "database_file_gone", "database_file_replaced"),
    },
}
FORMS = {"/auth/token", "/auth/revoke", "/auth/introspect"}
OPEN = {
    *("issue_token", "revoke_token", "read_metadata", "read_keys"),
    *("register", "reset_password", "verify_email", "forgot_password", "live", "ready"),
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


def errors(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The errors of an operation, by their statuses, whether or not they are shared."""
    shared = {f"#/components/responses/{name}": answer for name, answer in document["components"]["responses"].items()}
    for status, answer in operation["responses"].items():
        if status.startswith(("4", "5")):
            yield status, shared.get(answer.get("$ref"), answer)


def codes(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, set[str]]:
    return {
        status: set(answer["content"]["application/json"]["schema"]["properties"]["code"]["enum"])
        for status, answer in errors(document, operation)
    }


def test_every_operation_lists_the_common_status_codes(document: dict[str, Any]) -> None:
    for path, operation in operations(document):
        listed = codes(document, operation)

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
        (
            "/auth/token",
            "post",
            {"401": {"invalid_credentials", "invalid_one_time_code"}, "429": {"too_many_attempts"}},
        ),
        ("/auth/introspect", "post", {"401": {"invalid_token", "not_authenticated"}}),
    ],
)
def test_an_operation_lists_its_own_codes(
    document: dict[str, Any], path: str, method: str, expected: dict[str, set[str]]
) -> None:
    listed = codes(document, document["paths"][path][method])

    assert {status: listed[status] for status in expected} == expected


def test_every_operation_says_whom_it_is_open_to(document: dict[str, Any]) -> None:
    assert {each["operationId"] for _, each in operations(document) if each["security"] == []} == OPEN


def test_every_operation_with_a_token_takes_a_personal_one(document: dict[str, Any]) -> None:
    """Tools offer a field for it then. The service reads both from the same header."""
    schemes = [{*chain(*each["security"])} for _, each in operations(document)]

    assert document["components"]["securitySchemes"]["PersonalToken"]["scheme"] == "bearer"
    assert [each for each in schemes if each not in (set(), {"OAuth2PasswordBearer", "PersonalToken"})] == []


def test_the_document_pleases_linters(document: dict[str, Any]) -> None:
    tags = [tag["name"] for tag in document["tags"]]

    assert (tags[:3], tags[-1]) == (["auth", "users", "tasks"], "health")
    assert all(tag["description"].endswith(".") for tag in document["tags"])
    assert {tag for _, operation in operations(document) for tag in operation["tags"]} == set(tags)
    assert document["info"]["license"] == {"name": "MIT", "identifier": "MIT"}
    assert document["servers"] == [{"url": "/"}]
    assert [path for path in document["paths"] if path.endswith("/")] == []


def test_each_code_has_its_real_text_as_the_example(document: dict[str, Any]) -> None:
    for path, operation in operations(document):
        for _, answer in errors(document, operation):
            content = answer["content"]["application/json"]
            bodies = {code: example["value"] for code, example in content["examples"].items()}

            assert [*bodies] == content["schema"]["properties"]["code"]["enum"]
            assert all(body["code"] == code for code, body in bodies.items())
            assert all(("error" in body) == (path in FORMS) for body in bodies.values())
    found = document["components"]["responses"]["TaskNotFound"]["content"]["application/json"]["examples"]
    assert found == {"task_not_found": {"value": {"detail": "Task not found", "code": "task_not_found"}}}


def test_an_error_of_several_operations_is_there_once(document: dict[str, Any]) -> None:
    answers = [
        json.dumps(answer)
        for _, operation in operations(document)
        for status, answer in operation["responses"].items()
        if "$ref" not in answer and status[0] in "45d"
    ]

    assert len(answers) == len(set(answers))
    assert set(document["components"]["responses"]) > {"BodyTooLarge", "OAuthBodyTooLarge", "InternalError"}


def test_summaries_are_sentences(document: dict[str, Any]) -> None:
    summaries = {operation["operationId"]: operation["summary"] for _, operation in operations(document)}

    assert summaries["live"] == "Check that the process serves"
    assert summaries["change_profile"] != "Change Profile"
    assert [text for text in summaries.values() if not text[0].isupper() or text.endswith(".") or "\n" in text] == []
    assert "grant_type=refresh_token" in document["info"]["description"]


def test_an_endpoint_without_a_docstring_has_a_summary() -> None:
    app = create_app(Settings(database_url="sqlite:///./unused.db"), password_cost=CHEAP)

    @app.get("/plants")
    def list_plants() -> None: ...

    assert app.openapi()["paths"]["/plants"]["get"]["summary"] == "List Plants"


def test_examples_of_changes_do_no_harm(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    assert schemas["TaskUpdate"]["examples"] == [{"status": "done"}]
    for name in "TaskUpdate", "UserUpdate", "UserChange":
        assert all(example.keys() <= schemas[name]["properties"].keys() for example in schemas[name]["examples"])
    bodies = [schema for schema in schemas.values() if schema.get("additionalProperties") is False]
    texts = [part for schema in bodies for part in schema["properties"].values() if part.get("maxLength")]
    bare = [part for part in texts if not part.get("examples")]
    assert not bare, f"Field(examples=[...]) for these texts, or /docs offers noise to send: {bare}"
