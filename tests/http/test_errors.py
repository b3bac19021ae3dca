"""Errors: a bad body is the client's fault and never a 5xx, a large one is not read, and no error repeats what came."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from starlette.types import Message

from app.config import Settings
from app.errors import AppError, NotFound
from app.main import create_app
from tests.conftest import CHEAP, MovableClock, on_one_database
from tests.support.accounts import PASSWORD, sign_up
from tests.support.hostile import BAD_FORMS, BAD_JSON

pytestmark = on_one_database

CANARY = "canary7Q"
UNKNOWN_ID = "01890000-0000-7000-8000-000000000000"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
LIMIT = 128 * 1024
USER = json.dumps({"username": "ada", "password": PASSWORD}).encode()
UNKNOWN_FIELD = json.dumps({CANARY: CANARY}).encode()
TOO_LARGE = {"detail": "The body is over 128 KiB", "code": "body_too_large"}
OAUTH_TOO_LARGE = TOO_LARGE | {"error": "invalid_request", "error_description": TOO_LARGE["detail"]}

BAD_REQUESTS = {
    "JSON as text": (f"text/{CANARY}", UNKNOWN_FIELD),
    "JSON as a form": (FORM, UNKNOWN_FIELD),
    "a form": (FORM, f"username={CANARY}&password={CANARY}&grant_type={CANARY}&scope={CANARY}&{CANARY}=1".encode()),
    **{f"a form, {name}": (FORM, body) for name, body in BAD_FORMS.items()},
    "multipart, cut off": (
        "multipart/form-data; boundary=x",
        f'--x\r\nContent-Disposition: form-data; name="{CANARY}"\r\n\r\n{CANARY}'.encode(),
    ),
    "multipart without a boundary": ("multipart/form-data", CANARY.encode()),
}


@pytest.fixture(scope="module")
def unstarted() -> TestClient:
    """A service that has opened nothing, for what is answered before it would be needed. Made once: it takes 70 ms."""
    return TestClient(create_app(Settings(database_url="sqlite:///./unused.db"), password_cost=CHEAP))


def bad_requests(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[tuple[str, tuple[str, bytes]]]:
    """One bad body of each kind for each field: the others of its kind meet the same parser."""
    yield "an unknown field", (JSON, UNKNOWN_FIELD)
    content = operation.get("requestBody", {}).get("content", {})
    if content:
        yield from BAD_REQUESTS.items()
    if JSON in content:
        schema = content[JSON]["schema"]["$ref"].rpartition("/")[2]
        for field in document["components"]["schemas"][schema]["properties"]:
            for kind, cases in BAD_JSON.items():
                yield f"{kind}, {field}", (JSON, next(iter(cases.values())).of(field))


def test_no_operation_breaks_on_a_bad_request_or_repeats_it(client: TestClient) -> None:
    signed_in = sign_up(client).headers
    headers = {"If-Match": CANARY, "If-None-Match": CANARY, "User-Agent": CANARY, f"X-{CANARY}": CANARY}
    query = f"limit={CANARY}&cursor={CANARY}&sort={CANARY}&status={CANARY}&due_before={CANARY}&{CANARY}={CANARY}"
    document = client.get("/openapi.json").json()
    paths = document["paths"]
    operations = [(method, path, paths[path][method]) for path in paths for method in paths[path]]

    wrong = []
    for method, path, operation in sorted(operations, key=lambda each: (each[0] == "delete", each[1])):
        url = re.sub(r"\{\w+\}", CANARY, path)
        for name, (content_type, body) in bad_requests(document, operation):
            sent = signed_in | headers | {"Content-Type": content_type}
            response = client.request(method, f"{url}?{query}", content=body, headers=sent)
            answer = f"{response.text}{response.headers}"
            if response.status_code >= 500 or (response.is_error and CANARY.lower() in answer.lower()):
                wrong.append((method, path, name, response.status_code, answer[:300]))

    assert len(operations) > 15
    assert wrong == []


@pytest.mark.parametrize("token", [CANARY, f"{CANARY}.{CANARY}.{CANARY}", f"{CANARY}\xff"], ids=ascii)
def test_a_bad_token_is_not_repeated(client: TestClient, token: str) -> None:
    response = client.get("/users/me", headers={b"Authorization": f"Bearer {token}".encode("latin-1")})

    assert response.status_code == 401
    assert CANARY not in f"{response.text}{response.headers}"


@pytest.mark.parametrize(
    ("body", "loc", "kind"),
    [
        (b"{", ["body"], "json_invalid"),
        (b'{"username": "\xff"}', ["body"], "json_invalid"),
        (b"[" * 100_000, ["body"], "json_invalid"),
        (USER[:-1] + b', "canary7Q": 1}', ["body"], "extra_forbidden"),
        (USER.replace(b"correct", b"\\ud800"), ["body", "password"], "value_error"),
        (USER.replace(b'"ada"', b"NaN"), ["body"], "json_invalid"),
        (USER.replace(b"correct", b"\\u0000"), ["body", "password"], "value_error"),
        (USER.decode().encode("utf-16"), ["body"], "json_invalid"),
        (b"\xef\xbb\xbf" + USER, ["body"], "json_invalid"),
        (USER[:-1] + b', "username": "bob"}', ["body"], "json_invalid"),
    ],
    ids=["cut off", "not UTF-8", "deep", "unknown field", "surrogate", "NaN", "NUL", "UTF-16", "BOM", "member twice"],
)
def test_a_bad_json_body_is_422_with_the_place_of_the_fault(
    client: TestClient, body: bytes, loc: list[Any], kind: str
) -> None:
    response = client.post("/users", content=body, headers={"Content-Type": JSON})

    assert response.status_code == 422
    [fault] = response.json()["detail"]
    assert fault.keys() == {"type", "loc", "msg"}
    assert (fault["type"], fault["loc"]) == (kind, loc)


@pytest.mark.parametrize("content_type", ["", "text/plain", FORM, "application/jsonp", "application/json, text/plain"])
def test_json_under_another_content_type_is_415(client: TestClient, content_type: str) -> None:
    response = client.post("/users", content=USER, headers={"Content-Type": content_type})

    assert response.status_code == 415
    assert response.json() == {
        "detail": "The body must be JSON, with Content-Type: application/json",
        "code": "unsupported_media_type",
    }


@pytest.mark.parametrize(
    ("types", "status"), [([JSON, "text/plain"], 201), (["text/plain", JSON], 415), ([JSON, JSON], 201)], ids=str
)
def test_the_first_of_two_content_types_counts(client: TestClient, types: list[str], status: int) -> None:
    response = client.post("/users", content=USER, headers=[("Content-Type", type_) for type_ in types])

    assert response.status_code == status


@pytest.mark.parametrize(("path", "body"), [("/users", TOO_LARGE), ("/auth/token", OAUTH_TOO_LARGE)])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "with its length"])
def test_a_body_over_the_limit_is_413(unstarted: TestClient, path: str, body: dict[str, str], chunked: bool) -> None:
    def chunks() -> Iterator[bytes]:
        yield b" " * LIMIT
        yield b" "

    content = chunks() if chunked else b" " * (LIMIT + 1)
    response = unstarted.post(path, content=content, headers={"Content-Type": JSON if path == "/users" else FORM})

    assert (response.status_code, response.json()) == (413, body)


def test_a_body_at_the_limit_is_read(client: TestClient) -> None:
    response = client.post("/users", content=USER.ljust(LIMIT), headers={"Content-Type": JSON})

    assert response.status_code == 201


@pytest.mark.parametrize("path", ["/users", "/auth/token"])
@pytest.mark.parametrize(
    ("length", "reads"), [(b"131073", 0), (b"9" * 5000, 0), (None, 3), (b"10", 3), (b"-1", 3), (b"\xb2", 3)]
)
def test_a_body_over_the_limit_is_not_read_whole(
    unstarted: TestClient, path: str, length: bytes | None, reads: int
) -> None:
    """Past TestClient, which reads a request's body before it sends any."""
    headers = [(b"content-type", (FORM if path.startswith("/auth") else JSON).encode())]
    headers += [(b"content-length", length)] if length else []
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [*headers, (b"host", b"a")],
    }
    received, sent = [], []

    async def receive() -> Message:
        received.append(LIMIT // 2)
        return {"type": "http.request", "body": b" " * (LIMIT // 2), "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    async def run() -> None:
        await unstarted.app(scope | {"http_version": "1.1", "scheme": "http", "server": ("a", 80)}, receive, send)

    asyncio.run(run())

    assert sent[0]["status"] == 413
    assert len(received) == reads


@pytest.mark.parametrize("path", [f"/{CANARY}", "/tasks/x/y", "/tasks//"])
def test_an_unknown_path_is_404(unstarted: TestClient, path: str) -> None:
    response = unstarted.get(path)

    assert (response.status_code, response.json()) == (404, {"detail": "Not Found", "code": "not_found"})


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/tasks/", {"GET", "POST"}),
        ("PUT", "/users/me", {"GET", "PATCH", "DELETE"}),
        ("GET", "/users/me/password", {"PUT"}),
        ("POST", "/docs", {"GET"}),
    ],
)
def test_an_unknown_method_is_405_with_those_that_are_known(
    unstarted: TestClient, method: str, path: str, allowed: set[str]
) -> None:
    """RFC 9110 §15.5.6."""
    response = unstarted.request(method, path)

    assert (response.status_code, response.json()) == (
        405,
        {"detail": "Method Not Allowed", "code": "method_not_allowed"},
    )
    assert set(response.headers["Allow"].split(", ")) - {"HEAD", "OPTIONS"} == allowed


@pytest.mark.parametrize("path", ["/auth/token", "/auth/revoke"])
def test_a_form_endpoint_takes_post_only(unstarted: TestClient, path: str) -> None:
    response = unstarted.get(path)

    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert response.json()["error"] == "invalid_request"


def test_an_unexpected_error_tells_nothing(settings: Settings, clock: MovableClock) -> None:
    async def broken() -> None:
        raise LookupError(CANARY)

    app = create_app(settings, clock=clock, password_cost=CHEAP)
    app.add_api_route("/broken", broken)
    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.get("/broken")

        assert (response.status_code, response.json()) == (
            500,
            {"detail": "Internal Server Error", "code": "internal_error"},
        )
        assert client.get("/tasks/").status_code == 200


def subclasses(error: type[AppError]) -> Iterator[type[AppError]]:
    for each in error.__subclasses__():
        yield each
        yield from subclasses(each)


def test_every_error_has_a_code_of_its_own() -> None:
    errors: list[type[AppError]] = [AppError, *subclasses(AppError)]
    codes = Counter(error.code for error in errors if error.__module__.startswith("app."))

    assert len(codes) > 30
    assert [code for code, count in codes.items() if count > 1] == []
    assert all(re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", code) for code in codes)


def test_an_error_without_a_code_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="TaskLost needs a code of its own"):
        type("TaskLost", (NotFound,), {"detail": "The task is lost"})


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("PUT", "/tasks", 405, "method_not_allowed"),
        ("GET", "/docs/files/none", 404, "not_found"),
        ("GET", "/tasks/mine", 401, "not_authenticated"),
        ("GET", "/tasks?limit=x", 422, "invalid_input"),
        ("POST", "/users", 422, "invalid_input"),
        ("GET", "/auth/token", 405, "method_not_allowed"),
        ("POST", "/auth/token", 400, "invalid_request"),
        ("POST", "/auth/token?x=%00", 400, "invalid_input"),
        ("GET", "/teapot", 418, "http_418"),
        ("GET", "/lookup", 500, "internal_error"),
    ],
)
def test_every_error_is_told_to_programs(settings: Settings, method: str, path: str, status: int, code: str) -> None:
    async def teapot() -> None:
        raise HTTPException(418, "A teapot")

    async def broken() -> None:
        raise LookupError

    app = create_app(settings, password_cost=CHEAP)
    app.add_api_route("/teapot", teapot)
    app.add_api_route("/lookup", broken)
    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.request(method, path)

    assert (response.status_code, response.json()["code"]) == (status, code)


@pytest.mark.parametrize("chunks", [b" " * LIMIT + b" ", [b" " * LIMIT, b" "]], ids=["with its length", "chunked"])
def test_a_product_s_plain_route_refuses_a_large_body(chunks: Any) -> None:
    async def plant(fields: dict[str, str]) -> dict[str, str]:
        return fields

    app = create_app(Settings(database_url="sqlite:///./unused.db"), password_cost=CHEAP)
    app.add_api_route("/plants", plant, methods=["POST"])

    response = TestClient(app).post("/plants", content=chunks, headers={"Content-Type": JSON})

    assert (response.status_code, response.json()) == (413, TOO_LARGE)


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("POST", "/users", {"usernam": 1}, "Unknown field; did you mean username?"),
        ("POST", "/users", {"Password": 1}, "Unknown field; did you mean password?"),
        ("POST", "/tasks", {"titel": 1}, "Unknown field; did you mean title?"),
        ("POST", "/tasks", {"dueAt": 1}, "Unknown field; did you mean due_at?"),
        ("PATCH", f"/tasks/{UNKNOWN_ID}", {"stauts": 1}, "Unknown field; did you mean status?"),
        ("PATCH", "/users/me", {"e-mail": 1}, "Unknown field; did you mean email?"),
        ("PUT", "/users/me/password", {"old_password": 1}, "Unknown field; did you mean new_password?"),
        ("POST", "/users/reset-password", {"resetToken": 1}, "Unknown field; did you mean reset_token?"),
        ("POST", "/tasks", {"colour": 1}, "Unknown field"),
        ("POST", "/tasks", {"": 1}, "Unknown field"),
        ("POST", "/tasks", {"title" * 7: 1}, "Unknown field"),
        ("PATCH", "/users/me", {CANARY: 1}, "Unknown field"),
    ],
)
def test_the_nearest_known_field_is_offered(
    client: TestClient, method: str, path: str, body: dict[str, int], message: str
) -> None:
    response = client.request(method, path, json=body, headers=sign_up(client).headers)

    assert response.status_code == 422
    faults = [fault for fault in response.json()["detail"] if fault["type"] == "extra_forbidden"]
    assert faults == [{"type": "extra_forbidden", "loc": ["body"], "msg": message}]


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({f"x{n}": n for n in range(15_000)})[: LIMIT - 100].encode(),
        json.dumps({f"x{n}": n for n in range(200)}).encode(),
        json.dumps({"username": [1] * 300}).encode(),
        b'{"username": ' + b'""' * 300 + b"}",
        b"[" * 300 + b"]" * 300,
    ],
    ids=["members, cut off", "members", "elements", "strings", "nesting"],
)
def test_a_body_of_very_many_parts_is_not_parsed(client: TestClient, body: bytes) -> None:
    response = client.post("/users", content=body, headers={"Content-Type": JSON})

    assert response.status_code == 422
    assert response.json() == {
        "detail": [{"type": "json_invalid", "loc": ["body"], "msg": "has too many members and elements"}],
        "code": "invalid_json",
    }


def test_an_error_in_the_middle_of_an_answer_begins_no_other(settings: Settings, clock: MovableClock) -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "the first piece"
        raise LookupError(CANARY)

    async def broken() -> StreamingResponse:
        return StreamingResponse(pieces())

    app = create_app(settings, clock=clock, password_cost=CHEAP)
    app.add_api_route("/broken", broken, response_model=None)
    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.get("/broken")

        assert (response.status_code, response.text) == (200, "the first piece")
        assert client.get("/tasks/").status_code == 200
