"""Headers: what every answer carries, whatever was asked, and which pages of other origins may read it."""

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from app.config import Settings
from app.main import create_app
from tests.conftest import CHEAP, SECRET, Serve
from tests.support.accounts import Login, create_task, log_in, refresh, sign_up
from tests.support.key_pairs import key, private, written
from tests.support.oauth_errors import assert_oauth_error
from tests.support.operations import GOOD_BODIES
from tests.support.processes import services
from tests.support.raw import Connection

TOO_LARGE = b" " * (128 * 1024 + 1)
ALWAYS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
HSTS = "Strict-Transport-Security"
ORIGIN = "https://app.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
EXPOSED = {"Date", "ETag", "Link", "Location", "Retry-After", "WWW-Authenticate", "X-Request-ID"}
NO_OPERATIONS: dict[str, tuple[int, str, str, dict[str, Any]]] = {
    "unknown path": (404, "GET", "/nowhere", {}),
    "unknown method": (405, "PUT", "/tasks/", {}),
    "too large": (413, "POST", "/users", {"content": TOO_LARGE}),
    "too large a form": (413, "POST", "/auth/token", {"content": TOO_LARGE}),
    "too long a URL": (414, "GET", "/" + "x" * 8192, {}),
    "bad text": (422, "GET", "/tasks/?cursor=%00", {}),
    "too large headers": (431, "GET", "/tasks/", {"headers": {"X-Filler": "x" * 16384}}),
    "broken": (500, "GET", "/broken", {}),
    "broken, by HEAD": (500, "HEAD", "/broken", {}),
    "docs": (200, "GET", "/docs", {}),
    "redoc": (200, "GET", "/redoc", {}),
    "the script of the docs": (200, "GET", "/docs/start.js", {}),
    "a file of the docs": (200, "GET", "/docs/files/favicon.png", {}),
    "an unknown file of the docs": (404, "GET", "/docs/files/x", {}),
    "the document": (200, "GET", "/openapi.json", {}),
    "OPTIONS": (405, "OPTIONS", "/tasks/", {}),
}


@cache
def unstarted(**settings: str) -> TestClient:
    """A service that has opened nothing, for what is answered before it would be needed; /broken is."""

    async def broken() -> None:
        raise LookupError

    app = create_app(Settings.model_validate({"database_url": "sqlite:///./unused.db"} | settings), password_cost=CHEAP)
    app.add_api_route("/broken", broken)
    return TestClient(app, raise_server_exceptions=False)


def operations(client: TestClient) -> list[tuple[str, str]]:
    """Each method and path, those that delete last."""
    paths = client.get("/openapi.json").json()["paths"]
    found = [(method, path) for path in paths for method in paths[path]]
    assert len(found) > 15
    return sorted(found, key=lambda operation: (operation[0] == "delete", operation[1] == "/users/me"))


def answers(client: TestClient) -> list[Response]:
    """Every operation in each way: well and signed in, with other scopes, without a token, with bad ones and badly."""
    login = sign_up(client)
    lost, reader, writer = (log_in(client, scope=scope) for scope in ("", "tasks:read", "tasks:write"))
    client.post("/auth/revoke", data={"token": lost.access_token})
    task = create_task(client, login)
    session = client.get("/auth/sessions", headers=login.headers).json()["items"][-1]
    ids = {"task_id": task["id"], "session_id": session["id"]}
    bad: list[dict[str, Any]] = [
        {},
        {"headers": {"Authorization": "Bearer x"}},
        {"headers": lost.headers},
        {"headers": reader.headers},
        {"headers": writer.headers},
        {"content": b"{", "headers": login.headers | {"Content-Type": "application/json"}},
        {"content": b"{}", "headers": login.headers | {"Content-Type": "text/plain"}},
        {"content": TOO_LARGE, "headers": login.headers},
    ]

    seen = []
    for method, path in operations(client):
        url = re.sub(r"\{(\w+)\}", lambda match: ids.get(match[1], "x"), path)
        if (method, path) != ("delete", "/auth/sessions"):
            seen += [client.request(method, url, **request) for request in bad]
        seen.append(client.request(method, f"{url}?x=%00", headers=login.headers))
        seen.append(client.request(method, url, headers=login.headers, **GOOD_BODIES.get((method, path), {})))
        if (method, path) == ("put", "/users/me/password"):
            login = Login.of(seen[-1])
    return seen


def wrong_headers(response: Response, expected: dict[str, str]) -> list[str]:
    """Those that are missing, other or there twice."""
    return [name for name, value in expected.items() if response.headers.get_list(name) != [value]]


def cors(response: Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


def caching(responses: Iterable[Response]) -> list[list[str]]:
    return [response.headers.get_list("Cache-Control") for response in responses]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_every_answer_has_the_security_headers(client: TestClient) -> None:
    seen = answers(client)

    assert {response.status_code for response in seen} >= {200, 201, 204, 400, 401, 403, 404, 413, 415, 422}
    for response in seen:
        case = (response.request.method, str(response.request.url), response.status_code)
        caching = {"/.well-known/jwks.json": "public, max-age=300"} if response.status_code == 200 else {}
        kept = "private, no-cache" if "ETag" in response.headers else "no-store"
        expected = {"Cache-Control": caching.get(response.request.url.path, kept), "X-Request-ID": "test"}
        assert (case, wrong_headers(response, ALWAYS | expected)) == (case, [])
        assert HSTS not in response.headers


@pytest.mark.parametrize("name", NO_OPERATIONS)
def test_answers_of_no_operation_have_the_security_headers(name: str) -> None:
    status, method, url, request = NO_OPERATIONS[name]
    expected = dict(ALWAYS)
    if url in {"/docs", "/redoc"}:  # with a policy of their own: test_docs.py
        expected.pop("Content-Security-Policy")

    response = unstarted().request(method, url, **request)

    assert response.status_code == status
    assert wrong_headers(response, expected) == []
    assert len(response.headers.get_list("Content-Security-Policy")) == 1
    assert caching([response]) == [["no-cache" if status == 200 and url.startswith("/docs/") else "no-store"]]
    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])


def test_an_answer_without_a_database_has_them_too() -> None:
    with unstarted(database_url="postgresql://nobody@127.0.0.1:1/none", secret_key=SECRET) as client:
        response = client.get("/tasks/")

    assert response.status_code == 503
    assert wrong_headers(response, ALWAYS | {"Cache-Control": "no-store"}) == []


@pytest.mark.parametrize("name", NO_OPERATIONS)
@pytest.mark.parametrize(
    ("public_url", "value"), [("https://tasks.example", ["max-age=31536000"]), ("http://tasks.example", [])]
)
def test_browsers_are_held_to_https_where_the_public_url_is(name: str, public_url: str, value: list[str]) -> None:
    _, method, url, request = NO_OPERATIONS[name]

    response = unstarted(public_url=public_url).request(method, url, **request)

    assert response.headers.get_list(HSTS) == value


def test_a_task_is_kept_by_its_reader_alone_and_asked_for_anew(client: TestClient) -> None:
    login = sign_up(client)
    made = client.post("/tasks/", json={"title": "Water"}, headers=login.headers)
    url = made.headers["Location"]

    read = client.get(url, headers=login.headers)
    unchanged = client.get(url, headers=login.headers | {"If-None-Match": read.headers["ETag"]})
    changed = client.patch(url, json={"status": "done"}, headers=login.headers)
    refused = client.patch(url, json={"status": "todo"}, headers=login.headers | {"If-Match": '"1"'})

    assert [made.status_code, read.status_code, unchanged.status_code] == [201, 200, 304]
    assert [changed.status_code, refused.status_code] == [200, 412]
    assert caching([made, read, unchanged, changed]) == [["private, no-cache"]] * 4
    assert caching([refused, client.get("/tasks/", headers=login.headers)]) == [["no-store"]] * 2


def test_tokens_are_stored_nowhere_and_public_keys_anywhere(serve: Serve) -> None:
    client = serve(jwt_private_key_file=written(private(key("ES256"))))
    login = sign_up(client)

    tokens = [refresh(client, login.refresh_token), client.post("/auth/introspect", data={"token": login.access_token})]

    assert caching(tokens) == [["no-store"]] * 2
    assert [answer.headers["Pragma"] for answer in tokens] == ["no-cache"] * 2
    assert caching([client.get("/.well-known/jwks.json")]) == [["public, max-age=300"]]


@pytest.mark.parametrize("request_id", ["a", "2f6e.Trace_7-x", "x" * 128])
@pytest.mark.parametrize("path", ["/health/live", "/nowhere", "/broken", "/tasks/?x=%00"])
def test_a_request_id_comes_back(request_id: str, path: str) -> None:
    response = unstarted().get(path, headers={"X-Request-ID": request_id})

    assert response.headers.get_list("X-Request-ID") == [request_id]


@pytest.mark.parametrize(
    "request_id",
    ["", " ", "a b", "x" * 129, 'a"b', "a,b", "a/b", "<b>", "a\r\nSet-Cookie: b", "a\x1b[2J", "\xe9", "a\n", "\u2028"],
)
def test_a_request_id_that_could_do_harm_is_replaced(request_id: str) -> None:
    response = unstarted().get("/health/live", headers={b"X-Request-ID": request_id.encode()})

    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])
    assert "Set-Cookie" not in response.headers


def test_each_request_without_an_id_gets_one_of_its_own() -> None:
    client = unstarted()

    ids = {client.get("/health/live").headers["X-Request-ID"] for _ in range(10)}

    assert len(ids) == 10


def test_no_other_origin_is_let_in_by_default() -> None:
    client = unstarted()

    for method, path in operations(client):
        for asked in method, "options":
            response = client.request(asked, path, headers={"Origin": ORIGIN, **PREFLIGHT, "Cookie": "a=b"})
            assert cors(response) == {}
            assert response.status_code == 405 or asked == method


@pytest.mark.parametrize("name", [name for name in NO_OPERATIONS if not name.startswith("broken")])
def test_a_listed_origin_reads_every_answer(name: str) -> None:
    status, method, url, request = NO_OPERATIONS[name]
    headers = {"Origin": ORIGIN, "Cookie": "a=b"} | request.get("headers", {})

    response = unstarted(cors_origins=f"{ORIGIN},http://localhost:5173").request(
        method, url, **request | {"headers": headers}
    )
    allowed = cors(response)

    assert response.status_code == status
    assert set(allowed.pop("access-control-expose-headers").split(", ")) == EXPOSED
    assert allowed == {"access-control-allow-origin": ORIGIN}
    assert response.headers["Vary"] == "Origin"


def test_a_listed_origin_logs_in_and_reads_the_headers(serve: Serve) -> None:
    client = serve(cors_origins=ORIGIN)
    client.headers |= {"Origin": ORIGIN}
    login = sign_up(client)
    made = [client.post("/tasks/", json={"title": "Water"}, headers=login.headers) for _ in range(2)]
    page, refused = client.get("/tasks/?limit=1", headers=login.headers), client.get("/tasks/mine")
    keys = client.get("/.well-known/jwks.json")

    needed = {"ETag", "Link", "Location", "WWW-Authenticate", "X-Request-ID"}
    sent = {name for response in (*made, page, refused) for name in needed if name in response.headers}

    assert sent == needed
    for response in *made, page, refused, keys:
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert needed <= set(response.headers["Access-Control-Expose-Headers"].split(", "))
        assert response.headers["Vary"] == "Origin"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://app.example",
        "https://app.example:8443",
        "https://app.example.evil.example",
        "https://evilapp.example",
        "https://appxexample",
        "https://app.example/",
        f"{ORIGIN}, {ORIGIN}",
        "null",
        "",
        "*",
    ],
)
def test_an_origin_that_is_not_listed_reads_nothing(origin: str) -> None:
    client = unstarted(cors_origins=ORIGIN)

    simple = client.get("/health/live", headers={"Origin": origin})
    preflight = client.options("/tasks/", headers={"Origin": origin, **PREFLIGHT})

    assert simple.status_code == 200
    assert preflight.status_code == 400
    for response in simple, preflight:
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Access-Control-Allow-Credentials" not in response.headers
        assert "Origin" in response.headers["Vary"]


def test_a_listed_origin_may_use_every_operation() -> None:
    client = unstarted(cors_origins=ORIGIN)
    ours = "authorization,content-type,idempotency-key,if-match,if-none-match,x-request-id"

    for method, path in operations(client):
        asked = {"Access-Control-Request-Method": method.upper(), "Access-Control-Request-Headers": ours}
        preflight = client.options(path, headers={"Origin": ORIGIN, **asked})
        assert (preflight.status_code, preflight.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)
        assert method.upper() in preflight.headers["Access-Control-Allow-Methods"].split(", ")
        assert "Access-Control-Allow-Credentials" not in preflight.headers
        assert wrong_headers(preflight, ALWAYS | {"Cache-Control": "no-store"}) == []


@pytest.mark.parametrize(
    ("listed", "origin"),
    [
        (ORIGIN.upper(), ORIGIN),
        (f"{ORIGIN}:443", ORIGIN),
        (ORIGIN, ORIGIN.upper()),
        (ORIGIN, f"{ORIGIN}:443"),
        ("http://localhost", "http://LOCALHOST:80"),
    ],
)
def test_origins_are_compared_in_their_normal_form(listed: str, origin: str) -> None:
    client = unstarted(cors_origins=listed)

    simple = client.get("/health/live", headers={"Origin": origin})
    preflight = client.options("/tasks/", headers={"Origin": origin, **PREFLIGHT})

    assert preflight.status_code == 200
    for response in simple, preflight:
        assert response.headers["Access-Control-Allow-Origin"] == origin


def test_a_listed_origin_may_use_no_other_method() -> None:
    asked = {"Access-Control-Request-Method": "TRACE"}

    preflight = unstarted(cors_origins=ORIGIN).options("/tasks/", headers={"Origin": ORIGIN, **asked})

    assert preflight.status_code == 400
    assert "TRACE" not in preflight.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize(
    "names",
    [
        "authorization",
        "traceparent,tracestate",
        "baggage,content-type,sentry-trace",
        "x-requested-with",
        "x-any, prefer",
    ],
)
@pytest.mark.parametrize("method", ["HEAD", "POST"])
def test_a_listed_origin_may_send_any_header(names: str, method: str) -> None:
    """They are named: `*` would not cover Authorization (Fetch standard)."""
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": names}

    preflight = unstarted(cors_origins=ORIGIN).options("/auth/token", headers={"Origin": ORIGIN, **asked})

    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Headers"] == names
    assert method in preflight.headers["Access-Control-Allow-Methods"].split(", ")


@pytest.mark.parametrize(("origin", "method"), [("https://evil.example", "GET"), (ORIGIN, "TRACE")])
def test_a_refused_preflight_has_the_shape_of_other_errors(origin: str, method: str) -> None:
    client = unstarted(cors_origins=ORIGIN)
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": "canary"}

    of_tasks, of_tokens = client.options("/tasks", headers=asked), client.options("/auth/token", headers=asked)

    assert of_tasks.status_code == 400
    assert of_tasks.json()["code"] == "cors_not_allowed"
    assert of_tasks.headers["Content-Type"] == "application/json"
    assert "canary" not in f"{of_tasks.text}{of_tasks.headers}"
    assert_oauth_error(of_tokens, "invalid_request")


@pytest.mark.parametrize(
    ("listed", "sent"),
    [
        ("HTTPS://App.Example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://app.example:0080", "http://app.example"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_an_origin_is_listed_in_any_spelling(listed: str, sent: str) -> None:
    answer = unstarted(cors_origins=listed).get("/health/live", headers={"Origin": sent})

    assert answer.headers["Access-Control-Allow-Origin"] == sent


def test_a_wildcard_origin_reads_without_credentials() -> None:
    client, headers = unstarted(cors_origins="*"), {"Origin": ORIGIN, "Cookie": "a=b"}

    simple = client.get("/health/live", headers=headers)
    preflight = client.options("/tasks/", headers=headers | PREFLIGHT)

    for response in simple, preflight:
        assert response.status_code == 200
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in response.headers


def test_no_answer_says_which_server_it_is(sqlite_url: str) -> None:
    with services(1, database_url=sqlite_url) as (url,), httpx2.Client(base_url=url) as client:
        read = [client.get(path) for path in ("/health/live", "/nowhere", "/docs", "/tasks/?x=%00")]
        with Connection(httpx2.URL(url).port or 0) as connection:
            connection.send(b"NONSENSE\r\n\r\n")
            malformed = connection.answer()

    assert [response.status_code for response in read] == [200, 404, 200, 422]
    assert malformed.status == 400
    for head in f"{malformed}".lower(), *(f"{response.headers}".lower() for response in read):
        assert not re.search("server|powered|uvicorn|starlette|fastapi|python", head)
