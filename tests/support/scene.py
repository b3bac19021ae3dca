"""One client of the service, in one event loop whose clock moves: no application sees what the protocol refuses."""

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from uvicorn.server import ServerState

from app.config import Settings
from app.main import create_app
from app.server.protocol import Protocol
from tests.conftest import CHEAP
from tests.support.loops import MovableLoop

LIVE = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = LIVE.replace(b"/health/live", b"/slow")
POST = b"POST /users HTTP/1.1\r\nHost: a\r\n"
KIB = 1024
LARGE = 64 * KIB * KIB


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
    """/slow waits for it, and /stream sets it at its end."""
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
