"""Connecting to PostgreSQL: a server that serves is found, whatever the others do, and faults are 503 in words."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from struct import pack
from typing import Any, cast
from urllib.parse import quote

import asyncpg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Connection, make_url

from app import SLUG
from app.db.connect import connect
from app.db.errors import DatabaseIsStandby, DatabaseReadOnly, DatabaseUnavailable
from app.db.hosts import POOL_WAIT, Failures, Hosts, race
from app.db.libpq import parse
from tests.conftest import SECRET, Serve, Sql, on_postgresql
from tests.support.command_line import run
from tests.support.database_hosts import (
    Handle,
    Lines,
    Place,
    after_starttls,
    certificate,
    close_at_once,
    hand_to,
    listening,
    say_nothing,
)
from tests.support.loops import MovableLoop
from tests.support.processes import free_port

READ_ONLY = "-cdefault_transaction_read_only%3Don"


class Stage:
    """A database, and places that lead to it or not, in a loop whose clock the test moves."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self.url = make_url(url)
        self._stack = stack

    async def open(self, handle: Handle, **options: Any) -> Place:
        return await self._stack.enter_async_context(listening(handle, **options))

    def hosts(self, *addresses: str, **parameters: str) -> Hosts:
        name = self.url.database
        query = "".join(f"&{name}={value}" for name, value in parameters.items())
        return Hosts(parse(f"postgresql://postgres@/{name}?host={','.join(addresses)}{query}"), 5)

    async def connect(self, hosts: Hosts) -> asyncpg.Connection:
        connection = await hosts.connect()
        self._stack.callback(connection.terminate)
        assert await connection.fetchval("SELECT 1") == 1
        return connection


Story = Callable[[Stage], Awaitable[None]]


@pytest.fixture
def play(postgres_url: str) -> Callable[[Story], None]:
    def play(story: Story) -> None:
        async def main() -> None:
            async with AsyncExitStack() as stack:
                await story(Stage(postgres_url, stack))

        with asyncio.Runner(loop_factory=MovableLoop) as runner:
            runner.run(main())

    return play


Play = Callable[[Story], None]


def move(seconds: float) -> None:
    cast("MovableLoop", asyncio.get_running_loop()).move(seconds)


def test_a_silent_host_hides_no_other_and_is_asked_no_more(play: Play) -> None:
    async def story(stage: Stage) -> None:
        dead, good = await stage.open(say_nothing), await stage.open(hand_to(stage.url))
        hosts = stage.hosts(dead.address, good.address)

        first = asyncio.create_task(stage.connect(hosts))
        await dead.accepted.acquire()
        assert good.met == 0
        move(POOL_WAIT / 2)
        await first
        await stage.connect(hosts)

        assert (dead.met, good.met) == (1, 2)

    play(story)


@pytest.mark.parametrize("fault", ["refuses", "closes"])
def test_a_host_that_fails_is_passed_over_at_once(play: Play, fault: str) -> None:
    async def story(stage: Stage) -> None:
        bad = f"127.0.0.1:{free_port()}" if fault == "refuses" else (await stage.open(close_at_once)).address
        good = await stage.open(hand_to(stage.url))

        await stage.connect(stage.hosts(bad, good.address))

    play(story)


def test_the_first_host_is_asked_alone_while_it_serves(play: Play) -> None:
    async def story(stage: Stage) -> None:
        good, other = await stage.open(hand_to(stage.url)), await stage.open(hand_to(stage.url))
        hosts = stage.hosts(good.address, other.address)

        await stage.connect(hosts)
        await stage.connect(hosts)

        assert (good.met, other.met) == (2, 0)

    play(story)


def test_a_connection_that_arrives_too_late_is_closed(play: Play) -> None:
    async def story(stage: Stage) -> None:
        gate = asyncio.Event()
        slow = await stage.open(hand_to(stage.url, gate))
        good, also_good = [await stage.open(hand_to(stage.url, gate)) for _ in range(2)]
        hosts = stage.hosts(slow.address, good.address, also_good.address, application_name="late")

        task = asyncio.create_task(stage.connect(hosts))
        await slow.accepted.acquire()
        move(POOL_WAIT / 2)
        await good.accepted.acquire()
        await also_good.accepted.acquire()
        gate.set()
        connection = await task
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'late'"
        while await connection.fetchval(count) > 1:
            pass

    play(story)


def test_one_of_two_connections_at_the_same_moment_is_closed(play: Play) -> None:
    async def fail() -> asyncpg.Connection:
        raise Failures({})

    async def open_before(connection: asyncpg.Connection) -> asyncpg.Connection:
        return connection

    async def story(stage: Stage) -> None:
        place = await stage.open(hand_to(stage.url))
        hosts = stage.hosts(place.address)
        both = [await stage.connect(hosts) for _ in range(2)]

        chosen = await race([fail, *(partial(open_before, connection) for connection in both)], 60, 2)
        await asyncio.sleep(0)

        assert [connection.is_closed() for connection in both] == [connection is not chosen for connection in both]

    play(story)


def test_a_request_that_ends_early_leaves_no_connection(play: Play) -> None:
    async def story(stage: Stage) -> None:
        gate = asyncio.Event()
        slow, other = await stage.open(hand_to(stage.url, gate)), await stage.open(hand_to(stage.url, gate))

        task = asyncio.create_task(stage.connect(stage.hosts(slow.address, other.address)))
        await slow.accepted.acquire()
        task.cancel()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    play(story)  # it waits until the places have no client


def test_each_address_of_a_name_is_asked(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(stage: Stage) -> None:
        dead = await stage.open(say_nothing, host="127.0.0.2")
        good = await stage.open(hand_to(stage.url), port=dead.port)
        monkeypatch.setattr(socket, "getaddrinfo", names({"db.example": ["127.0.0.2", "127.0.0.1"]}))
        hosts = stage.hosts(f"db.example:{dead.port}")

        first = asyncio.create_task(stage.connect(hosts))
        await dead.accepted.acquire()
        move(POOL_WAIT / 4)
        await first
        await stage.connect(hosts)

        assert (dead.met, good.met) == (1, 2)

    play(story)


def names(known: dict[str, list[str]]) -> Callable[..., list[Any]]:
    """A resolver that knows some names."""

    def getaddrinfo(host: str, *_: object, **__: object) -> list[Any]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in known[host]]

    return getaddrinfo


def test_a_name_that_is_not_known_is_told(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(stage: Stage) -> None:
        monkeypatch.setattr(socket, "getaddrinfo", names({}))
        with pytest.raises(DatabaseUnavailable) as caught:
            await stage.connect(stage.hosts("db.example", "127.0.0.1:1"))
        assert caught.value.reason == "db.example:5432: Name or service not known; 127.0.0.1:1: Connection refused"

    play(story)


def test_silent_hosts_take_no_longer_than_a_connection_may(play: Play) -> None:
    async def story(stage: Stage) -> None:
        one, other = await stage.open(say_nothing), await stage.open(say_nothing)
        task = asyncio.create_task(stage.connect(stage.hosts(one.address, other.address)))
        await one.accepted.acquire()
        move(POOL_WAIT / 2)
        await other.accepted.acquire()
        move(POOL_WAIT / 2)
        with pytest.raises(DatabaseUnavailable) as caught:
            await task
        assert sorted(caught.value.reason.split("; ")) == sorted(
            f"{place.address}: does not answer" for place in (one, other)
        )

    play(story)


TARGETS: list[tuple[str, dict[str, str], type[DatabaseUnavailable] | None, str]] = [
    ("primary", {"target_session_attrs": "read-write"}, None, ""),
    ("primary", {"target_session_attrs": "primary"}, None, ""),
    ("primary", {"target_session_attrs": "any"}, None, ""),
    ("primary", {"target_session_attrs": "prefer-standby"}, None, ""),
    ("primary", {"target_session_attrs": "read-only"}, DatabaseUnavailable, "takes writes"),
    ("primary", {"target_session_attrs": "standby"}, DatabaseUnavailable, "takes writes"),
    ("read-only", {}, DatabaseReadOnly, "is read-only"),
    ("read-only", {"target_session_attrs": "read-only"}, None, ""),
    ("read-only", {"target_session_attrs": "primary"}, None, ""),
    ("standby", {}, DatabaseIsStandby, "is a standby"),
    ("standby", {"target_session_attrs": "primary"}, DatabaseIsStandby, "is a standby"),
    ("standby", {"target_session_attrs": "standby"}, None, ""),
    ("standby", {"target_session_attrs": "prefer-standby"}, None, ""),
    ("pooler", {}, None, ""),
]
"""The server, the parameters of the URL, and the reason why the server is not taken."""


def row_of(*, is_standby: bool) -> bytes:
    """A DataRow of two booleans: PostgreSQL's manual, 53.7."""
    return b"D" + pack("!ihi?i?", 16, 2, 1, is_standby, 1, is_standby)


@pytest.mark.parametrize(("server", "parameters", "fault", "words"), TARGETS)
def test_a_server_is_taken_that_is_what_the_url_asks_for(
    play: Play, server: str, parameters: dict[str, str], fault: type[DatabaseUnavailable] | None, words: str
) -> None:
    def edit(answer: bytes) -> bytes:
        """Say what a standby says, or what a pooler does when its server has been one."""
        if server == "standby":
            return answer.replace(row_of(is_standby=False), row_of(is_standby=True))
        return (
            answer.replace(b"\x17in_hot_standby\0off\0", b"\x16in_hot_standby\0on\0") if server == "pooler" else answer
        )

    async def story(stage: Stage) -> None:
        place = await stage.open(hand_to(stage.url, edit=edit))
        read_only = {"options": READ_ONLY} if "read-only" in server else {}
        hosts = stage.hosts(place.address, **parameters, **read_only)
        if fault is None:
            await stage.connect(hosts)
            return
        with pytest.raises(DatabaseUnavailable) as caught:
            await stage.connect(hosts)
        assert type(caught.value) is fault
        assert caught.value.reason == f"{place.address}: {words}"

    play(story)


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_tls_verifies_the_name_and_not_the_address(
    play: Play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, negotiation: str
) -> None:
    file, tls = certificate("db.example", tmp_path)
    verify = {"sslmode": "verify-full", "sslrootcert": str(file), "sslnegotiation": negotiation}

    async def story(stage: Stage) -> None:
        hand = hand_to(stage.url)
        direct = negotiation == "direct"
        place = await stage.open(hand if direct else after_starttls(hand, tls), tls=tls if direct else None)
        monkeypatch.setattr(socket, "getaddrinfo", names({"db.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]}))

        await stage.connect(stage.hosts(f"db.example:{place.port}", **verify))
        with pytest.raises(DatabaseUnavailable, match="Hostname mismatch"):
            await stage.connect(stage.hosts(f"other.example:{place.port}", **verify))

    play(story)


def test_certificates_of_this_host_do_not_vouch_for_ours(play: Play, tmp_path: Path) -> None:
    _, tls = certificate("db.example", tmp_path)

    async def story(stage: Stage) -> None:
        place = await stage.open(after_starttls(hand_to(stage.url), tls))
        with pytest.raises(DatabaseUnavailable, match="self-signed certificate"):
            await stage.connect(stage.hosts(place.address, sslrootcert="system"))

    play(story)


@pytest.mark.parametrize(
    ("parameters", "user_timeout"), [({}, 5000), ({"tcp_user_timeout": "8000"}, 8000), ({"tcp_user_timeout": "0"}, 0)]
)
def test_a_host_that_acknowledges_nothing_is_given_up(
    play: Play, parameters: dict[str, str], user_timeout: int
) -> None:
    async def story(stage: Stage) -> None:
        place = await stage.open(hand_to(stage.url))
        connection = await stage.connect(stage.hosts(place.address, keepalives_count="3", **parameters))
        options = connection._transport.get_extra_info("socket")  # noqa: SLF001 - asyncpg has no public way

        assert options.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert options.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
        assert options.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == user_timeout

    play(story)


def test_a_lost_connection_leaves_the_silent_ones_at_once(play: Play) -> None:
    """To close a silent one politely would take seconds, and the clock does not move."""

    def run(connection: Connection, statement: str = "SELECT 1") -> None:
        connection.exec_driver_sql(statement)

    async def story(stage: Stage) -> None:
        lines = Lines(stage.url)
        place = await stage.open(lines)
        async with connect(make_url(f"postgresql://postgres@{place.address}/{stage.url.database}")) as database:
            waiting = asyncio.create_task(database.read(run, "SELECT pg_sleep(600)"))
            await place.accepted.acquire()
            await database.read(run)
            lines.lose_all()
            lines.cut(0)
            with pytest.raises(DatabaseUnavailable):
                await waiting
            await database.read(run)
            assert place.met == 3

    play(story)


def test_an_error_of_the_server_says_in_one_line_what_it_is(play: Play) -> None:
    fields = b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0Hcanary\0\0"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
        await writer.drain()

    async def story(stage: Stage) -> None:
        place = await stage.open(refuse)
        with pytest.raises(DatabaseUnavailable) as caught:
            await stage.connect(stage.hosts(place.address, sslmode="disable"))
        assert caught.value.reason == f"{place.address}: password authentication failed"

    play(story)


@on_postgresql
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ("dbname=none", 'database "none" does not exist'),
        ("user=nobody", 'role "nobody" does not exist'),
        ("options=-cnonsense%3D1", 'unrecognized configuration parameter "nonsense"'),
        ("hostaddr=127.0.0.1&port=1", "Connection refused"),
    ],
)
def test_a_fault_while_connecting_is_503_and_a_reason(
    serve: Serve, database_url: str, caplog: pytest.LogCaptureFixture, changes: str, reason: str
) -> None:
    settings = {"database_url": f"{database_url}&password=l0velace&{changes}", "secret_key": SECRET}
    client = serve(**settings)

    answers = [client.get(path) for path in ("/health/ready", "/tasks/public")]
    answers.append(client.post("/auth/token", data={"username": "ada", "password": "correct horse"}))
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert reason not in answer.text
    assert [record.getMessage().endswith(f": {reason}") for record in caplog.records if record.name == "app.db.hosts"]
    migrated, checked = run("migrate", **settings), run("check", **settings)
    assert (migrated.exit_code, checked.exit_code) == (1, 1)
    assert migrated.stderr.endswith(f": {reason}\n")
    assert migrated.stderr.count("\n") == 1
    assert f": {reason}.\n" in checked.stdout
    assert "l0velace" not in caplog.text + migrated.output + checked.output


@on_postgresql
@pytest.mark.parametrize(
    "spelling", ["@127.0.0.1:1,{}/{}", "@/{1}?host=127.0.0.1:1,{0}", "@/{1}?host=127.0.0.1:1&host={0}"]
)
def test_service_and_commands_find_the_host_that_serves(serve: Serve, database_url: str, spelling: str) -> None:
    url = make_url(database_url)
    several = spelling.format(quote(str(url.query["host"]), safe=""), url.database)
    settings = {"database_url": f"postgres://postgres{several}", "secret_key": SECRET}

    assert serve(**settings).get("/health/ready").status_code == 200
    assert run("migrate", **settings).exit_code == 0


@on_postgresql
def test_a_parameter_without_effect_is_told_once_at_the_start(
    serve: Serve, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"database_url": f"{database_url}&connect_timeout=10", "secret_key": SECRET}
    message = "DATABASE_URL: connect_timeout has no effect, because the driver does not know it"

    assert serve(**settings).get("/health/ready").status_code == 200

    assert [record.getMessage() for record in caplog.records if "DATABASE_URL" in record.getMessage()] == [message]
    assert run("migrate", **settings).stderr == f"warning: {message}\n"


@on_postgresql
def test_postgresql_knows_the_connections_by_the_services_name(client: TestClient, sql: Sql) -> None:
    assert client.get("/health/ready").status_code == 200

    assert sql(f"SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = '{SLUG}'") == [(True,)]
