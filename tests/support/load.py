"""Clients that write for as long as a test wants, and know what was acknowledged."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from threading import Event
from typing import Any

import httpx2

from tests.conftest import SECRET
from tests.support import cheap
from tests.support.accounts import PASSWORD, bearer
from tests.support.forks import Fork
from tests.support.processes import PATIENCE, environment, free_port, wait_for

ADA = {"username": "ada", "password": PASSWORD}
WRITERS = 8
PAUSE = 0.1  # seconds before a client tries again
LIMITS = {"login_failures": 1_000_000, "registration_limit": 0}


@dataclass
class Service:
    """`python -m app serve`, in a process group of its own. It writes to a file: an unread pipe would stop it."""

    settings: dict[str, object]
    workers: int
    words: Sequence[str] = cheap.COMMAND
    log: Path = Path("service.log")
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> float:
        """Seconds until it was ready."""
        began = time.monotonic()
        port = "--port", str(self.port)
        environ = environment(**self.settings)
        if self.workers == 1 and "pythonpath" not in self.settings:
            self.process: subprocess.Popen[bytes] | Fork = Fork(*self.words, *port, environ=environ, stdout=self.log)
        else:
            with self.log.open("a") as log:
                command = [sys.executable, "-m", "app", "serve", *port, "--workers", str(self.workers)]
                self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
        wait_for(self.is_ready)
        return time.monotonic() - began

    def is_ready(self) -> bool:
        """Asked with what costs 50 ms less than a client of httpx2."""
        assert self.process.poll() is None, self.log.read_text()
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            try:
                connection.request("GET", "/health/ready")
                return connection.getresponse().status == 200
            except OSError:
                return False

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def running(
    url: str,
    workers: int = 1,
    words: Sequence[str] = cheap.COMMAND,
    log: str = "service.log",
    **settings: object,
) -> Iterator[Service]:
    usual = {"database_url": url, "secret_key": SECRET, "public_url": "http://127.0.0.1:8000", **LIMITS}
    service = Service(usual | settings, workers, words, Path(log))
    service.start()
    try:
        yield service
    finally:
        service.kill()
    assert "Traceback" not in service.log.read_text()


@dataclass
class Writer:
    """A client that repeats what was not answered, or answered 503, and remembers what was acknowledged.

    A session that it ended is over for every service on the database. Each of its requests has its name as the id.
    """

    url: str
    name: str
    services: Sequence[str]
    answers: Counter[int] = field(default_factory=Counter)
    breaks: list[str] = field(default_factory=list)
    successes: list[float] = field(default_factory=list)
    tasks: list[tuple[str, str]] = field(default_factory=list)
    ended: list[dict[str, str]] = field(default_factory=list)

    def work(self, stop: Event) -> None:
        """Log in, create tasks and refresh, log out, and so on."""
        name = {"X-Request-ID": self.name}
        with httpx2.Client(base_url=self.url, timeout=PATIENCE, verify=False, headers=name) as client:
            while not stop.is_set():
                tokens = self._send(client, 200, "POST", "/auth/token", data=ADA).json()
                for _ in range(5):
                    title = f"{self.name}.{len(self.tasks)}"
                    task = {"title": title, "description": f"{title} " * 100}
                    headers = bearer(tokens["access_token"]) | {"Idempotency-Key": title}
                    self._send(client, 201, "POST", "/tasks/", json=task, headers=headers)
                    self.tasks.append((task["title"], task["description"]))
                    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
                    tokens = self._send(client, 200, "POST", "/auth/token", data=form).json()
                    self._send(client, 200, "GET", "/tasks/mine?limit=1", headers=bearer(tokens["access_token"]))
                self._send(client, 200, "POST", "/auth/revoke", data={"token": tokens["refresh_token"]})
                self.ended.append(tokens)
                self._assert_ended(client, tokens)

    def _assert_ended(self, client: httpx2.Client, tokens: dict[str, str]) -> None:
        for url in self.services:
            with suppress(httpx2.TransportError):
                answer = client.get(f"{url}/tasks/mine", headers=bearer(tokens["access_token"]))
                assert answer.status_code in {401, 503}, answer.text

    def _send(self, client: httpx2.Client, expected: int, method: str, path: str, **request: Any) -> httpx2.Response:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                response = client.request(method, path, **request)
            except httpx2.TransportError as error:
                self.breaks.append(f"{method} {path}: {error!r}")
            else:
                self.answers[response.status_code] += 1
                if response.status_code == expected:
                    self.successes.append(time.monotonic())
                    return response
                assert (response.status_code, response.headers.get("Retry-After")) == (503, "1"), response.text
            time.sleep(PAUSE)
        raise AssertionError(f"{method} {path} never succeeded")


@contextmanager
def load(url: str, *others: str) -> Iterator[list[Writer]]:
    """Eight clients of one service, or of several in turn, that write for as long as the context lasts.

    At the end it raises the faults that they found.
    """
    httpx2.post(f"{url}/users", json=ADA, verify=False).raise_for_status()
    urls = [url, *others]
    writers = [Writer(urls[n % len(urls)], f"writer-{n}", urls) for n in range(WRITERS)]
    stop = Event()
    with ThreadPoolExecutor(WRITERS) as pool:
        jobs = [pool.submit(writer.work, stop) for writer in writers]
        try:
            yield writers
        finally:
            stop.set()
            for job in jobs:
                job.result()


def wait_until_written(writers: Sequence[Writer], number: int) -> None:
    """Wait until each of them was acknowledged so much more."""
    goals = [len(writer.successes) + number for writer in writers]
    wait_for(lambda: all(len(writer.successes) >= goal for writer, goal in zip(writers, goals, strict=True)))


def assert_nothing_is_lost(url: str, writers: Sequence[Writer]) -> None:
    """Every acknowledged task is there, whole and once; every session that was ended is over."""
    with httpx2.Client(base_url=url, timeout=PATIENCE, verify=False) as client:
        token = client.post("/auth/token", data=ADA).json()["access_token"]
        stored: list[tuple[str, str]] = []
        path: str | None = "/tasks/mine?limit=100"
        while path:
            page = client.get(path, headers=bearer(token))
            stored += [(task["title"], task["description"]) for task in page.json()["items"]]
            path = page.links["next"]["url"] if page.links else None
        assert sorted(stored) == sorted(task for writer in writers for task in writer.tasks)
        for tokens in (tokens for writer in writers for tokens in writer.ended):
            form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
            assert client.get("/tasks/mine", headers=bearer(tokens["access_token"])).status_code == 401
            assert client.post("/auth/token", data=form).status_code == 400


def assert_unavailable(response: httpx2.Response) -> None:
    assert (response.status_code, response.headers.get("Retry-After")) == (503, "1"), response.text
    assert response.json()["detail"] == "The database is not available", response.text
