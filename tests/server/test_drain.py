"""SIGTERM: after DRAIN_SECONDS requests in flight are answered, new ones refused, and stuck clients delay nothing."""

import asyncio
import json
import os
import resource
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from httpx2 import ASGITransport
from sqlalchemy import make_url

from app.config import Settings
from app.main import create_app
from tests.conftest import CHEAP, SECRET, execute
from tests.support.accounts import PASSWORD, bearer
from tests.support.forks import Fork
from tests.support.loops import MovableLoop
from tests.support.processes import PATIENCE, forked, free_port, wait_for, wait_until_ready
from tests.support.scene import arrival

ADA = {"username": "ada", "password": PASSWORD}
SHUTTING_DOWN = {"detail": "The service is shutting down", "code": "shutting_down"}
TASK = json.dumps({"title": "Water the plants"}).encode()


class Service(NamedTuple):
    process: Fork
    port: int
    headers: dict[str, str]

    def begin_post(self) -> HTTPConnection:
        """Send the head of a request whose body the service then waits for."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.putrequest("POST", "/tasks/")
        fields = {"Content-Type": "application/json", "Content-Length": str(len(TASK)), "Expect": "100-continue"}
        for name, value in (self.headers | fields).items():
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.sock.recv(64) == b"HTTP/1.1 100 Continue\r\n\r\n"
        return connection

    def terminate(self) -> float:
        """Send SIGTERM, and wait until the service no longer listens. Return the moment of the signal."""
        sent = time.monotonic()
        self.process.terminate()
        while self.accepts():
            assert time.monotonic() < sent + PATIENCE
            time.sleep(0.01)
        return sent

    def accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except ConnectionRefusedError:
            return False
        return True

    def assert_ended(self, code: int = 0) -> None:
        assert self.process.wait(PATIENCE) == code
        assert "Traceback" not in self.process.output()


def use_up(client: httpx2.Client) -> None:
    """Use its connection until there is none, and none to be had."""
    while True:
        assert client.get("/health/ready").status_code == 200


@contextmanager
def started(*words: str, **settings: Any) -> Iterator[Service]:
    port = free_port()
    with forked(*words, port=port, secret_key=SECRET, **settings) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process)
        httpx2.post(f"{url}/users", json=ADA).raise_for_status()
        token = httpx2.post(f"{url}/auth/token", data=ADA).raise_for_status().json()["access_token"]
        yield Service(process, port, bearer(token))


@pytest.fixture(params=[1, pytest.param(2, marks=pytest.mark.long)], ids=["1 worker", "2 workers"])
def service(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[Service]:
    with started("app", "serve", "--workers", str(request.param), database_url=sqlite_url) as service:
        yield service


def test_requests_in_flight_finish_and_new_ones_are_refused(service: Service) -> None:
    post = service.begin_post()
    with httpx2.Client(base_url=f"http://127.0.0.1:{service.port}") as idle:
        assert idle.get("/health/ready").status_code == 200

        service.terminate()
        with pytest.raises(httpx2.ConnectError):
            use_up(idle)
        post.send(TASK)
        answer = post.getresponse()

    assert answer.status == 201
    assert json.load(answer)["title"] == "Water the plants"
    assert execute(make_url("sqlite:///tasks.db"), "SELECT title FROM tasks") == [("Water the plants",)]
    service.assert_ended()


@pytest.mark.parametrize("service", [1], indirect=True)
def test_requests_in_flight_finish_also_without_free_files(service: Service) -> None:
    post = service.begin_post()
    most = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)[1]
    highest = max(int(file.name) for file in Path(f"/proc/{service.process.pid}/fd").iterdir())
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (highest + 1, most))
    gaps = highest + 1 - len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))
    with ExitStack() as stack:
        stack.callback(post.close)
        for _ in range(gaps):
            stack.enter_context(socket.create_connection(("127.0.0.1", service.port)))

        service.terminate()
        post.send(TASK)

        answer = post.getresponse()
        assert (answer.status, json.load(answer)["title"]) == (201, "Water the plants")
    service.assert_ended()


@pytest.mark.long
def test_a_body_that_never_comes_holds_nothing_up(service: Service) -> None:
    post = service.begin_post()

    service.terminate()

    assert post.getresponse().status == 408
    service.assert_ended()


@pytest.mark.long
def test_a_client_that_never_reads_its_answer_holds_nothing_up(service: Service) -> None:
    task = {"title": "Large", "description": "\N{GRINNING FACE}" * 10_000}
    with httpx2.Client(base_url=f"http://127.0.0.1:{service.port}", headers=service.headers) as client:
        for _ in range(100):
            client.post("/tasks/", json=task).raise_for_status()

    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", service.port))
        head = "GET /tasks/?limit=100 HTTP/1.1\r\nHost: localhost\r\nAuthorization: {Authorization}\r\n\r\n"
        connection.sendall(head.format_map(service.headers).encode() * 16)  # one answer fits into the kernel's buffers
        assert connection.recv(12) == b"HTTP/1.1 200"
        sent = service.terminate()

        service.assert_ended()
        assert time.monotonic() - sent > 8, "there was something to wait for"


@pytest.mark.long
def test_requests_that_wait_for_a_lock_to_the_end_are_503(service: Service) -> None:
    with closing(sqlite3.connect(Path("tasks.db"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        posts = [service.begin_post() for _ in range(4)]
        for post in posts:
            post.send(TASK)

        service.terminate()

        assert [post.getresponse().status for post in posts] == [503] * 4
        service.assert_ended()


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("app serve", signal.SIGHUP),
        pytest.param("app serve", signal.SIGTERM, marks=pytest.mark.long),
        ("app serve --workers 2", signal.SIGTERM),
        pytest.param("uvicorn app.main:app --http app.server.run:Protocol", signal.SIGTERM, marks=pytest.mark.long),
    ],
)
def test_a_service_that_drains_says_so_and_serves_on(words: str, first: signal.Signals, sqlite_url: str) -> None:
    with started(*words.split(), drain_seconds=3600, database_url=sqlite_url) as service:
        base = f"http://127.0.0.1:{service.port}"
        with httpx2.Client(base_url=base, headers=service.headers) as kept:
            assert kept.get("/health/ready").status_code == 200

            if "--workers" in words:
                os.killpg(service.process.pid, first)  # the workers get it twice
            else:
                service.process.send_signal(first)
            wait_for(lambda: httpx2.get(f"{base}/health/ready").status_code == 503)

            assert httpx2.get(f"{base}/health/ready").json() == SHUTTING_DOWN
            assert {httpx2.get(f"{base}/health/live").status_code for _ in range(20)} == {200}
            for client in kept, httpx2:
                created = client.post(f"{base}/tasks/", json={"title": "Water"}, headers=service.headers)
                assert (created.status_code, created.headers.get("Connection")) == (201, None)

        service.terminate()
        service.assert_ended(0 if words.startswith("app") else -signal.SIGTERM)


@pytest.fixture
def stops() -> Iterator[list[signal.Signals]]:
    """The signals that the server got."""
    signals: list[signal.Signals] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: signals.append(signal.Signals(number)))
    yield signals
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("seconds", "later"), [(0, []), (8, [7.9, 0.2])])
def test_the_stop_comes_after_the_drain(
    sqlite_url: str, stops: list[signal.Signals], seconds: int, later: list[float]
) -> None:
    app = create_app(Settings(database_url=sqlite_url, drain_seconds=seconds), password_cost=CHEAP)

    async def story(loop: MovableLoop) -> None:
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=ASGITransport(app), base_url="http://localhost") as client,
        ):
            assert (await client.get("/health/ready")).status_code == 200
            signal.raise_signal(signal.SIGTERM)
            for time_passes in later:
                await arrival()
                assert not stops
                assert (await client.get("/health/ready")).json() == SHUTTING_DOWN
                loop.move(time_passes)
            await arrival()
            assert stops == [signal.SIGTERM]

    with asyncio.Runner(loop_factory=MovableLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, MovableLoop)
        runner.run(story(loop))
