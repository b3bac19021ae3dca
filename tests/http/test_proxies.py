"""Only the X-Forwarded-For of TRUSTED_PROXIES counts, read from the right."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import httpx2
import pytest
import uvicorn
from fastapi.testclient import TestClient
from httpx2 import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from app.config import Settings
from app.main import create_app
from app.server.protocol import Protocol
from tests.conftest import CHEAP, MovableClock, on_one_database
from tests.support.accounts import PASSWORD, bearer, register
from tests.support.processes import services

pytestmark = on_one_database

ADA = {"username": "ada", "password": PASSWORD}
BAD_REFRESH = {"grant_type": "refresh_token", "refresh_token": "x"}
CLIENT = "198.51.100.9"
TRUSTED = "10.0.0.0/8, 2001:db8:aaaa::/48, 203.0.113.7"
GARBAGE = (
    "unknown",
    "_hidden",
    f"for={CLIENT}",
    '"198.51.100.9"',
    "'; DROP TABLE sessions; --",
    "[",
    "]",
    "[]",
    "[]:1",
    "[::1",
    "[x]:y",
    "[::1]x",
    ":",
    "::::",
    "%",
    "1.2.3.4%5",
    "fe80::1%" + "z" * 60,
    f"{CLIENT}:x",
    f"{CLIENT}:-1",
    f"{CLIENT}:" + "9" * 5000,
    "9" * 5000,
    "x" * 46,
    "x" * 8000,
    ", " * 4000,
    "10.0.0.2, " * 800,
    "a\tb",
    "\x01\x1f\x7f",
    bytes(range(0x80, 0x100)).decode("latin-1"),
    "\xff" * 46,
    "\xed\xa0\x80",
)


@dataclass
class Network:
    """The network before the service. Each request comes from `peer`. Other servers give a Unix socket none."""

    service: ASGIApp
    peer: str = "10.0.0.1"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.service({**scope, "client": (self.peer, 4711) if self.peer else None}, receive, send)


Connect = Callable[..., tuple[TestClient, Network]]


@pytest.fixture
def connect(settings: Settings, clock: MovableClock) -> Iterator[Connect]:
    """Start a service that trusts these proxies: `connect("10.0.0.0/8")`."""
    with ExitStack() as stack:

        def connect(trusted_proxies: str = "", **changes: int) -> tuple[TestClient, Network]:
            changed = Settings.model_validate(settings.model_dump() | changes | {"trusted_proxies": trusted_proxies})
            network = Network(create_app(changed, clock=clock, password_cost=CHEAP))
            return stack.enter_context(TestClient(network)), network

        yield connect


def forwarded(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"X-Forwarded-For", value.encode("latin-1")) for value in values]


def log_in(client: TestClient, *values: str) -> Response:
    return client.post("/auth/token", data=ADA, headers=forwarded(*values))


def listed_ip(client: TestClient, login: Response) -> str:
    """The address of the login, as its owner sees it."""
    assert login.status_code == 200, login.text
    sessions = client.get("/auth/sessions?limit=100", headers=bearer(login.json()["access_token"])).json()["items"]
    (ip,) = (session["ip"] for session in sessions if session["current"])
    return str(ip)


@pytest.mark.parametrize("trusted", ["", TRUSTED], ids=["by default", "from a stranger"])
def test_a_stranger_has_its_own_address_whatever_it_says(connect: Connect, trusted: str) -> None:
    client, network = connect(trusted)
    register(client)

    for network.peer in "192.0.2.1", "127.0.0.1", "::1", "11.0.0.1", "2001:db8:aaab::1":
        for claimed in CLIENT, "10.0.0.1":
            assert listed_ip(client, log_in(client, claimed, claimed)) == network.peer


def test_an_ipv4_proxy_is_known_on_an_ipv6_socket(connect: Connect) -> None:
    client, network = connect(TRUSTED)
    register(client)

    for network.peer in "::ffff:10.0.0.1", "::ffff:203.0.113.7":
        assert listed_ip(client, log_in(client, CLIENT)) == CLIENT
    for network.peer in "::ffff:11.0.0.1", "::ffff:203.0.113.8":
        assert listed_ip(client, log_in(client, CLIENT)) == network.peer


@pytest.mark.parametrize(("trusted", "ip"), [("127.0.0.1", CLIENT), ("10.0.0.1", "127.0.0.1"), ("", "127.0.0.1")])
def test_a_client_of_a_unix_socket_has_the_address_of_this_host(settings: Settings, trusted: str, ip: str) -> None:
    app = create_app(settings.model_copy(update={"trusted_proxies": (trusted,) * bool(trusted)}), password_cost=CHEAP)
    config = uvicorn.Config(app, http=Protocol, ws="none", lifespan="off", log_config=None, proxy_headers=False)

    async def listed() -> str:
        loop, path = asyncio.get_running_loop(), "service.sock"
        transport = httpx2.AsyncHTTPTransport(uds=path)
        async with (
            app.router.lifespan_context(app),
            await loop.create_unix_server(lambda: Protocol(config, ServerState(), {}, loop), path),
            httpx2.AsyncClient(transport=transport, base_url="http://a", headers=forwarded(CLIENT)) as client,
        ):
            await client.post("/users", json=ADA)
            login = (await client.post("/auth/token", data=ADA)).json()
            sessions = await client.get("/auth/sessions", headers=bearer(login["access_token"]))
            return str(sessions.json()["items"][0]["ip"])

    assert asyncio.run(listed()) == ip


def test_a_client_without_an_address_is_let_in_and_counted(connect: Connect) -> None:
    client, network = connect(TRUSTED, login_failures=1)
    network.peer = ""
    register(client)

    assert listed_ip(client, log_in(client)) == ""
    assert [client.post("/auth/token", data=ADA | {"password": "x"}).status_code for _ in range(2)] == [401, 429]


def test_a_stranger_dodges_no_limit_by_other_addresses(connect: Connect) -> None:
    client, network = connect(TRUSTED, login_failures=2)
    network.peer = "192.0.2.1"
    wrong = ADA | {"password": "wrong horse battery"}

    answers = [client.post("/auth/token", data=wrong, headers=forwarded(f"198.51.100.{n}")) for n in range(3)]

    assert [answer.status_code for answer in answers] == [401, 401, 429]


def test_the_last_forwarded_address_that_is_no_proxy_counts(connect: Connect, subtests: pytest.Subtests) -> None:
    client, network = connect(TRUSTED)
    register(client)

    for peer, *values, expected in (
        ("10.0.0.1", CLIENT, CLIENT),
        ("203.0.113.7", CLIENT, CLIENT),
        ("2001:db8:aaaa::1", CLIENT, CLIENT),
        ("10.0.0.1", f"192.0.2.66, {CLIENT}", CLIENT),
        ("10.0.0.1", f"192.0.2.66,{CLIENT} , 10.0.0.2,203.0.113.7", CLIENT),
        ("10.0.0.1", "192.0.2.66", CLIENT, CLIENT),
        ("10.0.0.1", f"192.0.2.66, {CLIENT}", "10.0.0.2, 10.0.0.3", CLIENT),
        ("10.0.0.1", "x, 10.0.0.2", "x"),
        ("10.0.0.1", f"{CLIENT}:4711", CLIENT),
        ("10.0.0.1", f"{CLIENT}:4711, 10.0.0.2:80", CLIENT),
        ("10.0.0.1", "2001:db8::9", "2001:db8::9"),
        ("10.0.0.1", "[2001:db8::9]", "2001:db8::9"),
        ("10.0.0.1", "[2001:db8::9]:4711, [2001:db8:aaaa::2]:80", "2001:db8::9"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", f"{CLIENT},", "10.0.0.1"),
    ):
        with subtests.test(f"{peer}: {values}"):
            network.peer = peer

            assert listed_ip(client, log_in(client, *values)) == expected


def test_no_other_header_says_who_asks(connect: Connect) -> None:
    client, _ = connect(TRUSTED)
    register(client)
    names = "Forwarded", "X-Real-IP", "X-Client-IP", "CF-Connecting-IP", "True-Client-IP", "X-Forwarded"
    headers = {name: f"for={CLIENT}" if name == "Forwarded" else CLIENT for name in names}

    login = client.post("/auth/token", data=ADA, headers=headers)

    assert listed_ip(client, login) == "10.0.0.1"


def test_a_bad_forwarded_address_breaks_no_login(connect: Connect, subtests: pytest.Subtests) -> None:
    client, _ = connect(TRUSTED)
    register(client)

    for value in GARBAGE:
        with subtests.test(ascii(value[:50])):
            assert len(listed_ip(client, log_in(client, value))) <= 45


def test_a_bad_forwarded_address_is_counted_as_an_address(connect: Connect) -> None:
    client, _ = connect(TRUSTED)

    for n, value in enumerate(["x" * 8000, "\xff" * 46, "[::1", "fe80::1%" + "z" * 60]):
        headers = forwarded(value)
        wrong = client.post("/auth/token", data=ADA, headers=headers)
        refused = client.post("/auth/token", data=BAD_REFRESH, headers=headers)
        registered = client.post("/users", json=ADA | {"username": f"name-{n}"}, headers=headers)
        assert [answer.status_code for answer in (wrong, refused, registered)] == [401, 400, 201]


def test_each_address_has_counts_of_its_own_also_what_is_none(connect: Connect) -> None:
    client, _ = connect(TRUSTED, login_failures=1, registration_limit=1)

    def guess(ip: str) -> int:
        return client.post("/auth/token", data=ADA | {"password": "x"}, headers=forwarded(ip)).status_code

    def refresh(ip: str) -> int:
        return client.post("/auth/token", data=BAD_REFRESH, headers=forwarded(ip)).status_code

    def post(name: str, ip: str) -> int:
        return client.post("/users", json=ADA | {"username": name}, headers=forwarded(ip)).status_code

    for name, ip in ("ada", CLIENT), ("bob", "192.0.2.1"), ("eve", "unknown"), ("mal", "_hidden"):
        assert [guess(ip), guess(ip)] == [401, 429]
        assert [post(name, ip), post(name, ip)] == [201, 429]
    assert [refresh(ip) for ip in [*[CLIENT] * 11, "192.0.2.1"]] == [400] * 10 + [429, 400]


def test_a_served_process_trusts_no_proxy_by_default(sqlite_url: str) -> None:
    """Nor does uvicorn, which trusts loopback unless it is told."""
    with services(1, database_url=sqlite_url) as (url,):
        httpx2.post(f"{url}/users", json=ADA).raise_for_status()
        headers = {"X-Forwarded-For": CLIENT}
        token = httpx2.post(f"{url}/auth/token", data=ADA, headers=headers).raise_for_status().json()["access_token"]
        (session,) = httpx2.get(f"{url}/auth/sessions", headers=bearer(token)).json()["items"]

    assert session["ip"] == "127.0.0.1"
