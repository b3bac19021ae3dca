"""A request that is cut off between any two statements leaves the old state or the new one, and its retry succeeds."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import count
from multiprocessing.context import ForkServerContext
from typing import Any, NamedTuple

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi.testclient import TestClient
from sqlalchemy import Connection, Engine, Pool, delete, event, text

from app.auth.models import User
from app.config import Settings
from app.db.connect import connect
from app.db.database import Database
from app.main import create_app
from tests.conftest import CHEAP, MovableClock, Serve
from tests.support.accounts import PASSWORD, Login, log_in, refreshed, register
from tests.support.processes import ROOT

TABLES = ("users", "sessions", "tasks")
BRIEF = {
    "users": "SELECT username, email, updated_at FROM users ORDER BY id",
    "sessions": "SELECT generation, rotated_at, ended_at, end_reason FROM sessions ORDER BY rotated_at, generation",
    "tasks": "SELECT title, version FROM tasks ORDER BY id",
}


class Scene(NamedTuple):
    """Ada has refreshed once, more than a grace ago; she has another session, and a task made with a key."""

    first: Login
    latest: Login
    task: dict[str, Any]

    @property
    def headers(self) -> dict[str, str]:
        return self.latest.headers


class Request(NamedTuple):
    method: str
    path: str
    options: dict[str, Any]


def refresh_with(token: str) -> dict[str, Any]:
    return {"data": {"grant_type": "refresh_token", "refresh_token": token}}


CREDENTIALS = {"username": "ada", "password": PASSWORD}
KEY = {"Idempotency-Key": "a key"}
NEW_PASSWORD = {"current_password": PASSWORD, "new_password": "another horse battery"}

REQUESTS: dict[str, Callable[[Scene], Request]] = {
    "register": lambda _: Request("POST", "/users", {"json": CREDENTIALS | {"username": "bob"}}),
    "log in": lambda _: Request("POST", "/auth/token", {"data": CREDENTIALS}),
    "refresh": lambda scene: Request("POST", "/auth/token", refresh_with(scene.latest.refresh_token)),
    "reuse": lambda scene: Request("POST", "/auth/token", refresh_with(scene.first.refresh_token)),
    "revoke": lambda scene: Request("POST", "/auth/revoke", {"data": {"token": scene.latest.access_token}}),
    "delete the other sessions": lambda scene: Request("DELETE", "/auth/sessions", {"headers": scene.headers}),
    "change the password": lambda scene: Request(
        "PUT", "/users/me/password", {"json": NEW_PASSWORD, "headers": scene.headers}
    ),
    "change the profile": lambda scene: Request(
        "PATCH", "/users/me", {"json": {"email": "ada@example.org"}, "headers": scene.headers}
    ),
    "delete the user": lambda scene: Request("DELETE", "/users/me", {"headers": scene.headers}),
    "create a task": lambda scene: Request(
        "POST", "/tasks/", {"json": {"title": "Another"}, "headers": scene.headers | {"Idempotency-Key": "new"}}
    ),
    "repeat a create": lambda scene: Request(
        "POST", "/tasks/", {"json": {"title": "Water the plants"}, "headers": scene.headers | KEY}
    ),
    "change a task": lambda scene: Request(
        "PATCH", f"/tasks/{scene.task['id']}", {"json": {"title": "Changed"}, "headers": scene.headers}
    ),
    "delete a task": lambda scene: Request("DELETE", f"/tasks/{scene.task['id']}", {"headers": scene.headers}),
}


SEVERAL_WRITES = ("log in", "reuse", "change the password", "delete the user", "create a task")


class Committed:
    """The committed rows, as another connection sees them, and the scene."""

    def __init__(self, portal: BlockingPortal, database: Database, client: TestClient, clock: MovableClock) -> None:
        self._portal = portal
        self._database = database
        self._client = client
        self._clock = clock
        self._start = clock.now

    def rows(self) -> list[list[Any]]:
        return self._read([f"SELECT * FROM {table} ORDER BY id" for table in TABLES])

    def brief(self) -> list[list[Any]]:
        """The rows that are the same however often the scene is set."""
        return self._read(list(BRIEF.values()))

    def set_scene(self) -> Scene:
        self._portal.call(partial(self._database.write, lambda connection: connection.execute(delete(User))))
        self._clock.now = self._start
        register(self._client)
        first = log_in(self._client)
        self._clock.move(minutes=1)
        log_in(self._client)
        latest = refreshed(self._client, first.refresh_token)
        headers = latest.headers | KEY
        task = self._client.post("/tasks/", json={"title": "Water the plants"}, headers=headers).json()
        self._clock.move(minutes=1)
        return Scene(first, latest, task)

    def _read(self, statements: list[str]) -> list[list[Any]]:
        def read(connection: Connection) -> list[list[Any]]:
            return [list(map(tuple, connection.execute(text(statement)))) for statement in statements]

        rows: list[list[Any]] = self._portal.call(partial(self._database.read, read))
        return rows


@pytest.fixture
def client(serve: Serve) -> TestClient:
    """A login that was cut off stays counted as failed."""
    return serve(login_failures=1_000, registration_limit=0)


@pytest.fixture
def committed(settings: Settings, clock: MovableClock, client: TestClient) -> Iterator[Committed]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(connect(settings.database)) as database:
        yield Committed(portal, database, client, clock)


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> ForkServerContext:
    """Processes that have imported the service when they start."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


class Cut(ConnectionError):
    """The connection is gone."""


class Moments:
    """Counts the moments after each statement and before each commit, and does something at one of them."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self.count = 0
        self._at = at
        self._act = act

    def pass_one(self, *_: object) -> None:
        self.count += 1
        if self.count == self._at:
            self._act()


@contextmanager
def at_moment(at: int, act: Callable[[], None], *others: tuple[type[Any], str]) -> Iterator[Moments]:
    moments = Moments(at, act)
    places: list[tuple[type[Any], str]] = [(Engine, "after_cursor_execute"), (Engine, "commit"), *others]
    for target, name in places:
        event.listen(target, name, moments.pass_one)
    try:
        yield moments
    finally:
        for target, name in places:
            event.remove(target, name, moments.pass_one)


def cut() -> None:
    raise Cut


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def send(client: TestClient, request: Request) -> int:
    status: int = client.request(request.method, request.path, **request.options).status_code
    return status


def send_and_die(settings: Settings, now: datetime, request: Request, moment: int) -> None:
    """In a process of its own. A moment more: a connection comes back to the pool when its transaction is over."""
    app = create_app(settings, clock=lambda: now, password_cost=CHEAP)
    with TestClient(app) as client, at_moment(moment, die, (Pool, "checkin")):
        send(client, request)


@pytest.mark.parametrize(
    "name", [n if n in SEVERAL_WRITES else pytest.param(n, marks=pytest.mark.long) for n in REQUESTS]
)
def test_a_request_cut_off_leaves_the_old_state_or_the_new(client: TestClient, committed: Committed, name: str) -> None:
    scene = committed.set_scene()
    with at_moment(0, cut) as moments:
        status = send(client, REQUESTS[name](scene))
    new = committed.brief()

    scene = committed.set_scene()
    old = committed.rows()
    for moment in range(1, moments.count + 1):
        with at_moment(moment, cut):
            assert send(client, REQUESTS[name](scene)) == 503
        if committed.rows() != old:
            assert committed.brief() == new
            scene = committed.set_scene()
            old = committed.rows()

    assert moments.count
    assert send(client, REQUESTS[name](scene)) == status
    assert committed.brief() == new


@pytest.mark.long
@pytest.mark.parametrize("name", REQUESTS)
def test_a_killed_process_leaves_the_old_state_or_the_new(
    client: TestClient,
    settings: Settings,
    committed: Committed,
    clock: MovableClock,
    forks: ForkServerContext,
    name: str,
) -> None:
    scene = committed.set_scene()
    status = send(client, REQUESTS[name](scene))
    new = committed.brief()

    scene = committed.set_scene()
    old = committed.rows()
    killed = {"old": 0, "new": 0}
    for moment in count(1):
        process = forks.Process(target=send_and_die, args=(settings, clock.now, REQUESTS[name](scene), moment))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        is_old = committed.rows() == old
        killed["old" if is_old else "new"] += 1
        assert not is_old or send(client, REQUESTS[name](scene)) == status
        assert committed.brief() == new
        scene = committed.set_scene()
        old = committed.rows()

    print(killed)
    assert min(killed.values()) > 0
    assert committed.brief() == new
