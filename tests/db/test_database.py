"""Read and write: what they promise on each database, and what happens when it is slow, locked or gone."""

import asyncio
import os
import signal
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Literal, cast

import asyncpg
import pytest
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from app.db.connect import POOL_SIZE, connect
from app.db.database import ANYONE, Database, expect_long
from app.db.errors import DatabaseUnavailable, SchemaBehind
from app.db.hosts import POOL_WAIT
from app.db.postgresql import LONG_READS, LONG_READS_EACH
from app.db.sqlite import SQLite
from app.db.sqlite_connections import WAL_BYTES
from tests.support.databases import run

TURNS = 30
INSERT = (
    "INSERT INTO users (id, username, password_hash, created_at, updated_at) VALUES "
    "('01a208ee-44d3-7a4d-9bb2-174358b45b5e', 'ada', '', '2026-11-23T09:00:00Z', '2026-11-23T09:00:00Z')"
)
LIST_TO = text("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :most) SELECT i FROM n")
COUNT_TO = text(LIST_TO.text.replace("SELECT i FROM", "SELECT max(i) FROM"))


def insert(connection: Connection) -> None:
    connection.exec_driver_sql(INSERT)


def count(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT count(*) FROM users").scalar_one())


def test_a_write_is_committed_when_it_returns(database_url: str) -> None:
    async def check(database: Database) -> None:
        await database.write(insert)
        assert await database.read(count) == 1

    run(database_url, check)


def test_a_write_that_raises_leaves_nothing(database_url: str) -> None:
    def insert_and_fail(connection: Connection) -> None:
        insert(connection)
        raise LookupError

    async def check(database: Database) -> None:
        with pytest.raises(LookupError):
            await database.write(insert_and_fail)
        assert await database.read(count) == 0

    run(database_url, check)


def test_a_faulty_statement_is_no_fault_of_the_database(database_url: str) -> None:
    async def check(database: Database) -> None:
        await database.write(insert)
        with pytest.raises(IntegrityError):
            await database.write(insert)

    run(database_url, check)


def test_sqlite_is_durable_and_checks_foreign_keys(sqlite_url: str) -> None:
    def pragmas(connection: Connection) -> list[object]:
        names = "journal_mode", "synchronous", "foreign_keys"
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    async def check(database: Database) -> None:
        full = 2
        assert await database.read(pragmas) == ["wal", full, 1]
        assert await database.write(pragmas) == ["wal", full, 1]

    run(sqlite_url, check)


def test_sqlites_files_are_for_their_owner() -> None:
    async def check(database: Database) -> None:
        await database.write(lambda connection: connection.exec_driver_sql("CREATE TABLE t (n)"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in Path.cwd().iterdir()}
        assert modes == dict.fromkeys(["new.db", "new.db-wal", "new.db-shm"], 0o600)

    run("sqlite:///new.db", check)


def test_an_old_schema_is_told_from_an_absent_database(database_url: str) -> None:
    async def check(database: Database) -> None:
        for statement in "SELECT n FROM nowhere", "SELECT nowhere FROM users":
            with pytest.raises(SchemaBehind):
                await database.read(lambda c: c.execute(text(statement)))  # noqa: B023

    run(database_url, check)


def test_sqlite_reads_never_wait_and_writes_wait_for_others(sqlite_url: str) -> None:
    """A read does not wait for a writer; a write waits for another process."""
    other = sqlite3.connect(Path("tasks.db"), isolation_level=None)

    async def check(database: Database) -> None:
        other.execute("BEGIN IMMEDIATE")
        other.execute(INSERT)
        waiting = asyncio.create_task(database.write(count))
        await asyncio.sleep(0)
        assert await database.read(count) == 0
        other.execute("COMMIT")
        assert await waiting == 1

    run(sqlite_url, check)
    other.close()


def test_sqlite_reads_let_the_wal_be_emptied(sqlite_url: str) -> None:
    """A read leaves no statement open."""
    other = sqlite3.connect(Path("tasks.db"), isolation_level=None)

    async def check(database: Database) -> None:
        await database.write(insert)
        of_users = text(f"{LIST_TO.text} JOIN users ON true")
        assert await database.read(lambda c: next(iter(c.execute(of_users, {"most": 9}))).i) == 1
        is_busy, *_ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not is_busy

    run(sqlite_url, check)
    other.close()


def test_sqlite_that_stays_locked_is_unavailable(sqlite_url: str) -> None:
    other = sqlite3.connect(Path("tasks.db"), isolation_level=None)

    async def check() -> None:
        async with connect(make_url(sqlite_url), wait=0.02) as database:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(DatabaseUnavailable):
                await database.write(insert)
            other.execute("COMMIT")
        async with connect(make_url(sqlite_url)) as database:
            await database.write(insert)

    asyncio.run(check())
    other.close()


def test_sqlites_writers_give_way_to_one_another(sqlite_url: str) -> None:
    """Both write without a pause, and each gets its turn. With SQLite's own way to wait, one waited for seconds."""

    async def check() -> None:
        async with connect(make_url(sqlite_url), 60) as one, connect(make_url(sqlite_url), 60) as another:
            turns: list[str] = []

            async def write(name: str, database: Database) -> None:
                while turns.count("one") < TURNS or turns.count("another") < TURNS:
                    await database.write(count)
                    turns.append(name)

            await asyncio.gather(write("one", one), write("another", another))
            assert min(turns.count("one"), turns.count("another")) > len(turns) / 10

    asyncio.run(check())


def test_sqlite_waits_for_another_process_to_make_the_file() -> None:
    other = sqlite3.connect(Path("new.db"), isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE t (n)")
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.1, other.execute, ["COMMIT"])
    release.start()

    async def check(database: Database) -> None:
        journal = await database.read(lambda c: c.exec_driver_sql("PRAGMA journal_mode").scalar_one())
        assert journal == "wal"

    run("sqlite:///new.db", check)
    release.join()
    other.close()


def test_sqlite_whose_maker_never_ends_is_unavailable() -> None:
    other = sqlite3.connect(Path("new.db"), isolation_level=None)
    other.execute("CREATE TABLE t (n)")
    other.execute("BEGIN IMMEDIATE")

    async def check(database: Database) -> None:
        with pytest.raises(DatabaseUnavailable):
            await database.read(count)

    run("sqlite:///new.db", check, wait=0)
    other.close()


def test_postgresql_callers_get_connections_in_order(postgres_url: str) -> None:
    """A caller who asks again at once waits behind those who wait already."""
    turns = [0] * 3 * POOL_SIZE

    async def check(database: Database) -> None:
        async def read(caller: int) -> None:
            while sum(turns) < TURNS * len(turns):
                await database.read(count)
                turns[caller] += 1

        await asyncio.gather(*map(read, range(len(turns))))
        assert min(turns) > TURNS / 2

    run(postgres_url, check)


def test_postgresql_connections_closed_by_it_are_replaced(postgres_url: str) -> None:
    async def check(database: Database) -> None:
        await asyncio.gather(*(database.read(count) for _ in range(5)))
        killer = await asyncpg.connect(postgres_url)
        await killer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'tests'"
        )
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        while await killer.fetchval(f"{others} AND pid <> pg_backend_pid() AND application_name <> 'tests'"):
            pass
        await killer.close()
        await asyncio.sleep(0.2)  # the end of each socket is on its way

        assert await asyncio.gather(*(database.read(count) for _ in range(5))) == [0] * 5
        await database.write(insert)

    run(postgres_url, check)


def test_postgresql_ends_a_statement_that_takes_too_long(postgres_url: str) -> None:
    def sleep_too_long(connection: Connection) -> None:
        connection.execute(text("SET LOCAL statement_timeout = 20"))
        connection.execute(text("SELECT pg_sleep(30)"))

    async def check(database: Database) -> None:
        assert await database.read(lambda c: c.execute(text("SHOW statement_timeout")).scalar_one()) == "5s"
        with pytest.raises(DatabaseUnavailable):
            await database.write(sleep_too_long)
        with pytest.raises(ProgrammingError):
            await database.read(lambda c: c.execute(text("SELEC")))

    run(postgres_url, check)


@pytest.mark.long
def test_a_silent_postgresql_does_not_delay_the_end(postgres_url: str) -> None:
    async def check(database: Database) -> None:
        pids = await asyncio.gather(*(database.read(backend) for _ in range(5)))
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            await database.close()
            assert time.monotonic() - began < 10 * POOL_WAIT
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def backend(connection: Connection) -> int:
        connection.execute(text("SELECT pg_sleep(0.1)"))
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())

    run(postgres_url, check)


def test_sqlite_reads_that_are_long_hold_nobody_up(sqlite_url: str) -> None:
    async def check(database: Database) -> None:
        threads: dict[int, list[str]] = {10: [], 1_000_000: []}

        def count_to(connection: Connection, most: int) -> int:
            threads[most].append(threading.current_thread().name)
            return int(connection.execute(COUNT_TO, {"most": most}).scalar_one())

        long = asyncio.create_task(database.read(count_to, 1_000_000))
        await asyncio.sleep(0)  # until it has been interrupted
        assert await database.read(count_to, 10) == 10
        assert not long.done()
        assert await long == 1_000_000
        here = threading.current_thread().name
        assert threads == {10: [here], 1_000_000: [here, "sqlite-reader_0"]}
        for _ in range(5_000):
            assert await database.read(count_to, 10) == 10
        assert set(threads[10]) == {here}

    run(sqlite_url, check)


def test_endless_sqlite_reads_are_given_up_with_those_waiting(sqlite_url: str) -> None:
    """The reads that wait for a thread are given up too."""

    def count_for_ever(connection: Connection) -> None:
        connection.execute(COUNT_TO, {"most": 10**12}).scalar_one()

    async def check(database: Database) -> None:
        reads = await asyncio.gather(*(database.read(count_for_ever) for _ in range(3)), return_exceptions=True)
        assert [type(read) for read in reads] == [DatabaseUnavailable] * 3
        assert await database.read(count) == 0

    run(sqlite_url, check, wait=0.1)


def test_sqlite_compiles_no_statement_again_after_a_long_read(sqlite_url: str) -> None:
    compiled: list[int] = []

    def see_compiling(connection: Connection) -> None:
        def see(action: int, *_: object) -> int:
            compiled.append(action)
            return sqlite3.SQLITE_OK

        cast("sqlite3.Connection", connection.connection.driver_connection).set_authorizer(see)

    def list_to(connection: Connection, most: int) -> int:
        return len(connection.execute(LIST_TO, {"most": most}).all())

    async def check(database: Database) -> None:
        assert await database.read(list_to, 100_000) == 100_000
        await database.read(see_compiling)
        assert await database.read(list_to, 10) == 10
        assert compiled
        compiled.clear()
        for _ in range(5):
            assert await database.read(list_to, 10) == 10
        assert compiled == []

    run(sqlite_url, check)


def test_sqlite_that_is_closed_waits_for_no_long_read(sqlite_url: str) -> None:
    async def check() -> None:
        async with connect(make_url(sqlite_url), wait=60) as database:
            endless = asyncio.create_task(database.read(lambda c: c.execute(COUNT_TO, {"most": 10**12}).all()))
            await asyncio.sleep(0.01)
            endless.cancel()
            began = time.monotonic()
        assert time.monotonic() - began < 30

    asyncio.run(check())


def test_sqlite_writes_give_up_waiting_in_time(sqlite_url: str) -> None:
    async def check(database: Database) -> None:
        with pytest.raises(DatabaseUnavailable):
            await database.write(insert)
        assert await database.read(count) == 0

    run(sqlite_url, check, wait=0)


def test_sqlite_never_runs_a_write_given_up_at_its_deadline(sqlite_url: str) -> None:
    """The write before it may take long. By then the client has got its 503."""
    release, ran = threading.Event(), list[str]()

    async def check(database: Database) -> None:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def hold(connection: Connection) -> None:
            loop.call_soon_threadsafe(begun.set)
            release.wait()

        assert isinstance(database, SQLite)
        database.wait = 3600
        first = asyncio.create_task(database.write(hold))
        await begun.wait()
        database.wait = 0.001
        with pytest.raises(DatabaseUnavailable):
            await database.write(lambda _: ran.append("the one that waited"))
        assert not first.done()
        release.set()
        await first
        database.wait = 3600
        await database.write(lambda _: ran.append("a later one"))
        assert ran == ["a later one"]

    run(sqlite_url, check)


def test_sqlite_rolls_back_a_write_at_its_deadline(sqlite_url: str) -> None:
    def insert_and_count_for_ever(connection: Connection) -> None:
        insert(connection)
        connection.execute(COUNT_TO, {"most": 10**12}).scalar_one()

    async def check(database: Database) -> None:
        with pytest.raises(DatabaseUnavailable):
            await database.write(insert_and_count_for_ever)
        assert await database.read(count) == 0

    run(sqlite_url, check, wait=0.05)


def test_a_write_whose_caller_is_gone_is_not_kept(database_url: str) -> None:
    async def check(database: Database) -> None:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def insert_and_dawdle(connection: Connection) -> None:
            insert(connection)
            loop.call_soon_threadsafe(begun.set)
            slow = COUNT_TO if connection.dialect.name == "sqlite" else text("SELECT pg_sleep(30 + :most * 0)")
            connection.execute(slow, {"most": 10**12})

        running = asyncio.create_task(database.write(insert_and_dawdle))
        await begun.wait()
        others = [asyncio.create_task(database.write(insert))] if database.dialect == "sqlite" else []
        await asyncio.sleep(0)  # until they wait for the first
        for task in *others, running:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await database.write(count) == 0

    run(database_url, check)


def test_sqlite_callers_take_turns_at_long_reads(sqlite_url: str) -> None:
    """Another caller waits for one of them at most, however many a caller has."""
    release, turns = threading.Event(), list[str]()

    def search(connection: Connection, caller: str) -> None:
        expect_long(connection, "search")
        turns.append(f"{caller} on {threading.current_thread().name}")
        release.wait()

    async def check(database: Database) -> None:
        callers = [ANYONE, ANYONE, ANYONE, "ada", "ada", "bob"]
        reads = [database.read_for(caller, search, caller) for caller in callers]
        tasks = [asyncio.create_task(read) for read in reads]
        await asyncio.sleep(0.01)
        assert await database.read(count) == 0
        release.set()
        await asyncio.gather(*tasks)
        order = [ANYONE, "ada", "bob", ANYONE, "ada", ANYONE]
        assert turns == [f"{caller} on sqlite-reader_0" for caller in order]

    run(sqlite_url, check)


@pytest.mark.parametrize("kind", ["search", "walk"])
def test_postgresql_long_reads_share_some_connections(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, kind: Literal["search", "walk"]
) -> None:
    """Each caller has a share of these in turn."""

    def wait_for_lock(connection: Connection) -> None:
        expect_long(connection, kind)
        connection.execute(text("SELECT pg_advisory_xact_lock(1)"))

    async def check(database: Database) -> None:
        other = await asyncpg.connect(postgres_url)
        await other.execute("SELECT pg_advisory_lock(1)")
        callers = [ANYONE] * POOL_SIZE + ["ada"] * POOL_SIZE
        reads = [asyncio.create_task(database.read_for(caller, wait_for_lock)) for caller in callers]
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while await other.fetchval(waits) < LONG_READS:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert await asyncio.gather(*(database.read(count) for _ in range(POOL_SIZE))) == [0] * POOL_SIZE
        assert await other.fetchval(waits) == LONG_READS == 2 * LONG_READS_EACH
        monkeypatch.setattr("app.db.postgresql.POOL_WAIT", 0.01)
        with pytest.raises(DatabaseUnavailable):
            await database.read_for("bob", wait_for_lock)
        monkeypatch.undo()
        await other.close()
        await asyncio.wait(reads)

    run(postgres_url, check)


def test_sqlites_wal_is_emptied_between_long_reads(sqlite_url: str) -> None:
    """If long reads follow each other without a gap, SQLite alone never starts the file from its beginning."""

    async def check(database: Database) -> None:
        async with grown_wal(database):
            pass
        await database.read(expect_long, "search")
        assert wal_size() == 0
        assert await database.read(count) == 1

    run(sqlite_url, check)


def test_a_long_read_of_another_process_delays_no_read(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.db.sqlite.CHECKPOINTS", 2)

    async def check(database: Database) -> None:
        async with grown_wal(database):
            await database.read(expect_long, "search")
            assert wal_size() > WAL_BYTES
        await database.read(expect_long, "search")
        assert wal_size() == 0

    run(sqlite_url, check)


def test_the_wal_shrinks_after_another_process_s_long_read(sqlite_url: str) -> None:
    async def check(database: Database) -> None:
        async with grown_wal(database):
            pass
        for email in "a", "b":
            await database.write(lambda c: c.exec_driver_sql(f"UPDATE users SET email = '{email}'"))  # noqa: B023
        assert wal_size() <= WAL_BYTES

    run(sqlite_url, check)


def test_a_huge_wal_is_emptied_beside_the_writers(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit copies it to the file: that would take seconds. It shrinks without another write."""
    monkeypatch.setattr("app.db.sqlite.HUGE_WAL_BYTES", WAL_BYTES)
    monkeypatch.setattr("app.db.sqlite.HUGE_WAL_PERIOD", 0.001)

    def pages(connection: Connection) -> int:
        return int(connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar_one())

    async def check(database: Database) -> None:
        async with grown_wal(database):
            assert await database.write(pages) == 0
            await database.read(expect_long, "search")
            assert wal_size() > WAL_BYTES
        while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert wal_size() == 0
        assert await database.write(pages) == 1_000
        assert await database.read(count) == 1

    run(sqlite_url, check)


@asynccontextmanager
async def grown_wal(database: Database) -> AsyncIterator[None]:
    """Write more than the WAL should hold, while another process reads an older state."""
    await database.write(insert)
    with closing(sqlite3.connect(Path("tasks.db"), isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM users").fetchone()
        for _ in range(6):
            await database.write(
                lambda c: c.exec_driver_sql("UPDATE users SET password_hash = hex(randomblob(500000))")
            )
        assert wal_size() > WAL_BYTES
        yield


def wal_size() -> int:
    return Path("tasks.db-wal").stat().st_size
