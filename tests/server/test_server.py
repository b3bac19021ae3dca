"""The protocol under the application: what no application gets to see has an end, in bytes and in time."""

import asyncio
import gc
import json
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import weakref
from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined]
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from app.config import Settings
from app.main import create_app
from app.server import open_files
from app.server.protocol import Protocol
from app.server.run import Config, Server
from tests.conftest import CHEAP
from tests.support.loops import MovableLoop
from tests.support.processes import command, free_port, wait_until_ready

LIVE = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = LIVE.replace(b"/health/live", b"/slow")
POST = b"POST /users HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
KIB = 1024
LARGE = 64 * KIB * KIB
ENDLESS = {
    "method": (b"", b"A"),
    "URL": (b"GET /", b"a"),
    "name of a header": (LIVE[:-2], b"x"),
    "header": (LIVE[:-2] + b"X: ", b"x"),
    "headers": (LIVE[:-2], b"X: y\r\n"),
    "trailer": (CHUNKED + b"X: ", b"x"),
    "trailers": (CHUNKED, b"X: y\r\n"),
    "extension of a chunk": (CHUNKED[:-3] + b"1;", b"x"),
    "extensions of many chunks": (CHUNKED[:-3], b"1;" + b"x" * 250 + b"\r\nx\r\n"),
}
GARBAGE = {
    "NUL": b"\0",
    "no request line": b"garbage garbage\r\n\r\n",
    "a tunnel": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n" + LIVE,
    "a head without end": b"GET / HTTP/1.1\r\nX: " + b"x" * 70 * KIB,
    "a malformed body": POST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n",
    "a malformed body, later": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nx\r\n",
}


class Client(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()
        await arrival()

    async def status(self) -> int:
        """Read an answer."""
        return (await self.answer())[0]

    async def answer(self) -> tuple[int, bytes, bytes]:
        """Read an answer: its status, its head and its body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return int(head.split()[1]), head, await self.reader.readexactly(int(length or 0))

    async def rest(self) -> list[int]:
        """Read the answers until the service closes the connection; their statuses."""
        return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", await self.reader.read())]

    def drop(self) -> None:
        """Have the service see a reset, not an end, when this is closed."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async def is_open(self) -> bool:
        await arrival()
        return not self.reader.at_eof()


async def arrival() -> None:
    """Let the loop turn until what is on its way between two sockets of this process has arrived."""
    for _ in range(20):
        await asyncio.sleep(0)


class Scene(NamedTuple):
    client: Client
    loop: MovableLoop
    release: asyncio.Event
    """What /slow waits for, and what /stream sets at its end."""
    state: ServerState

    async def wait(self, seconds: float) -> bool:
        """Let time pass; whether the connection is still there."""
        self.loop.move(seconds)
        return await self.client.is_open()


Story = Callable[[Scene], Awaitable[None]]
Play = Callable[[Story], None]


@asynccontextmanager
async def served(database_url: str) -> AsyncIterator[Scene]:
    loop, release = asyncio.get_running_loop(), asyncio.Event()
    assert isinstance(loop, MovableLoop)

    async def slow() -> str:
        await release.wait()
        return "done"

    async def body(request: Request) -> str:
        await request.body()
        return await slow()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"x" * 64 * KIB
            await asyncio.sleep(0)
        release.set()

    async def stream() -> Response:
        return StreamingResponse(pieces())

    app: FastAPI = create_app(Settings(database_url=database_url), password_cost=CHEAP)
    app.add_api_route("/slow", slow, methods=["GET", "POST"])
    app.add_api_route("/body", body, methods=["POST"])
    app.add_api_route("/stream", stream)
    app.add_api_route("/large", lambda: Response(b"x" * LARGE))
    config = uvicorn.Config(app, http=Protocol, ws="none", lifespan="off", log_config=None)
    state = ServerState()
    server = await loop.create_server(lambda: Protocol(config, state, {}, loop), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    client = Client(*await asyncio.open_connection(host, port))
    await arrival()
    try:
        async with app.router.lifespan_context(app):
            yield Scene(client, loop, release, state)
    finally:
        client.writer.close()
        server.close()


@pytest.fixture
def play(sqlite_url: str) -> Play:
    """Run a story of a service and its client in a loop whose clock moves."""

    def play(story: Story) -> None:
        async def run() -> None:
            async with served(sqlite_url) as scene:
                await story(scene)

        with asyncio.Runner(loop_factory=MovableLoop) as runner:
            runner.run(run())

    return play


def test_a_client_that_says_nothing_is_left_after_10_seconds(play: Play) -> None:
    async def story(scene: Scene) -> None:
        assert await scene.wait(9.9)
        assert not await scene.wait(0.2)

    play(story)


def test_a_head_has_10_seconds_however_it_trickles_in(play: Play) -> None:
    async def story(scene: Scene) -> None:
        for n in range(3):
            await scene.client.send(LIVE[n : n + 1])
            assert await scene.wait(3)
        assert not await scene.wait(1.1)

    play(story)


def test_heads_in_pieces_are_answered_in_time(play: Play) -> None:
    async def story(scene: Scene) -> None:
        for _ in range(2):
            await scene.client.send(LIVE[:9])
            assert await scene.wait(9)
            await scene.client.send(LIVE[9:])
            assert await scene.client.status() == 200

    play(story)


def test_an_answer_may_take_longer(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.client.send(LIVE.replace(b"/health/live", b"/slow"))
        assert await scene.wait(30)
        scene.release.set()
        assert await scene.client.status() == 200

    play(story)


def test_blank_lines_do_not_keep_an_idle_connection(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.client.send(LIVE)
        assert await scene.client.status() == 200
        await scene.client.send(b"\r\n")
        assert await scene.wait(9)
        await scene.client.send(b"\r\n")
        assert not await scene.wait(1.1)

    play(story)


def test_the_rest_of_a_body_that_was_not_wanted_has_10_seconds(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.client.send(POST + b"Content-Length: 999999\r\n\r\n")
        assert await scene.client.status() == 413
        await scene.client.send(b"x" * 1000)
        assert await scene.wait(9)
        await scene.client.send(b"x" * 1000)
        assert not await scene.wait(1.1)

    play(story)


@pytest.mark.parametrize("kind", ENDLESS)
def test_endless_input_is_cut_after_64_kib(play: Play, kind: str) -> None:
    start, more = ENDLESS[kind]

    async def story(scene: Scene) -> None:
        await scene.client.send(start)
        await scene.client.send(more * (60 * KIB // len(more)))
        assert await scene.client.is_open()
        await scene.client.send(more * (5 * KIB // len(more)))
        assert await scene.client.status() == 400
        assert not await scene.client.is_open()

    play(story)


def test_a_trailer_is_no_header(play: Play) -> None:
    """RFC 9110 §6.5.1. As a header this one would have the body read as JSON."""

    async def story(scene: Scene) -> None:
        await scene.client.send(CHUNKED + b"Content-Type: application/json\r\n\r\n")
        assert await scene.client.status() == 415

    play(story)


@pytest.mark.parametrize("split", [0, 60, 300], ids=["whole", "head in pieces", "body by itself"])
def test_an_offer_to_upgrade_is_ignored(play: Play, split: int) -> None:
    """As of curl --http2 and Java's HttpClient. httptools would take the body for the next request."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAA\r\n"
    body = LIVE
    form = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n" % len(body)
    data = POST.replace(b"/users", b"/auth/revoke") + offer + form + body

    async def story(scene: Scene) -> None:
        await scene.client.send(data[:split])
        await scene.client.send(data[split:] + data + LIVE.replace(b"live", b"ready"))
        statuses = [await scene.client.status() for _ in range(3)]
        assert statuses == [400, 400, 200]
        assert await scene.client.is_open()

    play(story)


def test_a_thousand_offers_at_once_are_a_thousand_requests(play: Play) -> None:
    offer = LIVE[:-2] + b"Connection: Upgrade\r\nUpgrade: x\r\n\r\n"

    async def story(scene: Scene) -> None:
        await scene.client.send(offer * 1000)
        assert [await scene.client.status() for _ in range(1000)] == [200] * 1000

    play(story)


def test_this_is_no_tunnel(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.client.send(b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n" + LIVE)
        assert await scene.client.status() == 400
        assert not await scene.client.is_open()

    play(story)


def test_only_a_client_that_reads_nothing_is_dropped(play: Play) -> None:
    """A client that reads slowly is not dropped."""

    async def story(scene: Scene) -> None:
        await scene.client.send(LIVE.replace(b"/health/live", b"/large"))
        for _ in range(3):
            await scene.client.reader.readexactly(LARGE // 8)
            await scene.wait(10.1)
        assert scene.state.connections
        for _ in range(3):  # the kernel may have taken a little more of it meanwhile
            await scene.wait(10.1)
        assert not scene.state.connections

    play(story)


@pytest.mark.parametrize("header", [b"Connection: close\r\n", b""], ids=["the last one", "others may follow"])
def test_a_client_that_reads_nothing_of_a_small_answer_is_left(play: Play, header: bytes) -> None:
    """The transport has less to send than it would pause at, and would wait for as long as the client does."""

    async def story(scene: Scene) -> None:
        [protocol] = scene.state.connections
        protocol.transport.set_write_buffer_limits(2 * LARGE)
        request = LIVE.replace(b"/health/live", b"/large")
        await scene.client.send(request.replace(b"\r\n\r\n", b"\r\n" + header + b"\r\n"))
        await scene.client.reader.readexactly(KIB)
        assert scene.state.connections
        for _ in range(4):  # the kernel may take a little more of it meanwhile
            await scene.wait(10.1)
        assert not scene.state.connections

    play(story)


def test_a_connection_accepted_before_the_stop_is_served(sqlite_url: str) -> None:
    async def story() -> bytes:
        app = create_app(Settings(database_url=sqlite_url), password_cost=CHEAP)
        config = Config(app, port=free_port(), http=Protocol, ws="none", log_config=None)
        config.load()
        server = Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        with socket.create_connection((config.host, config.port)) as client:
            client.sendall(LIVE)
            client.setblocking(False)
            stop = asyncio.create_task(server.shutdown())
            answer = await asyncio.get_running_loop().sock_recv(client, KIB)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(config.host, config.port)
        await stop
        return answer

    assert asyncio.run(story()).startswith(b"HTTP/1.1 200 OK")


def test_a_stop_makes_the_next_answer_the_last(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.client.send(LIVE)
        assert await scene.client.status() == 200

        for connection in scene.state.connections:
            connection.shutdown()

        assert await scene.wait(4.9)
        await scene.client.send(LIVE)
        assert await scene.client.status() == 200
        assert not await scene.client.is_open()

    play(story)


def requests_in_memory() -> int:
    return sum(isinstance(thing, RequestResponseCycle) for thing in gc.get_objects())


def test_input_behind_a_request_waits_unread(play: Play) -> None:
    """Each answer had the next 256 KiB read and parsed: a connection took gigabytes."""

    async def story(scene: Scene) -> None:
        scene.client.writer.write(SLOW + LIVE * 40_000)
        await arrival()
        scene.release.set()
        for n in range(200):
            assert n % 50 or requests_in_memory() < KIB / len(LIVE) + 2
            assert await scene.client.status() == 200
        [protocol] = scene.state.connections
        assert sum(len(value) for value in vars(protocol).values() if isinstance(value, bytes)) <= 257 * KIB
        scene.client.writer.transport.abort()
        while scene.state.connections:
            await arrival()

    play(story)


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
def test_a_client_that_goes_leaves_nothing(play: Play, is_reset: bool) -> None:
    """Nothing that would wait for a collection of garbage, which is rare."""

    async def story(scene: Scene) -> None:
        await scene.client.send(SLOW + LIVE * 1000)
        [protocol] = map(weakref.ref, scene.state.connections)
        if is_reset:
            scene.client.drop()
        scene.client.writer.close()
        scene.release.set()
        while scene.state.connections:
            await arrival()
        await arrival()
        assert protocol() is None

    gc.disable()
    try:
        play(story)
    finally:
        gc.enable()


def test_a_connection_may_be_lost_at_any_moment(play: Play) -> None:
    async def story(scene: Scene) -> None:
        host, port = scene.client.writer.get_extra_info("peername")
        scene.client.writer.close()
        for turns in range(30):
            client = Client(*await asyncio.open_connection(host, port))
            scene.release.clear()
            await client.send((SLOW + LIVE) * 50)
            [protocol] = scene.state.connections
            scene.release.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            protocol.transport.abort()
            client.writer.close()
            await arrival()
            assert not scene.state.connections
            assert not scene.state.tasks

    play(story)


def test_an_answer_ends_with_its_client_despite_more_input(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.client.send(SLOW.replace(b"/slow", b"/stream") + LIVE)
        while scene.state.connections:
            await scene.wait(10.1)
        while scene.state.tasks:
            await arrival()
        assert not scene.release.is_set()

    play(story)


def test_pipelined_bodies_are_answered_in_order(play: Play) -> None:
    post = b"POST /%b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    pair = post % (b"slow", 3000, b"x" * 3000) + post % (b"nowhere", 5, b"\r\n\r\n\0")

    async def story(scene: Scene) -> None:
        await scene.client.send(pair * 20 + LIVE)
        scene.release.set()
        assert [await scene.client.status() for _ in range(41)] == [200, 404] * 20 + [200]
        assert await scene.client.is_open()

    play(story)


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("before", [[], [SLOW], [LIVE, SLOW, LIVE]], ids=["first", "second", "fourth"])
def test_garbage_is_refused_after_the_answers_before_it(play: Play, kind: str, before: list[bytes]) -> None:
    async def story(scene: Scene) -> None:
        await scene.client.send(b"".join(before) + GARBAGE[kind])
        if before:
            await scene.client.send(LIVE)
            assert await scene.client.is_open()
            scene.release.set()
        for _ in before:
            assert await scene.client.status() == 200
        status, head, body = await scene.client.answer()
        assert (status, json.loads(body)["code"]) == (400, "invalid_http_request")
        assert b"\r\ncontent-type: application/json\r\n" in head
        assert b"\r\nconnection: close\r\n" in head
        assert await scene.client.rest() == []

    play(story)


def test_an_answer_stands_although_its_body_turns_malformed(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.client.send(b"PUT /users HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert await scene.client.status() == 405
        await scene.client.send(b"x\r\n")
        assert await scene.client.rest() == []

    play(story)


def test_a_client_that_has_said_all_gets_every_answer(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.client.send(LIVE + SLOW + LIVE * 1000 + POST + b"Content-Length: 2\r\n\r\n{}")
        scene.client.writer.write_eof()
        assert await scene.client.is_open()
        scene.release.set()
        assert await scene.client.rest() == [200] * 1002 + [415]
        await arrival()
        assert not scene.state.connections

    play(story)


def test_a_half_closed_client_is_answered_after_unread_bodies(play: Play) -> None:
    """The client has sent all that it will; a body still waits to be parsed."""
    form = b" HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b"
    bodies = [b"POST /body" + form % (size, b"x" * size) for size in (2, 3000)]

    async def story(scene: Scene) -> None:
        await scene.client.send(b"".join(bodies))
        scene.client.writer.write_eof()
        assert await scene.client.is_open()
        scene.release.set()
        assert await scene.client.rest() == [200, 200]
        await arrival()
        assert not scene.state.connections

    play(story)


@pytest.mark.parametrize("before", [SLOW, SLOW + LIVE * 100], ids=["one", "many"])
@pytest.mark.parametrize("kind", GARBAGE)
def test_a_half_closed_client_is_told_once_of_garbage(play: Play, kind: str, before: bytes) -> None:
    async def story(scene: Scene) -> None:
        await scene.client.send(before + GARBAGE[kind])
        scene.client.writer.write_eof()
        scene.release.set()
        assert await scene.client.rest() == [200] * before.count(b"Host") + [400]
        await arrival()
        assert not scene.state.connections

    play(story)


LAST = [b"", LIVE[:9], LIVE, SLOW + LIVE[:9], SLOW + LIVE * 100 + LIVE[:9]]


@pytest.mark.parametrize("data", LAST, ids=["silent", "head", "idle", "next head", "last head"])
def test_a_half_closed_client_without_requests_is_closed(play: Play, data: bytes) -> None:
    async def story(scene: Scene) -> None:
        scene.release.set()
        await scene.client.send(data)
        scene.client.writer.write_eof()
        assert await scene.client.rest() == [200] * data.count(b"\r\n\r\n")
        await arrival()
        assert not scene.state.connections

    play(story)


def test_a_body_that_ends_too_early_is_refused(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.client.send(LIVE + POST + b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{}")
        scene.client.writer.write_eof()
        assert await scene.client.rest() == [200, 400]

    play(story)


@pytest.mark.parametrize(("version", "go_ahead"), [(b"HTTP/1.1", [100, 200]), (b"HTTP/1.0", [200])])
def test_only_http_1_1_knows_how_to_be_told_to_go_on(play: Play, version: bytes, go_ahead: list[int]) -> None:
    """RFC 9110 §10.1.1."""
    head = POST.replace(b"/users", b"/auth/revoke").replace(b"HTTP/1.1", version)
    fields = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\n"

    async def story(scene: Scene) -> None:
        await scene.client.send(head + fields)
        await scene.client.send(b"token=x")
        assert [await scene.client.status() for _ in go_ahead] == go_ahead

    play(story)


def test_a_stop_answers_the_requests_that_were_parsed(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.client.send(SLOW + LIVE)
        for connection in scene.state.connections:
            connection.shutdown()
        scene.release.set()
        assert await scene.client.status() == 200
        status, head, _ = await scene.client.answer()
        assert (status, b"connection: close" in head) == (200, True)
        assert not await scene.client.is_open()

    play(story)


def test_a_stop_does_not_wait_for_refused_clients(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.client.send(b"garbage\r\n\r\n")
        [protocol] = scene.state.connections
        protocol.shutdown()
        await arrival()
        assert not scene.state.connections

    play(story)


def test_a_client_that_was_refused_is_left_after_10_seconds(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.client.send(b"garbage\r\n\r\n")
        assert await scene.client.status() == 400
        await scene.client.send(LIVE)
        await scene.wait(9.9)
        assert scene.state.connections
        await scene.wait(0.2)
        assert not scene.state.connections

    play(story)


@pytest.fixture
def few_files() -> Iterator[int]:
    """Lower the limit of open files to a little more than there are; the limit."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(file.name) for file in Path("/proc/self/fd").iterdir())
    gaps = [os.dup(0)]  # the free numbers below the highest: with them taken, the next file has the next number
    while gaps[-1] <= highest:
        gaps.append(os.dup(0))
    os.close(lowest := gaps.pop())
    few = lowest + open_files.RESERVE
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
    yield few
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    for gap in gaps:
        os.close(gap)


def test_connections_that_run_out_are_logged_once_a_minute(
    play: Play, few_files: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(scene: Scene) -> None:
        assert len(caplog.messages) == 1
        host, port = scene.client.writer.get_extra_info("peername")
        _, writer = await asyncio.open_connection(host, port)
        await arrival()
        assert len(caplog.messages) == 1
        scene.loop.move(60)
        _, another = await asyncio.open_connection(host, port)
        await arrival()
        writer.close()
        another.close()

    play(story)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert str(few_files) in caplog.messages[0]


@pytest.mark.parametrize("words", [["app", "serve"], ["uvicorn", "app.main:app"]], ids=["serve", "uvicorn"])
def test_a_process_may_open_as_many_files_as_the_system_lets_it(
    sqlite_url: str, few_files: int, words: list[str]
) -> None:
    port = free_port()
    with command(*words, "--port", str(port), database_url=sqlite_url, stdout=subprocess.DEVNULL) as process:
        wait_until_ready(f"http://127.0.0.1:{port}", process)
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        assert soft == hard > few_files


def test_no_limit_of_open_files_is_raised_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.setitem(sys.modules, "resource", None)

    open_files.raise_limit()

    assert open_files.limit() == sys.maxsize


def test_the_head_of_an_answer_goes_out_with_its_body(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write is a system call."""
    write, answers = _SelectorSocketTransport.write, []

    def record(transport: _SelectorSocketTransport, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1"):
            answers.append(data)
        write(transport, data)

    async def story(scene: Scene) -> None:
        for request in LIVE, LIVE.replace(b"GET", b"HEAD"), LIVE.replace(b"Host", b"Connection: close\r\nHost"):
            await scene.client.send(request)

    monkeypatch.setattr(_SelectorSocketTransport, "write", record)
    play(story)
    assert [answer.partition(b"\r\n\r\n")[2] for answer in answers] == [b'{"status":"ok"}', b"", b'{"status":"ok"}']


def test_the_answer_to_a_last_head_request_is_not_lost(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.client.send(b"HEAD /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert await scene.client.rest() == [200]

    play(story)


def test_a_malformed_body_behind_a_request_gets_its_own_400(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.client.send(SLOW + POST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n")
        scene.release.set()
        assert await scene.client.rest() == [200, 400]

    play(story)


def test_a_head_that_is_too_long_and_malformed_gets_one_400(play: Play) -> None:
    async def story(scene: Scene) -> None:
        await scene.client.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 64 * KIB + b"\0\r\n\r\n")
        assert await scene.client.rest() == [400]

    play(story)
