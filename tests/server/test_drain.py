"""SIGTERM: requests in flight are answered, new ones refused, and stuck clients do not delay the end."""

import json
import resource
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from sqlalchemy import make_url

from tests.conftest import SECRET, execute
from tests.support.accounts import PASSWORD, bearer
from tests.support.forks import Fork
from tests.support.processes import PATIENCE, forked, free_port, wait_until_ready

ADA = {"username": "ada", "password": PASSWORD}
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

    def assert_ended(self) -> None:
        assert self.process.wait(PATIENCE) == 0
        assert "Traceback" not in self.process.output()


def use_up(client: httpx2.Client) -> None:
    """Use its connection until there is none, and none to be had."""
    while True:
        assert client.get("/health/ready").status_code == 200


@pytest.fixture(params=[1, pytest.param(2, marks=pytest.mark.long)], ids=["1 worker", "2 workers"])
def service(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[Service]:
    port = free_port()
    words = ("app", "serve", "--workers", str(request.param))
    with forked(*words, port=port, database_url=sqlite_url, secret_key=SECRET) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process)
        httpx2.post(f"{url}/users", json=ADA).raise_for_status()
        token = httpx2.post(f"{url}/auth/token", data=ADA).raise_for_status().json()["access_token"]
        yield Service(process, port, bearer(token))


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
        connection.sendall(head.format_map(service.headers).encode())
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
