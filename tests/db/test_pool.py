"""The pool of connections to PostgreSQL: which ones it keeps, and what a call does when it gets none."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import URL, Connection, make_url, text
from sqlalchemy.exc import NoResultFound

from app.db.connect import connect
from app.db.database import Database
from app.db.errors import DatabaseReadOnly, DatabaseUnavailable
from app.db.libpq import parse
from tests.conftest import Serve, execute, on_postgresql
from tests.support.accounts import PASSWORD, create_task, sign_up
from tests.support.database_hosts import greet, listening
from tests.support.databases import run
from tests.support.own_server import Server
from tests.support.processes import wait_for

SELECT_PID = text("SELECT pg_backend_pid(), pg_sleep(0.01)")
READ_ONLY = {"detail": "The database is read-only", "code": "database_read_only"}
STANDBY = {"detail": "The database server is a standby, which takes no writes", "code": "database_is_standby"}
LIMIT = 3


@contextmanager
def read_only(server: URL) -> Iterator[None]:
    """The server takes no writes, as where a hoster finds its disk full. Open connections learn of it too."""
    execute(server, "ALTER SYSTEM SET default_transaction_read_only = on")
    try:
        execute(server, "SELECT pg_reload_conf()")
        yield
    finally:
        execute(server, "ALTER SYSTEM RESET default_transaction_read_only")
        execute(server, "SELECT pg_reload_conf()")


def pid(connection: Connection) -> int:
    return int(connection.execute(SELECT_PID).one()[0])


async def pids(database: Database, reads: int = 5) -> set[int]:
    """The server's processes behind so many reads at once."""
    return set(await asyncio.gather(*(database.read(pid) for _ in range(reads))))


def write_where_nothing_is_written(connection: Connection) -> None:
    connection.exec_driver_sql("SET TRANSACTION READ ONLY")
    connection.exec_driver_sql("DELETE FROM users")


@on_postgresql
def test_writes_go_on_once_a_read_only_server_takes_them_again(serve: Serve, server: Server, url: URL) -> None:
    client = serve(database_url=url.render_as_string(hide_password=False))
    ada = sign_up(client, "reader")

    def ready() -> int:
        return client.get("/health/ready").status_code

    with read_only(server.url):
        wait_for(lambda: ready() == 503)
        refused = client.post("/tasks/", json={"title": "Refused"}, headers=ada.headers)
        answers = (
            client.get("/health/ready"),
            refused,
            client.post("/users", json={"username": "bob"} | {"password": PASSWORD}),
        )
        assert [(answer.status_code, answer.json()) for answer in answers] == [(503, READ_ONLY)] * 3
        assert client.get("/tasks/mine", headers=ada.headers).status_code == 200
    wait_for(lambda: ready() == 200)

    for n in range(12):
        create_task(client, ada, f"Task {n}")


@on_postgresql
def test_ready_tells_a_standby_until_it_is_promoted(serve: Serve, server: Server, url: URL) -> None:
    server.stop(signal.SIGINT)
    (server.data / "standby.signal").touch()
    server.start()
    client = serve(database_url=url.render_as_string(hide_password=False))

    standby = client.get("/health/ready")
    execute(server.url, "SELECT pg_promote()")

    assert (standby.status_code, standby.json()) == (503, STANDBY)
    assert client.get("/health/ready").status_code == 200


def test_a_connection_that_closes_as_it_opens_is_unavailable(postgres_url: str) -> None:
    """A server or a pooler that is killed does that to a client that has just connected."""

    async def check() -> None:
        async with listening(greet(make_url(postgres_url))) as place:
            url = parse(f"postgresql://postgres@{place.address}/postgres?sslmode=disable")
            async with connect(url) as database:
                with pytest.raises(DatabaseUnavailable):
                    await database.read(pid)
                with pytest.raises(DatabaseUnavailable):
                    await database.write(pid)

    asyncio.run(check())


def test_an_error_of_a_function_stays_its_own(postgres_url: str) -> None:
    async def check(database: Database) -> None:
        with pytest.raises(NoResultFound):
            await database.read(lambda connection: connection.execute(text("SELECT 1 WHERE false")).one())

    run(postgres_url, check)


def test_a_refused_write_replaces_every_connection(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one does so after a pause: a server that stays read-only is not flooded with connections."""

    async def check(database: Database) -> None:
        before = await pids(database)
        monkeypatch.setattr("app.db.postgresql.PAUSE", 0)
        await refuse(database)
        monkeypatch.setattr("app.db.postgresql.PAUSE", 3600)
        after = await pids(database)
        await refuse(database)

        assert len(before) == len(after) == 5
        assert not before & after
        assert await pids(database) <= after

    async def refuse(database: Database) -> None:
        with pytest.raises(DatabaseReadOnly):
            await database.write(write_where_nothing_is_written)

    run(postgres_url, check)


def test_a_server_that_has_gone_silent_is_left(server: Server, url: URL) -> None:
    """The call that finds out ends a second after the time that a statement may take. The next ones need not wait."""

    async def check(database: Database) -> None:
        before = await pids(database)
        silent = await database.read(pid)
        os.kill(silent, signal.SIGSTOP)
        try:
            with pytest.raises(DatabaseUnavailable):
                await asyncio.gather(*(database.read(pid) for _ in before))
            assert not before & await pids(database)
        finally:
            os.kill(silent, signal.SIGCONT)

    run(url.render_as_string(hide_password=False), check, wait=0.2)


def test_calls_wait_where_a_server_allows_few_connections(server: Server, url: URL) -> None:
    execute(server.url, f"CREATE ROLE few LOGIN CONNECTION LIMIT {LIMIT}")

    async def check(database: Database) -> None:
        assert len(await pids(database, 20)) == LIMIT
        assert database.usage() == (0, 10)

    run(url.set(username="few").render_as_string(hide_password=False), check)


def test_calls_do_not_wait_where_it_allows_none(server: Server, url: URL) -> None:
    execute(server.url, "CREATE ROLE nothing LOGIN CONNECTION LIMIT 0")

    async def check(database: Database) -> None:
        with pytest.raises(DatabaseUnavailable):
            await database.read(pid)

    run(url.set(username="nothing").render_as_string(hide_password=False), check)


@on_postgresql
def test_a_process_works_with_one_connection(serve: Serve) -> None:
    client = serve(pool_size=1)
    ada = sign_up(client)
    task = create_task(client, ada)

    for path in "/tasks/mine", "/tasks/mine?q=plants", "/users/me", "/users/me/export", "/health/ready":
        assert client.get(path, headers=ada.headers).status_code == 200
    assert client.patch(f"/tasks/{task['id']}", json={"status": "done"}, headers=ada.headers).status_code == 200
    assert client.delete("/users/me", headers=ada.headers).status_code == 204
