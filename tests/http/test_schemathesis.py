"""Schemathesis: what the OpenAPI document promises holds for generated requests, and for sequences of them."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest
from fastapi import FastAPI

from app.config import Settings
from app.main import create_app
from tests.conftest import CHEAP, MovableClock, Serve, Sql, on_one_database
from tests.support.fuzzer import Administrator, Deviation, Fuzzer, Report

Fuzz = Callable[..., Fuzzer]

BOUNDARIES: Final = {"fuzzing": {"enabled": False}}
FUZZING: Final = {"examples": {"enabled": False}, "coverage": {"enabled": False}}
AUTHENTICATED: Final[dict[str, Any]] = {"with-security-parameters": False}
"""Spend no examples on bad tokens: those of the boundaries will do."""
UNTHROTTLED = {"login_failures": 1_000_000, "registration_limit": 0}
TASK_LISTS = ["GET /tasks", "GET /tasks/mine", "GET /tasks/public"]
CHANGES = ["PATCH /tasks/{task_id}", "DELETE /tasks/{task_id}"]
NOT_AN_ID = "422 path.task_id: String should match pattern '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'"
YEARS = "must be in the years 1970 to 9998 in UTC"

DEVIATIONS = [
    Deviation(
        "positive_data_acceptance",
        None,
        ["422 query.cursor: is not a cursor of this list, sort and filter"],
        "A cursor is opaque: no schema can tell those that a list has given from others.",
    ),
    Deviation(
        "positive_data_acceptance",
        [*TASK_LISTS, "POST /tasks", "PATCH /tasks/{task_id}"],
        [f"422 {place}: {YEARS}" for place in ("query.due_before", "query.due_after", "body.due_at")],
        "The format date-time has no bounds, and a pattern cannot count in UTC.",
    ),
    Deviation(
        "positive_data_acceptance",
        ["POST /tasks"],
        ["422 header.Idempotency-Key: was used with another body"],
        "What the contract says of a key that comes with another body; what came before is in no schema.",
    ),
    Deviation(
        "positive_data_acceptance",
        ["POST /users/reset-password"],
        ["400 The reset token is invalid or has expired"],
        "No schema can tell tokens that we have signed from others.",
    ),
    Deviation(
        "positive_data_acceptance",
        ["PATCH /users/{user_id}", "DELETE /users/{user_id}", "DELETE /users/me"],
        ["409 The last administrator cannot be removed"],
        "What there is besides is in no schema.",
        is_rare=True,
    ),
    Deviation(
        "positive_data_acceptance",
        CHANGES,
        ["412 The task has changed since the ETag in If-Match"],
        "The request itself asks to be refused.",
    ),
    Deviation(
        "positive_data_acceptance",
        ["POST /users", "PUT /users/me/password", "POST /users/reset-password"],
        ["422 body: The password is the username", "422 body: The password is on the list of common passwords"],
        "What a password must not be is too much for a schema.",
    ),
    Deviation(
        "positive_data_acceptance",
        ["POST /users", "PATCH /users/me"],
        ["422 body.email: is not an e-mail address"],
        "The format email admits addresses that no mail can reach, such as those under .test.",
    ),
    Deviation(
        "positive_data_acceptance",
        ["POST /auth/revoke", "POST /auth/introspect"],
        [
            "400 a field: Field sent more than once",
            "400 The form must be UTF-8 text without NUL",
            "400 The form must have a few short text fields only",
        ],
        "RFC 6749 §3.2, no NUL, and 16 fields at most. The schema cannot say it of fields that it does not name.",
    ),
    Deviation(
        "unsupported_method",
        ["GET /tasks/mine", "GET /tasks/public"],
        [NOT_AN_ID, "422 body: Field required"],
        "These paths are /tasks/{task_id} too, for the methods that they do not have themselves.",
    ),
    Deviation(
        "unsupported_method",
        ["POST /users/reset-password"],
        ["401 Not authenticated"],
        "As above: it is /users/{user_id} too.",
    ),
    Deviation(
        "allow_header_conformance",
        ["GET /tasks/mine", "GET /tasks/public", "POST /users/reset-password"],
        ["405 Method Not Allowed"],
        "As above: Allow names the methods of every route at a path.",
    ),
]


@pytest.fixture
def app(settings: Settings, clock: MovableClock) -> FastAPI:
    return create_app(settings.model_copy(update=UNTHROTTLED), clock=clock, password_cost=CHEAP)


@pytest.fixture
def administrator(serve: Serve, sql: Sql) -> Administrator:
    """She asks another service on the same database, whose answers are not looked at."""
    return Administrator(serve(**UNTHROTTLED), sql)


@pytest.fixture
def fuzz(app: FastAPI, administrator: Administrator) -> Callable[..., Fuzzer]:
    return partial(Fuzzer, app, administrator, DEVIATIONS)


def assert_no_failure(report: Report) -> None:
    advice = (
        "The service does not do what its OpenAPI document says. Mend the service or the document. "
        "If no schema can say it, add a Deviation to DEVIATIONS in tests/http/test_schemathesis.py."
    )
    assert not report.failures, "\n\n".join([advice, *report.failures])


@on_one_database
def test_every_boundary_in_the_document_is_the_services(fuzz: Fuzz) -> None:
    """But for two of the lists of tasks, which are as the third one, and for methods other than PUT."""
    alike = {"include-path": ["/tasks/mine", "/tasks/public"], "phases": {"coverage": {"enabled": False}}}
    phases = BOUNDARIES | {"coverage": {"unexpected-methods": ["put"]}}

    with fuzz(phases=phases, operations=[alike], seed=1) as fuzzer:
        fuzzer.send_requests()

    assert_no_failure(fuzzer.report)
    assert fuzzer.report.requests["coverage"] > 400


@on_one_database
def test_operations_follow_from_each_other_as_the_document_says(fuzz: Fuzz) -> None:
    with fuzz(generation=AUTHENTICATED, seed=1) as fuzzer:
        fuzzer.send_sequences(8, steps=8)

    assert fuzzer.report.requests["sequences"] > 40


@pytest.mark.long
def test_the_service_does_what_the_document_says(fuzz: Fuzz) -> None:
    with fuzz(phases=BOUNDARIES) as boundaries:
        boundaries.send_requests()
    with fuzz(phases=FUZZING, generation=AUTHENTICATED | {"max-examples": 2000}) as fuzzer:
        fuzzer.send_requests()
        fuzzer.send_sequences(2000, steps=8)

    print(f"{len(fuzzer.operations)} operations, {boundaries.report.requests + fuzzer.report.requests} requests")
    assert_no_failure(boundaries.report)
    assert_no_failure(fuzzer.report)
    assert boundaries.report.successful | fuzzer.report.successful == fuzzer.operations
    met = boundaries.report.deviations | fuzzer.report.deviations
    assert met >= {deviation.reason for deviation in DEVIATIONS if not deviation.is_rare}
