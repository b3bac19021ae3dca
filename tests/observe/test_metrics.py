"""/metrics: what Prometheus reads, whichever worker it asks. No label holds anything that was sent."""

import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from platform import python_version
from typing import Any, cast

import httpx2
import pytest
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Connection, text

from app import __version__
from app.auth.passwords import QUEUE_LENGTH
from tests.conftest import MovableClock, Serve, Sql, on_one_database
from tests.support.accounts import PASSWORD, bearer, create_task, log_in, refresh, refreshed, register, sign_up
from tests.support.forks import Fork
from tests.support.processes import forked, free_port, wait_until_ready

LOCK = 20_261_123
Samples = dict[tuple[str, ...], float]


def samples(answer: httpx2.Response, name: str) -> Samples:
    """The values of a metric by those of its labels."""
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    found = [sample for family in families for sample in family.samples if sample.name == name]
    return {tuple(sample.labels[label] for label in sorted(sample.labels)): sample.value for sample in found}


def names(answer: httpx2.Response) -> set[str]:
    return {sample.name for family in text_string_to_metric_families(answer.text) for sample in family.samples}


def requests(client: TestClient) -> Samples:
    """How many there were, by method, route and status, since the app was made."""
    return samples(client.get("/metrics"), "http_request_duration_seconds_count")


def events(client: TestClient) -> Samples:
    return samples(client.get("/metrics"), "security_events_total")


def difference(now: Samples, before: Samples) -> Samples:
    return {labels: more for labels, value in now.items() if (more := value - before.get(labels, 0))}


@pytest.fixture
def client(serve: Serve) -> TestClient:
    return serve(metrics=True)


@pytest.fixture
def app(client: TestClient) -> FastAPI:
    return cast("FastAPI", client.app)


@pytest.fixture
def portal(client: TestClient) -> BlockingPortal:
    return cast("BlockingPortal", client.portal)


@on_one_database
def test_metrics_are_off_by_default_and_no_part_of_the_api(serve: Serve, client: TestClient) -> None:
    assert serve().get("/metrics").status_code == 404
    assert client.get("/metrics").headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "/metrics" not in client.get("/openapi.json").json()["paths"]


@on_one_database
@pytest.mark.parametrize("path", ["/metrics", "/api/metrics", "/%6detrics", "/api/%6Detrics"])
def test_nobody_reads_metrics_through_a_proxy(serve: Serve, path: str) -> None:
    client = serve(metrics=True, root_path="/api")

    assert client.get(path).status_code == 200
    for header in "X-Forwarded-For", "X-REAL-IP", "Forwarded", "Via":
        for method in "GET", "HEAD":
            assert client.request(method, path, headers={header: ""}).status_code == 404
        refused = client.get(path, headers={header: "192.0.2.7"})
        assert refused.json() == {"detail": "Not Found", "code": "not_found"}


@on_one_database
def test_a_request_is_counted_by_method_route_and_status(client: TestClient) -> None:
    before = requests(client)
    login = sign_up(client)
    for path in "/tasks", "/tasks/?limit=1", "/tasks/?limit=0", "/tasks/x", "/tasks/y", "/tasks/mine", "/users/me":
        client.get(path, headers=login.headers)
    client.head("/tasks/")
    client.get("/auth/token")
    client.get("/docs/files/favicon.png")
    client.get("/docs/files/none.png")

    assert difference(requests(client), before) == {
        ("POST", "/users", "201"): 1,
        ("POST", "/auth/token", "200"): 1,
        ("GET", "/tasks", "200"): 2,
        ("GET", "/tasks", "422"): 1,
        ("GET", "/tasks/{task_id}", "422"): 2,
        ("GET", "/tasks/mine", "200"): 1,
        ("GET", "/users/me", "200"): 1,
        ("HEAD", "/tasks", "200"): 1,
        ("GET", "/auth/token", "405"): 1,
        ("GET", "/docs/files/{path}", "200"): 1,
        ("GET", "/docs/files/{path}", "404"): 1,
        ("GET", "/metrics", "200"): 1,
    }


@on_one_database
def test_unknown_routes_and_methods_share_one_label(client: TestClient) -> None:
    before = requests(client)
    for name in "a", "b":
        client.get(f"/{name}")
        client.get(f"/tasks/{name}/{name}")
        client.request(name, f"/{name}")
        client.get("/tasks/", headers={"Host": name * 9, "X": name * 20_000})

    new = difference(requests(client), before)

    assert new == {
        ("GET", "none", "404"): 4,
        ("other", "none", "404"): 2,
        ("GET", "none", "431"): 2,
        ("GET", "/metrics", "200"): 1,
    }


@on_one_database
@pytest.mark.parametrize("prefix", ["", "/api"])
def test_a_prefix_is_no_part_of_the_route(serve: Serve, prefix: str) -> None:
    client = serve(metrics=True, root_path="/api")
    before = requests(client)
    for path in "/tasks/", "/tasks/x", "/docs", "/docs/files/favicon.png", "/health/live":
        client.get(prefix + path)

    routes = {route for _, route, _ in difference(requests(client), before)}
    assert routes == {"/tasks", "/tasks/{task_id}", "/docs", "/docs/files/{path}", "/health/live", "/metrics"}


@on_one_database
def test_latencies_have_buckets(client: TestClient) -> None:
    client.get("/health/live")

    answer = client.get("/metrics")

    buckets = samples(answer, "http_request_duration_seconds_bucket")
    counts = samples(answer, "http_request_duration_seconds_count")
    sums = samples(answer, "http_request_duration_seconds_sum")
    assert buckets["+Inf", "GET", "/health/live", "200"] == counts["GET", "/health/live", "200"]
    assert 0 < sums["GET", "/health/live", "200"] < 60


@on_one_database
def test_the_build_and_the_process_are_shown(client: TestClient) -> None:
    answer = client.get("/metrics")

    assert samples(answer, "build_info") == {(python_version(), __version__): 1}
    assert samples(answer, "process_resident_memory_bytes")[()] > 10**7
    assert {"process_cpu_seconds_total", "process_open_fds", "process_start_time_seconds"} <= names(answer)


def test_calls_to_the_database_are_timed_and_counted(client: TestClient, sql: Sql) -> None:
    def told(name: str) -> Samples:
        return samples(client.get("/metrics"), name)

    calls, errors = told("database_call_duration_seconds_count"), told("database_errors_total")
    ada = sign_up(client)
    client.get("/tasks/mine", headers=ada.headers)
    create_task(client, ada)
    sql("ALTER TABLE tasks RENAME TO gone")
    try:
        assert client.get("/tasks/mine", headers=ada.headers).status_code == 503
    finally:
        sql("ALTER TABLE gone RENAME TO tasks")

    assert difference(told("database_errors_total"), errors) == {("schema_behind",): 1}
    made = difference(told("database_call_duration_seconds_count"), calls)
    assert made.keys() == {("read",), ("write",), ("autocommit",)}
    assert 0 < told("database_call_duration_seconds_sum")["read",] < 60
    assert ("database_unavailable",) in errors


@on_one_database
def test_events_are_counted_by_their_names_in_the_log(serve: Serve, clock: MovableClock) -> None:
    """These are logins, refreshes, reuse and throttled attempts."""
    client = serve(metrics=True, login_failures=2)
    before = events(client)
    login = sign_up(client)
    register(client, "bob")
    for name in "bob", "bob", "bob":
        client.post("/auth/token", data={"username": name, "password": "wrong"})
    client.get("/tasks/", headers=refreshed(client, login.refresh_token).headers)
    clock.move(seconds=11)
    refresh(client, login.refresh_token)
    refresh(client, "x")
    client.get("/tasks/", headers=bearer("x"))
    log_in(client)

    assert difference(events(client), before) == {
        ("user_registered",): 2,
        ("login_succeeded",): 2,
        ("login_failed",): 2,
        ("throttled",): 1,
        ("token_refreshed",): 1,
        ("token_reused",): 1,
        ("refresh_refused",): 1,
        ("access_refused",): 1,
    }
    assert before.keys() >= {("password_changed",), ("unexpected_error",)}


@on_one_database
def test_the_hashing_queue_is_shown(client: TestClient, app: FastAPI) -> None:
    jobs = app.state.services.passwords._queue.jobs  # noqa: SLF001 - to have the threads work on that many would be a load test
    jobs.update(range(3))

    full = client.get("/metrics")
    jobs.clear()
    empty = client.get("/metrics")

    for answer, used in (full, 3), (empty, 0):
        assert samples(answer, "hashing_queue_used") == {(): used}
        assert samples(answer, "hashing_queue_limit") == {(): QUEUE_LENGTH}


@contextmanager
def locked(url: str, sql: Sql) -> Iterator[Callable[[Connection], object]]:
    """Hold something that the function yielded waits for."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield lambda _: None
    else:
        sql(f"SELECT pg_advisory_lock({LOCK})")
        yield lambda connection: connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        sql(f"SELECT pg_advisory_unlock({LOCK})")


def test_connections_that_are_in_use_are_shown(
    client: TestClient, app: FastAPI, portal: BlockingPortal, database_url: str, sql: Sql
) -> None:
    def used() -> float:
        return samples(client.get("/metrics"), "database_connections_used")[()]

    assert used() == 0
    with locked(database_url, sql) as wait:
        waiting = portal.start_task_soon(app.state.services.database.write, wait)
        deadline = time.monotonic() + 5
        while used() == 0:
            assert time.monotonic() < deadline
    waiting.result()

    assert used() == 0
    assert not re.search("_created[ {]", client.get("/metrics").text)
    limit = 3 if database_url.startswith("sqlite") else 10
    assert samples(client.get("/metrics"), "database_connections_limit") == {(): limit}


class Workers:
    """Two that share a port, and one of which can be made to answer."""

    def __init__(self, url: str, process: Fork) -> None:
        self.url = url
        self.process = process

    @property
    def pids(self) -> set[int]:
        """The children that serve: a fork has no other one, which would look after what they share."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return set(map(int, children.split()))

    def ask(self, pid: int, path: str, **request: Any) -> httpx2.Response:
        """Have this one answer, while the others stand still."""
        others = self.pids - {pid}
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            return httpx2.get(self.url + path, timeout=30, **request)
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)


@pytest.fixture(params=["serve", pytest.param("uvicorn", marks=pytest.mark.long)])
def workers(request: pytest.FixtureRequest, sqlite_url: str, tmp_path: Path) -> Iterator[Workers]:
    (folder := tmp_path / "metrics").mkdir()
    port = free_port()
    words, setting = {
        "serve": (["app", "serve"], "tmpdir"),
        "uvicorn": (["uvicorn", "app.main:app"], "prometheus_multiproc_dir"),
    }[request.param]
    settings: dict[str, Any] = {setting: folder, "database_url": sqlite_url, "metrics": True}
    with forked(*words, "--workers", "2", port=port, **settings) as process:
        wait_until_ready(url := f"http://127.0.0.1:{port}", process)
        yield Workers(url, process)
    assert request.param == "uvicorn" or list(folder.iterdir()) == []


def await_two(folder: Path, pids: Callable[[], set[int]]) -> set[int]:
    """Wait until two workers have written down how much they have of everything."""

    def has_written(pid: int) -> bool:
        values: dict[str, float] = {}
        for file in folder.rglob(f"gauge_livesum_{pid}.db"):
            if file.stat().st_size == 0:  # it is being made
                return False
            values |= {key: value for key, value, *_ in MmapedDict.read_all_values_from_file(file)}  # type: ignore[no-untyped-call]
        return sum(values.values()) > QUEUE_LENGTH

    deadline = time.monotonic() + 60
    while len(found := pids()) < 2 or not all(map(has_written, found)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_any_worker_answers_for_all_also_for_a_dead_one(workers: Workers, tmp_path: Path) -> None:
    """The counts of a worker that died stay."""
    one, two = await_two(tmp_path, lambda: workers.pids)
    for pid, times in (one, 3), (two, 2):
        for _ in range(times):
            assert workers.ask(pid, "/tasks/").status_code == 200
            assert workers.ask(pid, "/tasks/", headers=bearer("x")).status_code == 401

    def assert_all_is_told(pid: int) -> None:
        answer = workers.ask(pid, "/metrics")
        counts = samples(answer, "http_request_duration_seconds_count")
        assert counts["GET", "/tasks", "200"] == counts["GET", "/tasks", "401"] == 5
        assert samples(answer, "security_events_total")["access_refused",] == 5
        assert samples(answer, "hashing_queue_limit") == {(): 2 * QUEUE_LENGTH}
        assert samples(answer, "build_info") == {(python_version(), __version__): 1}
        assert samples(answer, "process_open_fds").keys() == {(str(pid),) for pid in workers.pids}
        assert PASSWORD not in answer.text

    for pid in one, two:
        assert_all_is_told(pid)
    os.kill(one, signal.SIGKILL)
    for pid in await_two(tmp_path, lambda: workers.pids - {one}):
        assert_all_is_told(pid)
