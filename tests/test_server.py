"""The protocol under the application: what no application gets to see has an end, in bytes and in time."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
import uvicorn
from fastapi import FastAPI, Response
from uvicorn.server import ServerState

from app.config import Settings
from app.main import create_app
from app.server import Protocol, Server
from tests.conftest import CHEAP
from tests.processes import free_port
from tests.test_limits import MovableLoop

LIVE = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
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
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 60)
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await self.reader.readexactly(int(length))
        return int(head.split()[1])

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
    """What GET /slow waits for."""
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

    app: FastAPI = create_app(Settings(database_url=database_url), password_cost=CHEAP)
    app.add_api_route("/slow", slow)
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


def test_a_head_in_pieces_and_in_time_is_answered_and_so_is_the_next(play: Play) -> None:
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


def test_what_is_no_request_does_not_keep_a_connection_that_has_been_answered(play: Play) -> None:
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
def test_what_does_not_end_is_cut_after_64_kib(play: Play, kind: str) -> None:
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
def test_an_offer_to_upgrade_is_ignored_and_the_body_is_the_requests(play: Play, split: int) -> None:
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


def test_a_client_that_reads_nothing_of_its_answer_is_left_and_one_that_reads_slowly_is_not(play: Play) -> None:
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


def test_who_was_let_in_before_the_server_stops_is_served(sqlite_url: str) -> None:
    async def story() -> bytes:
        app = create_app(Settings(database_url=sqlite_url), password_cost=CHEAP)
        config = uvicorn.Config(app, port=free_port(), http=Protocol, ws="none", log_config=None)
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


def test_when_the_server_stops_the_next_answer_on_an_idle_connection_is_the_last(play: Play) -> None:
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
