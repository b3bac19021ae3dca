"""Limits: what is too large, too slow or meant for another host is refused before anything works on it."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from functools import cache
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.responses import StreamingResponse
from starlette.types import Message

from app.config import Settings
from app.main import create_app
from tests.conftest import CHEAP, MovableClock
from tests.support.accounts import PASSWORD
from tests.support.loops import MovableLoop
from tests.support.processes import services
from tests.support.raw import Connection

HOSTS = "tasks.example,[::1],10.0.0.7"
FORMS = {"/auth/token", "/auth/revoke", "/auth/introspect"}
UNKNOWN_HOST = "The Host header is not one of this service's"
URL_TOO_LONG = "The URL is over 8 KiB"
HEADERS_TOO_LARGE = "The headers are over 16 KiB, or Authorization over 8 KiB"
TOO_SLOW = "The body did not arrive within 10 seconds"
JSON = (b"content-type", b"application/json")
FORM = (b"content-type", b"application/x-www-form-urlencoded")
SLOW_BODIES: dict[str, list[tuple[float, bytes]]] = {
    "nothing comes": [(10.1, b"")],
    "it stops in the middle": [(0, b"{"), (10.1, b"}")],
    "it trickles in": [(3, b"{")] * 4,
    "the end is late": [(9.9, b"{"), (0.2, b"}")],
}
BAD_TEXT = ["%00", "x=%00", "%FF", "x=%ED%A0%80", "x=%C0%80", "x=a%80", "limit=1&%FF=1"]

Header = tuple[bytes, bytes]


class Exchange:
    """One request, past TestClient: what is sent and when, and what is answered."""

    def __init__(self, pieces: Sequence[tuple[float, bytes]] = [(0, b"")]) -> None:
        self.pieces = list(pieces)
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        seconds, piece = self.pieces.pop(0)
        if seconds:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, MovableLoop)
            loop.call_soon(loop.move, seconds)
            await asyncio.sleep(seconds)
        return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def run(self, app: FastAPI, method: str, path: str, headers: list[Header], **scope: Any) -> httpx2.Response:
        usual = {"type": "http", "http_version": "1.1", "scheme": "http", "query_string": b"", "server": ("a", 80)}
        asked = {"method": method, "path": path, "raw_path": path.encode(), "headers": headers}
        await app(usual | asked | scope, self.receive, self.send)
        start, *bodies = self.sent
        content = b"".join(message.get("body", b"") for message in bodies)
        return httpx2.Response(start["status"], headers=start["headers"], content=content)


@cache
def unstarted(**settings: str) -> TestClient:
    """A service that has opened nothing, for what is answered before it would be needed."""
    given = Settings.model_validate({"database_url": "sqlite:///./unused.db"} | settings)
    return TestClient(create_app(given, password_cost=CHEAP))


def app_of(client: TestClient) -> FastAPI:
    assert isinstance(client.app, FastAPI)
    return client.app


def ask(path: str, headers: list[Header], method: str = "GET", *, allowed_hosts: str = "", **scope: Any) -> int:
    """The status of an answer to just these headers."""
    app = app_of(unstarted(allowed_hosts=allowed_hosts))
    return asyncio.run(Exchange().run(app, method, path, headers, **scope)).status_code


def oauth(detail: str, code: str) -> dict[str, str]:
    return {"detail": detail, "code": code, "error": "invalid_request", "error_description": detail}


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/" + "x" * 8191, 404),
        ("/" + "x" * 8192, 414),
        ("/" + "%41" * 2731, 414),
        ("/health/live?" + "x" * 8180, 200),
        ("/health/live?" + "x" * 8181, 414),
        ("/health/live?" + "x" * 60_000, 414),
    ],
    ids=["path", "long path", "escaped path", "query", "long query", "very long query"],
)
def test_a_url_is_8_kib_at_most(url: str, status: int) -> None:
    response = unstarted().get(url)

    assert response.status_code == status
    assert status != 414 or response.json() == {"detail": URL_TOO_LONG, "code": "url_too_long"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"x", b"y" * 16378)], 200),
        ([(b"x", b"y" * 16379)], 431),
        ([(b"x" * 16380, b"")], 431),
        ([(b"x%d" % n, b"y" * 200) for n in range(100)], 431),
        ([(b"a", b"b")] * 5000, 200),
        ([(b"a", b"b")] * 9000, 431),
        ([(b"authorization", b"x" * 8192)], 200),
        ([(b"authorization", b"x" * 8193)], 431),
    ],
    ids=["16 KiB", "a long value", "a long name", "many", "short ones", "many short ones", "8 KiB", "a long token"],
)
def test_headers_are_16_kib_at_most_and_authorization_8(headers: list[Header], status: int) -> None:
    assert ask("/health/live", [(b"host", b"a"), *headers]) == status


@pytest.mark.parametrize("path", sorted(FORMS))
def test_a_form_endpoint_refuses_a_long_head_in_oauth_s_shape(path: str) -> None:
    long = unstarted().post(f"{path}?{'x' * 8192}")
    large = unstarted().post(path, headers={"X-Filler": "x" * 16384})

    assert (long.status_code, long.json()) == (414, oauth(URL_TOO_LONG, "url_too_long"))
    assert (large.status_code, large.json()) == (431, oauth(HEADERS_TOO_LARGE, "headers_too_large"))


def test_any_host_is_answered_where_none_are_listed() -> None:
    for host in "tasks.example", "evil.example:99", "[::1]", "":
        assert unstarted().get("/openapi.json", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["tasks.example", "TASKS.Example", "tasks.example:8000", "tasks.example:", "[::1]", "[::1]:8000", "10.0.0.7:80"],
)
@pytest.mark.parametrize("hosts", [HOSTS, HOSTS.upper()], ids=["listed", "listed in upper case"])
def test_a_listed_host_is_answered_in_any_letter_case(host: str, hosts: str) -> None:
    assert unstarted(allowed_hosts=hosts).get("/openapi.json", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "tasks.example.evil.example",
        "evil.tasks.example",
        "tasks-example",
        "evil.example:tasks.example",
        "tasks.example:80:80",
        "tasks.example:x",
        "tasks.example@evil.example",
        "evil.example, tasks.example",
        "tasks.example/",
        "tasks.example.",
        "tasks.example\xff",
        "::1",
        "[::2]",
        "[::1",
        "[::1]evil.example",
        "",
    ],
    ids=ascii,
)
def test_a_host_that_is_not_listed_is_refused(host: str) -> None:
    client = unstarted(allowed_hosts=HOSTS)
    headers = {b"Host": host.encode("latin-1"), b"X-Forwarded-Host": b"tasks.example"}

    refused = client.get("/openapi.json", headers=headers)
    form = client.post("/auth/token", headers=headers)

    assert (refused.status_code, refused.json()) == (400, {"detail": UNKNOWN_HOST, "code": "unknown_host"})
    assert (form.status_code, form.json()) == (400, oauth(UNKNOWN_HOST, "unknown_host"))
    assert client.get("/health/live", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/healthy", "/health", "/x/health/live", "/openapi.json"])
def test_only_health_answers_to_every_host(path: str) -> None:
    client = unstarted(allowed_hosts=HOSTS, root_path="/api")

    for prefix in "", "/api":
        assert client.get(f"{prefix}/health/live", headers={"Host": "evil.example"}).status_code == 200
        assert ask(prefix + path, [(b"host", b"evil.example")], allowed_hosts=HOSTS) == 400


@pytest.mark.parametrize("path", ["/health/live", "/openapi.json"])
@pytest.mark.parametrize("hosts", ["", HOSTS], ids=["any", "listed"])
def test_a_request_names_one_host_and_once(path: str, hosts: str) -> None:
    """RFC 9112 §3.2."""
    host = (b"host", b"tasks.example")

    assert ask(path, [host], allowed_hosts=hosts) == 200
    assert ask(path, [], allowed_hosts=hosts) == 400
    assert ask(path, [host, host], allowed_hosts=hosts) == 400
    assert ask(path, [host, (b"host", b"evil.example")], allowed_hosts=hosts) == 400
    assert ask(path, [host, host], allowed_hosts=hosts, http_version="1.0") == 400


def test_http_1_0_may_name_none_where_none_are_listed() -> None:
    assert ask("/openapi.json", [], http_version="1.0") == 200
    assert ask("/openapi.json", [], http_version="1.0", allowed_hosts=HOSTS) == 400


def test_health_answers_to_a_probe_that_names_no_host() -> None:
    assert ask("/health/live", [], http_version="1.0", allowed_hosts=HOSTS) == 200


def test_a_coded_body_is_refused_with_the_coding_that_is_taken() -> None:
    coded = {"Content-Encoding": "gzip"}

    refused = unstarted().post("/users", json={}, headers=coded)
    form = unstarted().post("/auth/token", data={"username": "ada"}, headers=coded)

    assert (refused.status_code, refused.headers["Accept-Encoding"]) == (415, "identity")
    assert refused.json()["detail"] == "The body must be sent without Content-Encoding"
    assert (form.status_code, form.json()["error"]) == (415, "invalid_request")


def test_a_content_coding_matters_only_with_a_body() -> None:
    """A body with the coding "identity" is taken."""
    length, none = (b"content-length", b"1"), (b"content-length", b"0")

    for coding, size, status in (
        (b"gzip", length, 415),
        (b"Identity", length, 404),
        (b"", length, 404),
        (b"gzip", none, 404),
        (b"gzip", (b"x", b"y"), 404),
    ):
        assert ask("/nowhere", [(b"host", b"a"), (b"content-encoding", coding), size], "POST") == status


@pytest.mark.parametrize("path", ["/tasks%2fmine", "/tasks%2Fmine", "/tasks/%2fmine", "/users/me%2f"])
def test_an_encoded_slash_is_no_slash(path: str) -> None:
    """A proxy that looks at paths as they are sent sees another one."""
    refused = unstarted().get(path)

    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("coding", ["x", "gzip", "chunked, gzip", "chunked, chunked", "a: b, chunked", ",chunked", ""])
def test_a_transfer_coding_that_leaves_the_end_open_is_400(coding: str) -> None:
    refused = unstarted().post("/users", headers={"Transfer-Encoding": coding})

    assert (refused.status_code, refused.headers["Connection"]) == (400, "close")
    assert refused.json()["code"] == "invalid_transfer_encoding"


def test_an_unknown_transfer_coding_is_501() -> None:
    """The connection ends."""
    client = unstarted()

    refused = client.post("/users", headers={"Transfer-Encoding": "gzip, chunked"})
    form = client.post("/auth/token", headers={"Transfer-Encoding": "gzip, chunked"})

    assert (refused.status_code, refused.headers["Connection"]) == (501, "close")
    assert (form.status_code, form.json()["error"]) == (501, "invalid_request")
    assert client.post("/nowhere", headers={"Transfer-Encoding": "Chunked"}).status_code == 404


def test_options_of_the_whole_service_are_its_methods() -> None:
    """RFC 9110 §9.3.7."""
    exchange = Exchange()
    app = app_of(unstarted(root_path="/api"))

    answer = asyncio.run(exchange.run(app, "OPTIONS", "*", [(b"host", b"a")]))

    assert (answer.status_code, answer.content) == (204, b"")
    assert "DELETE" in answer.headers["Allow"]


@pytest.mark.parametrize("query", BAD_TEXT)
def test_a_query_that_is_not_text_is_422_or_oauth_s_400(query: str) -> None:
    client = unstarted()
    paths = client.get("/openapi.json").json()["paths"]
    operations = [(method, path) for path, methods in paths.items() for method in methods]

    for method, path in operations:
        response = client.request(method, f"{path}?{query}")
        if path in FORMS:
            assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
        else:
            [fault] = response.json()["detail"]
            assert (response.status_code, fault["loc"]) == (422, ["query"])


def test_a_query_of_raw_bytes_that_are_not_text_is_422() -> None:
    host = [(b"host", b"a")]

    assert ask("/health/live", host, query_string=b"x=\xff") == 422
    assert ask("/health/live", host, query_string="x=é%C3%A9".encode()) == 200


@pytest.mark.parametrize(("path", "header"), [("/users", JSON), ("/auth/token", FORM), ("/auth/revoke", FORM)])
@pytest.mark.parametrize("name", SLOW_BODIES)
def test_a_body_that_is_not_there_in_10_seconds_is_408(path: str, header: Header, name: str) -> None:
    exchange = Exchange(SLOW_BODIES[name])

    with asyncio.Runner(loop_factory=MovableLoop) as runner:
        response = runner.run(exchange.run(app_of(unstarted()), "POST", path, [(b"host", b"a"), header]))

    assert response.status_code == 408
    assert response.json() == (
        oauth(TOO_SLOW, "body_too_slow") if path in FORMS else {"detail": TOO_SLOW, "code": "body_too_slow"}
    )
    assert response.headers["Connection"] == "close"
    assert response.headers["Cache-Control"] == "no-store"
    assert "X-Request-ID" in response.headers


def test_a_body_that_arrives_in_pieces_in_time_is_taken(settings: Settings, clock: MovableClock) -> None:
    """And how long its work takes thereafter is no matter of this limit."""
    app = create_app(settings, clock=clock, password_cost=CHEAP)
    user = b'{"username": "ada", "password": "%s"}' % PASSWORD.encode()
    form = b"username=ada&password=%s" % PASSWORD.replace(" ", "+").encode()

    async def run() -> list[int]:
        async with app.router.lifespan_context(app):
            statuses = []
            for path, body, header in ("/users", user, JSON), ("/auth/token", form, FORM):
                pieces = [(3.0, body[:5]), (3.0, body[5:9]), (3.9, body[9:])]
                response = await Exchange(pieces).run(app, "POST", path, [(b"host", b"a"), header])
                statuses.append(response.status_code)
            return statuses

    with asyncio.Runner(loop_factory=MovableLoop) as runner:
        assert runner.run(run()) == [201, 200]


@pytest.mark.long
def test_the_server_cuts_a_body_that_trickles_in_and_hangs_up(sqlite_url: str) -> None:
    """By the clock on the wall, and as uvicorn has it: a byte each half second."""
    request = b"POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    with services(1, database_url=sqlite_url) as (url,), Connection(httpx2.URL(url).port or 0) as connection:
        began = time.monotonic()
        connection.send(request)
        while not connection.hears_within(0.5):
            connection.send(b" ")
            assert time.monotonic() - began < 60
        took = time.monotonic() - began
        answer = connection.answer()

        assert (answer.status, answer.closes, connection.rest()) == (408, True, b"")
        assert took >= 10


class Unfinished(Exchange):
    """The rest of the body never comes."""

    def __init__(self) -> None:
        super().__init__()
        self.is_waiting = asyncio.Event()

    async def receive(self) -> Message:
        self.is_waiting.set()
        await asyncio.Event().wait()
        return {}

    async def cut_off(self, app: FastAPI, path: str, headers: list[Header]) -> httpx2.Response:
        """Cancel it, as uvicorn does when its time to shut down is up."""
        answer = asyncio.create_task(self.run(app, "POST", path, headers))
        await self.is_waiting.wait()
        answer.cancel()
        return await answer


@pytest.mark.parametrize(("path", "header"), [("/users", JSON), ("/auth/token", FORM)])
def test_a_request_that_the_end_of_the_service_cuts_off_is_503(path: str, header: Header) -> None:
    response = asyncio.run(Unfinished().cut_off(app_of(unstarted()), path, [(b"host", b"a"), header]))

    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert response.json()["detail"] == "The service is shutting down"
    assert response.json().get("error") == ("temporarily_unavailable" if path in FORMS else None)
    assert response.headers["Connection"] == "close"
    assert "X-Request-ID" in response.headers


def test_an_answer_is_cut_off_where_the_service_ends(settings: Settings) -> None:
    app, exchange = create_app(settings, password_cost=CHEAP), Unfinished()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"the first piece"
        await exchange.receive()

    app.add_api_route("/endless", lambda: StreamingResponse(pieces()), methods=["POST"])

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(exchange.cut_off(app, "/endless", [(b"host", b"a")]))
    assert [message["type"] for message in exchange.sent] == ["http.response.start", "http.response.body"]
