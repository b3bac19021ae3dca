"""The database is restarted, locked, busy, full or read-only: 503 and Retry-After, never 500, and nothing is lost."""

import signal
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import current_thread

import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import URL, Engine, make_url
from sqlalchemy import event as sqlalchemy_event

from app.db.connect import POOL_SIZE, WAIT
from app.db.postgresql import LONG_READS, LONG_READS_EACH
from tests.conftest import Serve, Sql, execute, on_postgresql, on_sqlite
from tests.support.accounts import create_task, refresh, sign_up
from tests.support.databases import transaction
from tests.support.disks import files_no_longer_than
from tests.support.load import (
    ADA,
    PAUSE,
    Writer,
    assert_nothing_is_lost,
    assert_unavailable,
    load,
    running,
    wait_until_written,
)
from tests.support.own_server import Server, durable_database, own_server
from tests.support.processes import PATIENCE, wait_for

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


def waiting(sql: Sql) -> int:
    """How many connections wait for a lock."""
    where = "datname = current_database() AND wait_event_type = 'Lock'"
    return int(sql(f"SELECT count(*) FROM pg_stat_activity WHERE {where}")[0][0])


def test_postgresql_restarted_under_load_loses_nothing() -> None:
    """The service uses it again at once."""
    with own_server() as server, durable_database(server) as url, running(url) as service:
        with load(service.url) as writers:
            recoveries = [restart(server, how, writers) for how in (signal.SIGINT, signal.SIGQUIT)]

        print(f"recovered in {recoveries} s; answers: {sum((writer.answers for writer in writers), Counter())}")
        assert max(recoveries) < PATIENCE / 2
        assert [writer.breaks for writer in writers if writer.breaks] == []
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
    client = serve(database_url=f"{database_url}&options=-cdefault_transaction_isolation%3Dserializable")
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
