"""Schemathesis over the service: as whom it asks, which requests follow from which, and what it finds."""

from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Final, NamedTuple, Self

import hypothesis
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from schemathesis import AuthContext, Case, HookContext, Response
from schemathesis.core.failures import Failure
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.generation.stateful.state_machine import DEFAULT_STATE_MACHINE_SETTINGS
from schemathesis.hooks import unregister
from schemathesis.python.asgi import shutdown_lifespans

from tests.conftest import Sql
from tests.support.accounts import PASSWORD, add_user, bearer, log_in

AnyCase = Case[Any]

URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
PUBLIC_LISTS = {"GET /tasks", "GET /tasks/public"}
SET_PASSWORD = "PUT /users/me/password"
ENDING = {
    *("DELETE /users/me", "DELETE /users/{user_id}", "PATCH /users/{user_id}", "DELETE /users/{user_id}/sessions"),
    *("POST /users/reset-password", "DELETE /auth/sessions/{session_id}", "POST /auth/revoke", SET_PASSWORD),
}

LOGIN = {name: f"$request.body#/{name}" for name in ("username", "password")} | {"grant_type": "password", "scope": ""}
REFRESH = {"grant_type": "refresh_token", "refresh_token": "$response.body#/refresh_token", "scope": ""}
TOKENS = [{"token": f"$response.body#/{name}"} for name in ("access_token", "refresh_token")]
NEXT = {"cursor": "$response.body#/next_cursor", "limit": "$request.query.limit"}
NEXT_TASKS = NEXT | {name: f"$request.query.{name}" for name in ("sort", "status", "due_before", "due_after", "q")}
NEXT_USERS = NEXT | {"username": "$request.query.username"}
RESET = {"reset_token": "$response.body#/reset_token", "new_password": f"{PASSWORD}, again"}
TASK = "/tasks/{task_id}"
LINKS: Final[list[tuple[str, str, str, dict[str, Any]]]] = [
    ("POST /users", "201", "issue_token", {"requestBody": LOGIN}),
    ("POST /auth/token", "200", "issue_token", {"requestBody": REFRESH}),
    *[("POST /auth/token", "200", "introspect_token", {"requestBody": token}) for token in TOKENS],
    *[("POST /auth/token", "200", "revoke_token", {"requestBody": token}) for token in TOKENS],
    ("GET /auth/sessions", "200", "list_own_sessions", {"parameters": NEXT}),
    ("GET /users", "200", "list_users", {"parameters": NEXT_USERS}),
    ("POST /users/{user_id}/reset-token", "201", "reset_password", {"requestBody": RESET}),
    ("GET /tasks", "200", "list_tasks", {"parameters": NEXT_TASKS}),
    ("GET /tasks/mine", "200", "list_own_tasks", {"parameters": NEXT_TASKS}),
    ("GET /tasks/public", "200", "list_public_tasks", {"parameters": NEXT_TASKS}),
    *[
        (f"DELETE {TASK}", "204", target, {"parameters": {"task_id": "$request.path.task_id"}})
        for target in ("read_task", "change_task", "delete_task")
    ],
    *[
        (source, status, target, {"parameters": {"task_id": "$response.body#/id", header: "$response.header.ETag"}})
        for source, status in (("POST /tasks", "201"), (f"GET {TASK}", "200"), (f"PATCH {TASK}", "200"))
        for target, header in (("read_task", "If-None-Match"), ("change_task", "If-Match"), ("delete_task", "If-Match"))
    ],
]
"""An answer, the operation that follows it, and the part that this takes. Schemathesis finds the links of ids."""


def document(app: FastAPI) -> dict[str, Any]:
    """The service's OpenAPI document, so that every check of Schemathesis bites.

    `default` would excuse any status, and `ignored_auth` does not know OAuth's schemes.
    """
    document = deepcopy(app.openapi())
    document["components"]["securitySchemes"]["Bearer"] = {"type": "http", "scheme": "bearer"}
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("default")
            if "security" in operation:
                operation["security"] = [{"Bearer": []} if scheme else {} for scheme in operation["security"]]
    for number, (source, status, target, what) in enumerate(LINKS):
        method, path = source.split()
        answer = document["paths"][path][method.lower()]["responses"][status]
        answer.setdefault("links", {})[f"{target}-{number}"] = {"operationId": target, **what}
    return document


class Deviation(NamedTuple):
    """A failure that is meant: the check, the operations (None is all of them), their answers, and the reason."""

    check: str
    operations: Sequence[str] | None
    answers: Sequence[str]
    reason: str
    is_rare: bool = False
    """Whether a long run may well not meet it."""

    def covers(self, failure: Failure, answer: str) -> bool:
        is_for_it = self.operations is None or failure.operation in self.operations
        return self.check in failure.checks and is_for_it and answer in self.answers


class Administrator:
    """The caller of the requests. She logs in or signs up again after a request has ended her session or account."""

    def __init__(self, client: TestClient, sql: Sql) -> None:
        self.client = client
        self.sql = sql
        self.password = PASSWORD
        self.token: str | None = None
        self.has_lost_all = False
        """Whether her account was made again since the sequence began. Its tasks and sessions are gone then."""

    def sign_up_alone(self) -> None:
        self.sql("DELETE FROM users")
        self.sign_up()
        self.has_lost_all = False

    def sign_up(self) -> None:
        """Make the account, and another administrator's, so that hers can be deleted."""
        names = "lower(username) IN ('root', 'deputy')"
        self.sql(f"DELETE FROM users WHERE {names}")  # not those that the fuzzer made: it would look for them
        for name in "root", "deputy":
            add_user(self.client, name, is_admin=True)
        self.password, self.token = PASSWORD, None

    def authenticate(self) -> str:
        if self.token is None:
            form = {"username": "root", "password": self.password}
            if self.client.post("/auth/token", data=form).status_code != 200:
                self.sign_up()
                self.has_lost_all = True
            self.token = log_in(self.client, "root", self.password).access_token
        return self.token

    def fill_in_password(self, case: AnyCase) -> None:
        if case.operation.label == SET_PASSWORD and is_positive(case) and isinstance(case.body, dict):
            case.body["current_password"] = self.password

    def take_note(self, case: AnyCase, response: Response) -> None:
        if case.operation.label == SET_PASSWORD and response.status_code == 204 and isinstance(case.body, dict):
            self.password = str(case.body["new_password"])
        if case.operation.label in ENDING or response.status_code == 401:
            self.token = None


class Report:
    """The findings of a run."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.answers: Counter[tuple[str, int]] = Counter()
        self.deviations: set[str] = set()
        self.failures: list[str] = []

    @property
    def successful(self) -> set[str]:
        """The operations that have done what they are for."""
        return {operation for operation, status in self.answers if status < 300}

    def add(self, event: events.EngineEvent) -> None:
        match event:
            case events.ScenarioFinished():
                self.count(event.phase.value, event.recorder)
                for checks in event.recorder.checks.values():
                    failed = [check.failure_info for check in checks if check.failure_info]
                    self.failures += [
                        f"{found.failure.operation}: {found.failure}\n{found.code_sample}" for found in failed
                    ]
            case events.NonFatalError():
                self.failures.append(f"{event.label}: {event.value!r}")
            case events.FatalError():
                raise event.exception

    def count(self, phase: str, recorder: ScenarioRecorder) -> None:
        for id_, interaction in recorder.interactions.items():
            if interaction.response:
                self.requests[phase] += 1
                self.answers[recorder.cases[id_].value.operation.label, interaction.response.status_code] += 1


class Fuzzer:
    """Schemathesis over an app, with the settings of its configuration file.

    It is a context: there are hooks that Schemathesis has globally only, and in the end the app is to be stopped.
    """

    def __init__(
        self, app: FastAPI, administrator: Administrator, deviations: Sequence[Deviation], **settings: Any
    ) -> None:
        self.administrator = administrator
        self.report = report = Report()
        settings["generation"] = {"database": "none"} | settings.get("generation", {})
        self.schema = schemathesis.openapi.from_dict(document(app), config=schemathesis.Config.from_dict(settings))
        self.schema.app = app

        @self.schema.auth(refresh_interval=None)
        class Authorization:
            def get(self, case: AnyCase, _: AuthContext) -> str | None:
                return administrator.authenticate() if needs_token(case) else None

            def set(self, case: AnyCase, token: str, _: AuthContext) -> None:
                case.headers.update(bearer(token))

        @self.schema.hook
        def filter_failure(_: HookContext, failure: Failure, case: AnyCase, response: Response) -> bool:
            if administrator.has_lost_all and "ensure_resource_availability" in failure.checks:
                return False
            meant = [[d.reason for d in deviations if d.covers(failure, answer)] for answer in answers(response)]
            report.deviations.update(*meant)
            return not all(meant)

        def before_call(_: HookContext, case: AnyCase, kwargs: dict[str, Any]) -> None:
            administrator.fill_in_password(case)

        def after_call(_: HookContext, case: AnyCase, response: Response) -> None:
            administrator.take_note(case, response)

        self.hooks = before_call, after_call

    @property
    def operations(self) -> set[str]:
        return {f"{method.upper()} {path}" for path in self.schema for method in self.schema[path]}

    def __enter__(self) -> Self:
        for hook in self.hooks:
            schemathesis.hook(hook)
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            unregister(hook)
        shutdown_lifespans()

    def send_requests(self) -> None:
        """Test each operation alone: the document's examples, its boundaries, and inputs that Hypothesis makes."""
        phase = self.schema.config.phases.stateful
        phase.enabled = False  # for the engine alone: sequences need the phase to be on
        for event in from_schema(self.schema).execute():
            self.report.add(event)
        phase.enabled = True

    def send_sequences(self, count: int, steps: int) -> None:
        """Operations that follow from each other, each time in a database that holds the administrator only.

        Schemathesis's engine would keep what the sequences before have left there, and end quietly where Hypothesis
        sees that one goes another way than it did before.
        """
        administrator, report = self.administrator, self.report

        class Workflow(self.schema.as_state_machine()):  # type: ignore[misc]
            def setup(self) -> None:
                administrator.sign_up_alone()

            def teardown(self) -> None:
                report.count("sequences", self.recorder)

        hypothesis.seed(self.schema.config.seed)(Workflow).run(
            settings=hypothesis.settings(
                DEFAULT_STATE_MACHINE_SETTINGS, max_examples=count, stateful_step_count=steps, database=None
            )
        )


def needs_token(case: AnyCase) -> bool:
    """If a token is optional, the request decides whether one comes, and not chance."""
    is_optional = case.operation.label in PUBLIC_LISTS
    return bool(case.operation.definition.raw["security"]) and not (is_optional and len(case.query) % 2)


def is_positive(case: AnyCase) -> bool:
    return case.meta is not None and case.meta.generation.mode.is_positive


def answers(response: Response) -> list[str]:
    """Each thing that an answer says: its status, with the error or one of the faults and its place."""
    if response.status_code < 400:
        return [f"{response.status_code}"]
    detail = response.json()["detail"]
    faults = [detail] if isinstance(detail, str) else [f"{places(fault)}: {fault['msg']}" for fault in detail]
    return [f"{response.status_code} {fault}" for fault in faults]


def places(fault: dict[str, Any]) -> str:
    return ".".join(map(str, fault["loc"]))
