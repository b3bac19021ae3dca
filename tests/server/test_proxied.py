"""nginx, HAProxy and Caddy with the README's texts: they pass on what the service takes, and keep the rest out."""

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import httpx2
import pytest

from tests.support.accounts import PASSWORD, bearer
from tests.support.processes import PATIENCE, serving, wait_for
from tests.support.proxies import PROXIES, proxy, replaced
from tests.support.readme import DEPLOY, blocks

ADA = {"username": "ada", "password": PASSWORD}
KIB = 1024
TOO_MANY = {"detail": "Too many requests", "code": "too_many_requests"}
ANY_CERTIFICATE = ssl._create_unverified_context()  # noqa: SLF001 - as the documentation of http.client says


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Front(NamedTuple):
    """A proxy before a service."""

    name: str
    url: str
    behind: str

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send the path unchanged."""
        address = urlsplit(self.url)
        connection = HTTPSConnection(str(address.hostname), address.port, timeout=PATIENCE, context=ANY_CERTIFICATE)
        with closing(connection):
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, fields)
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())

    def log_in(self, **headers: str) -> str:
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        answer = self.ask("POST", "/auth/token", urlencode(ADA), **form, **headers)
        assert answer.status == 200, answer.body
        return str(json.loads(answer.body)["access_token"])


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with a prefix and metrics, where Ada is registered."""
    url = f"sqlite:///{tmp_path_factory.mktemp('behind') / 'tasks.db'}"
    settings: dict[str, Any] = {"root_path": "/api", "metrics": True, "trusted_proxies": "127.0.0.1"}
    with serving("tests.support.cheap_serve", "serve", database_url=url, **settings) as service:
        httpx2.post(f"{service}/users", json=ADA).raise_for_status()
        yield service


@contextmanager
def running(name: str, behind: str, folder: Path, change: Callable[[str], str] = str) -> Iterator[Front]:
    port = urlsplit(behind).port
    assert port
    with proxy(name, [port, port], folder / name, change) as url:
        yield Front(name, url, behind)


@pytest.fixture(scope="module", params=PROXIES)
def front(request: pytest.FixtureRequest, behind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with running(request.param, behind, tmp_path_factory.mktemp("front")) as front:
        yield front


SPELLINGS = "/metrics", "/metrics/", "//metrics", "/%6detrics", "/METRICS", "/metrics?x", "/metrics;x", "/metrics%20"
METRICS = [prefix + spelling for prefix in ("", "/api", "/x/..", "/api/.") for spelling in SPELLINGS]


def test_nobody_outside_reads_the_metrics(front: Front) -> None:
    direct = httpx2.get(f"{front.behind}/api/metrics")
    assert b"http_request_duration" in direct.content

    answers = {path: front.ask("GET", path).status for path in METRICS}

    assert answers == dict.fromkeys(METRICS, 404)


def test_the_proxy_alone_says_who_asks(front: Front) -> None:
    forged = "198.51.100.9"
    token = front.log_in(X_Forwarded_For=forged, Forwarded=f"for={forged}", X_Real_IP=forged)

    sessions = json.loads(front.ask("GET", "/auth/sessions", **bearer(token)).body)["items"]

    assert {session["ip"] for session in sessions} == {"127.0.0.1"}


def test_large_heads_are_passed_on_or_refused(front: Front) -> None:
    def status(headers: dict[str, str]) -> int | None:
        """None for a connection that was closed while the head was sent: HAProxy does not read it to its end."""
        with suppress(OSError):
            return front.ask("GET", "/tasks/", **headers).status
        return None

    for size, expected in (14, {200}), (40, {400, 431, None}):
        many = {f"X{n}": "x" * KIB for n in range(size)}
        assert {status({"X": "x" * size * KIB}), status(many)} <= expected


@pytest.mark.parametrize("is_chunked", [False, True], ids=["with a length", "chunked"])
def test_the_service_refuses_large_bodies_in_its_own_words(front: Front, is_chunked: bool) -> None:
    headers = {"Content_Type": "application/json", **bearer(front.log_in())}

    def create(description: str) -> Answer:
        body = json.dumps({"title": "Large", "description": description}).encode()
        return front.ask("POST", "/tasks/", iter([body[:9], body[9:]]) if is_chunked else body, **headers)

    assert create("x" * 9 * KIB).status == 201
    large = create("x" * 900 * KIB)
    assert (large.status, json.loads(large.body)["code"]) == (413, "body_too_large")


def test_a_client_that_offers_a_websocket_gets_http(front: Front) -> None:
    offer = {"Upgrade": "websocket", "Sec_WebSocket_Version": "13", "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=="}

    assert front.ask("GET", "/tasks/", Connection="Upgrade", **offer).status == 200


CHANGES = {
    "nginx": ("listen 443 ssl;", "listen 443 ssl http2; gzip on; gzip_proxied any; gzip_types application/json;"),
    "haproxy": ("retries 3\n", "retries 3\n compression algo gzip\n compression type application/json\n"),
    "caddy": ("reverse_proxy", "encode gzip\nreverse_proxy"),
}


@pytest.fixture(scope="module", params=PROXIES)
def other_front(
    request: pytest.FixtureRequest, behind: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    """One that compresses. nginx also speaks HTTP/2, which the others do as the README shows them."""
    there, here = CHANGES[request.param]
    folder = tmp_path_factory.mktemp("other_front")
    with running(request.param, behind, folder, lambda text: replaced(text, {there: here})) as front:
        yield front


def test_a_change_is_made_with_the_tag_of_a_compressed_answer(other_front: Front) -> None:
    """nginx and HAProxy make it weak."""
    token = bearer(other_front.log_in())
    task = {"title": "Long", "description": "words " * 300}
    json_headers = {"Content_Type": "application/json", **token}
    created = other_front.ask("POST", "/tasks/", json.dumps(task), **json_headers)
    path = created.headers["location"]

    read = other_front.ask("GET", path, Accept_Encoding="gzip", **token)
    tag = read.headers["etag"]
    assert read.headers["content-encoding"] == "gzip"
    assert tag == ('"1"' if other_front.name == "caddy" else 'W/"1"')
    assert other_front.ask("GET", path, If_None_Match=tag, **token).status == 304

    def change(status: str) -> int:
        body = json.dumps({"status": status})
        return other_front.ask("PATCH", path, body, If_Match=tag, Accept_Encoding="gzip", **json_headers).status

    assert [change("doing"), change("done")] == [200, 412]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_clients_may_speak_http_2(other_front: Front) -> None:
    form = ["-d", urlencode(ADA), f"{other_front.url}/auth/token"]
    shown = ["-sk", "--http2", "-o", os.devnull, "-w", "%{http_version} %{http_code}"]

    said = subprocess.run(["curl", *shown, *form], check=True, capture_output=True, text=True)

    assert said.stdout == "2 200"


def limited(name: str) -> Callable[[str], str]:
    """The README's text with its limits, which forget nothing for as long as a test takes.

    nginx does not count a request that it refuses, and HAProxy does.
    """
    first, second = (textwrap.indent(block, "    ") for block in blocks(name, "Limits at the proxy", DEPLOY))
    if name == "nginx":
        first = replaced(first, {"rate=10r/s": "rate=1r/m", "rate=100r/s": "rate=1r/m"})
        return lambda text: replaced(first + text, {"    location / {": f"{second}\n    location / {{"})
    first = replaced(first, {"http_req_rate(10s)": "http_req_rate(1h)", "gt 1000": "gt 200"})
    second = replaced(second, {"http_req_rate(10s)": "http_req_rate(1h)"})
    return lambda text: replaced(text, {"    default_backend": f"{first}\n    default_backend"}) + second


@pytest.mark.parametrize(("name", "guesses", "others"), [("nginx", 51, 150), ("haproxy", 100, 95)])
def test_a_flood_from_one_address_gets_429(name: str, guesses: int, others: int, behind: str, tmp_path: Path) -> None:
    with (
        running(name, behind, tmp_path, limited(name)) as front,
        httpx2.Client(base_url=front.url, verify=False, timeout=PATIENCE) as client,
    ):
        paths = ["/auth/token", "/api/auth/token/", "/%61uth/token", "/users", "/users/forgot-password"]
        burst = [client.post(paths[n % len(paths)]).status_code for n in range(guesses)]
        refused = [client.post(path) for path in paths]
        lists = [client.get("/tasks/").status_code for _ in range(others)]
        flood = client.get("/tasks/")

    assert 429 not in burst
    assert set(lists) == {200}
    for answer in [*refused, flood]:
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1"), answer.text
        assert answer.json() == {"error": "temporarily_unavailable", **TOO_MANY}


def test_nginx_limits_how_much_one_address_asks_at_once(behind: str, tmp_path: Path) -> None:
    def change(text: str) -> str:
        return replaced(limited("nginx")(text), {"limit_conn connections 100": "limit_conn connections 1"})

    with running("nginx", behind, tmp_path, change) as front:
        address = urlsplit(front.url)
        with closing(HTTPSConnection("localhost", address.port, timeout=PATIENCE, context=ANY_CERTIFICATE)) as post:
            post.putrequest("POST", "/tasks/")
            post.putheader("Content-Length", "1")
            post.putheader("Expect", "100-continue")
            post.endheaders()
            assert post.sock.recv(64) == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert front.ask("GET", "/tasks/").status == 429
        wait_for(lambda: front.ask("GET", "/tasks/").status == 200)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Host:
    """A server that is always ready. It gives each other request this answer, or hangs up if the answer is empty."""

    answer: bytes
    requests: list[str] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    """The seconds from the last answer on each connection to its end."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered = 0.0
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                is_check = " /health/ready " in head
                if not is_check:
                    self.requests.append(head.split(" ")[0])
                writer.write(OK if is_check else self.answer)
                if not is_check and not self.answer:
                    return
                answered = 0 if is_check else time.monotonic()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            if answered:
                self.idle.append(time.monotonic() - answered)
        finally:
            writer.close()


Story = Callable[[httpx2.AsyncClient], Awaitable[None]]


async def ask_through(name: str, folder: Path, host: Host, story: Story) -> None:
    """Play the story of a client and two hosts, which are one, with the proxy between them."""
    server = await asyncio.start_server(host.serve, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    async with server:
        with proxy(name, [port, port], folder / name) as url:
            async with httpx2.AsyncClient(base_url=url, verify=False, timeout=PATIENCE) as client:
                await story(client)


@pytest.mark.parametrize("name", PROXIES)
def test_a_change_that_was_sent_is_not_sent_again(name: str, tmp_path: Path) -> None:
    """A host takes each request and hangs up. Whether it did the work is open."""
    host = Host(b"")

    async def story(client: httpx2.AsyncClient) -> None:
        for method in "POST", "PATCH":
            with suppress(httpx2.RemoteProtocolError):  # HAProxy hangs up too
                assert (await client.request(method, "/tasks", content=b"{}")).status_code == 502

    asyncio.run(ask_through(name, tmp_path, host, story))

    assert host.requests == ["POST", "PATCH"]


@pytest.mark.long
@pytest.mark.parametrize("name", PROXIES)
def test_idle_connections_are_closed_before_the_service_does(name: str, tmp_path: Path) -> None:
    """The service closes them after 5 seconds. This host never does."""
    host = Host(OK)

    async def story(client: httpx2.AsyncClient) -> None:
        for _ in range(3):
            await asyncio.gather(*(client.get("/") for _ in range(20)))
        await asyncio.sleep(6)

    asyncio.run(ask_through(name, tmp_path, host, story))

    assert host.idle
    assert max(host.idle) < 5
