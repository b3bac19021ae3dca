"""The database is restarted, locked, busy, full or read-only: 503 and Retry-After, never 500, and nothing is lost."""

import asyncio
import os
import resource
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, current_thread
from typing import Any

import asyncpg
import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import URL, Engine, make_url
from sqlalchemy import event as sqlalchemy_event

from app.db.connect import WAIT
from app.db.postgresql import LONG_READS, LONG_READS_EACH, POOL_SIZE
from tests.conftest import SECRET, Serve, Sql, execute, migrate, new_database
from tests.support import postgres
from tests.support.accounts import PASSWORD, bearer, create_task, refresh, sign_up
from tests.support.processes import environment, free_port

ADA = {"username": "ada", "password": PASSWORD}
WRITERS = 8
PAUSE = 0.1  # seconds before a client tries again
PATIENCE = 60  # seconds after which a test gives up
LIMITS = {"login_failures": 1_000_000, "registration_limit": 0}

CONFLICTS = [
    "CREATE SEQUENCE conflicts",
    """CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('conflicts') <= {times} THEN
            RAISE EXCEPTION 'a conflict' USING ERRCODE = '{code}';
        END IF;
        RETURN NULL;
    END $$""",
    """CREATE CONSTRAINT TRIGGER conflict AFTER INSERT ON tasks
    DEFERRABLE INITIALLY {when} FOR EACH ROW EXECUTE FUNCTION conflict()""",
]

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@dataclass
class Server:
    """A PostgreSQL server of our own, that can be stopped and started."""

    url: URL
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def data(self) -> Path:
        return Path(str(self.url.query["host"]))

    def stop(self, how: signal.Signals) -> None:
        """SIGINT is PostgreSQL's fast shutdown, SIGQUIT its immediate one, SIGKILL a crash of all its processes."""
        first = (self.data / "postmaster.pid").read_text().partition("\n")[0]
        others = subprocess.run(["pgrep", "-P", first], check=True, capture_output=True, text=True).stdout.split()
        for pid in map(int, [first, *others] if how is signal.SIGKILL else [first]):
            with suppress(ProcessLookupError):
                os.kill(pid, how)
        if self.process:
            self.process.wait(PATIENCE)
        else:
            os.waitpid(int(first), 0)

    def start(self) -> None:
        command = shlex.split((self.data / "postmaster.opts").read_text())
        user = self.data.stat().st_uid if os.geteuid() == 0 else None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.process = subprocess.Popen(command, user=user, group=user, stderr=subprocess.DEVNULL)
            while self.process.poll() is None and time.monotonic() < deadline:
                with suppress(asyncpg.PostgresError, OSError):
                    execute(self.url, "SELECT 1")
                    return
                time.sleep(0.01)
        raise AssertionError("PostgreSQL did not start again")


@contextmanager
def own_server() -> Iterator[Server]:
    with ExitStack() as stack:
        try:
            url = stack.enter_context(postgres.server())
        except FileNotFoundError as error:
            (pytest.fail if "CI" in os.environ else pytest.skip)(f"no PostgreSQL of our own: {error}")
        server = Server(make_url(url))
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)


@contextmanager
def durable_database(server: Server) -> Iterator[str]:
    """A migrated database whose commits survive the server's end, which those of the suite's servers need not."""
    with new_database(server.url) as url:
        asyncio.run(migrate(url))
        yield url.update_query_dict({"synchronous_commit": "on"}).render_as_string(hide_password=False)


@dataclass
class Service:
    """`python -m app serve`, in a process group of its own. It writes to a file: an unread pipe would stop it."""

    settings: dict[str, object]
    workers: int
    log: Path = Path("service.log")
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> float:
        """Seconds until it was ready."""
        began = time.monotonic()
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve", "--port", str(self.port), "--workers", str(self.workers)],
                env=environment(**self.settings),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
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
def running(database_url: str, workers: int = 1, **settings: object) -> Iterator[Service]:
    service = Service({"database_url": database_url, "secret_key": SECRET, **LIMITS, **settings}, workers)
    service.start()
    try:
        yield service
    finally:
        service.kill()
    assert "Traceback" not in service.log.read_text()


@dataclass
class Writer:
    """A client that repeats what was not answered, or answered 503, and remembers what was acknowledged."""

    url: str
    name: str
    answers: Counter[int] = field(default_factory=Counter)
    breaks: int = 0
    successes: list[float] = field(default_factory=list)
    tasks: list[tuple[str, str]] = field(default_factory=list)
    ended: list[dict[str, str]] = field(default_factory=list)

    def work(self, stop: Event) -> None:
        """Log in, create tasks and refresh, log out, and so on."""
        with httpx2.Client(base_url=self.url, timeout=PATIENCE) as client:
            while not stop.is_set():
                tokens = self._send(client, 200, "POST", "/auth/token", data=ADA).json()
                for _ in range(5):
                    title = f"{self.name}.{len(self.tasks)}"
                    task = {"title": title, "description": f"{title} " * 300}
                    headers = bearer(tokens["access_token"]) | {"Idempotency-Key": title}
                    self._send(client, 201, "POST", "/tasks/", json=task, headers=headers)
                    self.tasks.append((task["title"], task["description"]))
                    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
                    tokens = self._send(client, 200, "POST", "/auth/token", data=form).json()
                    self._send(client, 200, "GET", "/tasks/mine?limit=1", headers=bearer(tokens["access_token"]))
                self._send(client, 200, "POST", "/auth/revoke", data={"token": tokens["refresh_token"]})
                self.ended.append(tokens)

    def _send(self, client: httpx2.Client, expected: int, method: str, path: str, **request: Any) -> httpx2.Response:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                response = client.request(method, path, **request)
            except httpx2.TransportError:
                self.breaks += 1
            else:
                self.answers[response.status_code] += 1
                if response.status_code == expected:
                    self.successes.append(time.monotonic())
                    return response
                assert_unavailable(response)
            time.sleep(PAUSE)
        raise AssertionError(f"{method} {path} never succeeded")


@contextmanager
def load(url: str) -> Iterator[list[Writer]]:
    """Eight clients that write for as long as the context lasts. What one of them finds wrong is raised at its end."""
    httpx2.post(f"{url}/users", json=ADA).raise_for_status()
    writers = [Writer(url, f"task {n}") for n in range(WRITERS)]
    stop = Event()
    with ThreadPoolExecutor(WRITERS) as pool:
        jobs = [pool.submit(writer.work, stop) for writer in writers]
        try:
            yield writers
        finally:
            stop.set()
            for job in jobs:
                job.result()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.005)


def wait_until_written(writers: Sequence[Writer], number: int) -> None:
    """Wait until each of them was acknowledged so much more."""
    goals = [len(writer.successes) + number for writer in writers]
    wait_for(lambda: all(len(writer.successes) >= goal for writer, goal in zip(writers, goals, strict=True)))


def assert_nothing_is_lost(url: str, writers: Sequence[Writer]) -> None:
    """Every acknowledged task is there, whole and once; every session that was ended is over."""
    with httpx2.Client(base_url=url, timeout=PATIENCE) as client:
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


@contextmanager
def transaction(database_url: str) -> Iterator[Callable[[str], object]]:
    """Another client's, past the service. It is rolled back if it has not been committed."""
    url = make_url(database_url)
    if url.drivername == "sqlite":
        connection = sqlite3.connect(str(url.database), isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection.execute
        finally:
            connection.close()
    else:
        with asyncio.Runner() as runner:
            other = runner.run(asyncpg.connect(database_url))
            try:
                runner.run(other.execute("BEGIN"))
                yield lambda statement: runner.run(other.execute(statement))
            finally:
                runner.run(other.close())


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """No file of this process's grows any longer: to whoever writes, the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def waiting(sql: Sql) -> int:
    """How many connections wait for a lock."""
    where = "datname = current_database() AND wait_event_type = 'Lock'"
    return int(sql(f"SELECT count(*) FROM pg_stat_activity WHERE {where}")[0][0])


def assert_unavailable(response: httpx2.Response) -> None:
    assert (response.status_code, response.headers.get("Retry-After")) == (503, "1"), response.text
    assert response.json()["detail"] == "The database is not available"


def test_postgresql_restarted_under_load_loses_nothing() -> None:
    """The service uses it again at once."""
    with own_server() as server, durable_database(server) as url, running(url) as service:
        with load(service.url) as writers:
            recoveries = [restart(server, how, writers) for how in (signal.SIGINT, signal.SIGQUIT)]

        print(f"recovered in {recoveries} s; answers: {sum((writer.answers for writer in writers), Counter())}")
        assert max(recoveries) < PATIENCE / 2
        assert sum(writer.breaks for writer in writers) == 0
        assert_nothing_is_lost(service.url, writers)


def restart(server: Server, how: signal.Signals, writers: Sequence[Writer]) -> float:
    """Stop the server and start it again; seconds from its return to the first success, after which all succeed."""
    wait_until_written(writers, 5)
    refused = [writer.answers[503] for writer in writers]

    server.stop(how)
    wait_for(lambda: all(writer.answers[503] > n for writer, n in zip(writers, refused, strict=True)))
    server.start()
    returned = time.monotonic()
    wait_until_written(writers, 1)

    return min(moment for writer in writers for moment in writer.successes if moment > returned) - returned


@on_postgresql
def test_without_a_free_connection_the_answer_is_503_in_time(client: TestClient, database_url: str, sql: Sql) -> None:
    """Requests that need no connection go on."""
    with ThreadPoolExecutor(POOL_SIZE + 1) as threads, transaction(database_url) as other:
        other("LOCK TABLE tasks")
        held = [threads.submit(client.get, "/tasks/") for _ in range(POOL_SIZE)]
        wait_for(lambda: waiting(sql) == POOL_SIZE)
        began = time.monotonic()
        refused = threads.submit(client.get, "/tasks/")

        others = ["/health/live", "/.well-known/jwks.json", "/openapi.json", "/tasks/mine"]
        assert [client.get(path).status_code for path in others] == [200, 200, 200, 401]
        assert not refused.done()
        assert_unavailable(refused.result())
        assert time.monotonic() - began < 3
        other("COMMIT")

        assert [answer.result().status_code for answer in held] == [200] * POOL_SIZE


@on_postgresql
@pytest.mark.parametrize("query", ["q=plants", "sort=created_at&due_after=2040-01-01T00:00:00Z"])
def test_anonymous_long_lists_leave_connections_to_others(
    client: TestClient, database_url: str, sql: Sql, query: str
) -> None:
    ada = sign_up(client)
    with ThreadPoolExecutor(2 * POOL_SIZE) as threads, transaction(database_url) as other:
        other("LOCK TABLE tasks")
        lists = [threads.submit(client.get, f"/tasks/public?{query}") for _ in range(POOL_SIZE)]
        wait_for(lambda: waiting(sql) == LONG_READS_EACH)
        lists += [threads.submit(client.get, f"/tasks/mine?{query}", headers=ada.headers) for _ in range(POOL_SIZE)]
        wait_for(lambda: waiting(sql) == LONG_READS)

        assert client.get("/health/ready").status_code == 200
        assert client.post("/auth/token", data=ADA).status_code == 200
        assert client.get("/users/me", headers=ada.headers).status_code == 200
        assert waiting(sql) <= LONG_READS
        other("COMMIT")

        assert {answer.result().status_code for answer in lists} <= {200, 503}


@on_sqlite
def test_a_search_keeps_off_the_event_loop(client: TestClient) -> None:
    """SQLite cannot break it off: while it intersects the lists of two words nothing else would be served."""
    ada = sign_up(client)
    task = create_task(client, ada, is_public=True)
    threads: dict[str, set[str]] = {"MATCH": set(), "FROM tasks": set()}

    def see(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        for part, names in threads.items():
            if part in statement:
                names.add(current_thread().name)

    sqlalchemy_event.listen(Engine, "before_cursor_execute", see)
    try:
        for path, headers in (("/tasks/", {}), ("/tasks/public", ada.headers), ("/tasks/mine", ada.headers)):
            assert client.get(path, params={"q": "water plants"}, headers=headers).json()["items"] == [task]
        assert threads == {"MATCH": {"sqlite-reader_0"}, "FROM tasks": {"sqlite-reader_0"}}
        threads["FROM tasks"].clear()
        due = {"sort": "created_at", "due_after": "2026-01-01T00:00:00Z"}
        for query in {}, due:
            assert client.get("/tasks/mine", params=query, headers=ada.headers).status_code == 200
        assert "sqlite-reader_0" not in threads["FROM tasks"] != set()
    finally:
        sqlalchemy_event.remove(Engine, "before_cursor_execute", see)


@pytest.mark.parametrize("when", ["IMMEDIATE", "DEFERRED"], ids=["in the statement", "at the commit"])
@pytest.mark.parametrize("code", ["40001", "40P01"], ids=["serialization failure", "deadlock"])
@on_postgresql
def test_a_conflict_is_tried_again_and_in_the_end_503(client: TestClient, sql: Sql, code: str, when: str) -> None:
    ada = sign_up(client)
    for statement in CONFLICTS:
        sql(statement.format(code=code, when=when, times=5))
    try:
        refused = client.post("/tasks/", json={"title": "Refused"}, headers=ada.headers)
        create_task(client, ada, "Tried three times")
        create_task(client, ada, "Tried once")
    finally:
        sql("DROP FUNCTION conflict CASCADE")
        sql("DROP SEQUENCE conflicts")

    assert_unavailable(refused)
    assert sql("SELECT title FROM tasks ORDER BY title") == [("Tried once",), ("Tried three times",)]


@on_postgresql
def test_a_change_that_cannot_be_serialized_is_tried_again(serve: Serve, database_url: str, sql: Sql) -> None:
    client = serve(database_url=f"{database_url}&default_transaction_isolation=serializable")
    ada = sign_up(client)
    path = f"/tasks/{create_task(client, ada)['id']}"

    with ThreadPoolExecutor() as threads, transaction(database_url) as other:
        other("UPDATE tasks SET title = 'Theirs', version = version + 1")
        changed = threads.submit(client.patch, path, json={"status": "done"}, headers=ada.headers)
        wait_for(lambda: waiting(sql) == 1)
        other("COMMIT")

        assert changed.result().status_code == 200
        assert (changed.result().json()["title"], changed.result().headers["ETag"]) == ("Theirs", '"3"')


@on_postgresql
def test_nobody_notices_a_migration_that_makes_plans_invalid(client: TestClient, sql: Sql) -> None:
    ada = sign_up(client)
    create_task(client, ada)
    assert client.get("/tasks/mine", headers=ada.headers).status_code == 200
    try:
        sql("ALTER TABLE tasks ALTER title TYPE text")
        read = client.get("/tasks/mine", headers=ada.headers)
        sql("ALTER TABLE tasks ALTER title TYPE varchar(400)")
        create_task(client, ada)
    finally:
        sql("ALTER TABLE tasks ALTER title TYPE varchar(200)")

    assert [task["title"] for task in read.json()["items"]] == ["Water the plants"]


@on_postgresql
def test_a_deadlock_is_tried_again(client: TestClient, database_url: str, sql: Sql) -> None:
    ada = sign_up(client)
    create_task(client, ada)

    with ThreadPoolExecutor() as threads, transaction(database_url) as other:
        other("SET LOCAL deadlock_timeout = '1min'")
        other("UPDATE tasks SET title = 'Theirs'")
        deleted = threads.submit(client.delete, "/users/me", headers=ada.headers)
        wait_for(lambda: waiting(sql) == 1)
        other("UPDATE users SET email = 'theirs@example.com'")
        other("COMMIT")

        assert deleted.result().status_code == 204
    assert sql("SELECT count(*) FROM users") == [(0,)]


@on_postgresql
def test_a_database_that_takes_no_connections_is_503(
    client: TestClient, postgres_server: URL, database_url: str, sql: Sql
) -> None:
    name = make_url(database_url).database
    try:
        execute(postgres_server, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        answers = client.get("/tasks/"), client.post("/auth/token", data=ADA), client.get("/health/ready")
    finally:
        execute(postgres_server, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')

    for answer in answers:
        assert_unavailable(answer)
    assert client.get("/health/ready").status_code == 200


@pytest.mark.long
def test_a_lock_held_too_long_is_503_and_reads_go_on(client: TestClient, database_url: str) -> None:
    """Every request that waits for the lock gets 503."""
    ada = sign_up(client)
    path = f"/tasks/{create_task(client, ada)['id']}"

    def change_title() -> httpx2.Response:
        return client.patch(path, json={"title": "Mine"}, headers=ada.headers)

    with ThreadPoolExecutor() as threads, transaction(database_url) as other:
        other("UPDATE tasks SET title = 'Theirs'")
        began = time.monotonic()
        changes = [threads.submit(change_title) for _ in range(3)]
        while not all(change.done() for change in changes):
            asked = time.monotonic()
            assert client.get(path, headers=ada.headers).json()["title"] == "Water the plants"
            assert time.monotonic() - asked < WAIT
            time.sleep(PAUSE)

        for change in changes:
            assert_unavailable(change.result())
        assert time.monotonic() - began < 3 * WAIT
    assert change_title().status_code == 200


@on_sqlite
def test_a_full_disk_is_503_and_reads_go_on(client: TestClient) -> None:
    ada = sign_up(client)
    create_task(client, ada, "Before")

    with files_no_longer_than(Path("tasks.db-wal").stat().st_size):
        refused = [
            client.post("/tasks/", json={"title": "Refused"}, headers=ada.headers),
            client.post("/auth/token", data=ADA),
            refresh(client, ada.refresh_token),
        ]
        read = client.get("/tasks/", headers=ada.headers)
    create_task(client, ada, "After")

    for response in refused:
        assert_unavailable(response)
    assert [task["title"] for task in read.json()["items"]] == ["Before"]
    assert execute(make_url("sqlite:///tasks.db"), "SELECT title FROM tasks ORDER BY title") == [
        ("After",),
        ("Before",),
    ]
    assert execute(make_url("sqlite:///tasks.db"), "PRAGMA integrity_check") == [("ok",)]
    assert refresh(client, ada.refresh_token).status_code == 200


@on_sqlite
def test_a_read_only_file_is_503_for_writes_alone(serve: Serve) -> None:
    with Path("tasks.db").open("r+b") as file:
        file.seek(18)  # https://www.sqlite.org/fileformat.html §1.3.3: a version to write that nobody knows yet
        file.write(b"\x03")
    client = serve()

    assert_unavailable(client.post("/users", json=ADA))
    assert_unavailable(client.post("/auth/token", data=ADA))
    assert client.get("/tasks/").status_code == 200
