"""A stop of the server breaks off no request."""

import asyncio
import socket

import pytest

from app.config import Settings
from app.main import create_app
from app.server.protocol import Protocol
from app.server.server import Config, Server
from tests.conftest import CHEAP
from tests.support.processes import free_port
from tests.support.scene import KIB, LIVE, SLOW, Play, Scene, arrival


def test_a_connection_accepted_before_the_stop_is_served(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd knows when connections are accepted, and when no more are."""
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind("\0" + sqlite_url)
    systemd.setblocking(False)
    monkeypatch.setenv("NOTIFY_SOCKET", "@" + sqlite_url)

    async def story() -> bytes:
        app = create_app(Settings(database_url=sqlite_url), password_cost=CHEAP)
        config = Config(app, port=free_port(), http=Protocol, ws="none", log_config=None)
        config.load()
        server = Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        assert systemd.recv(KIB) == b"READY=1"
        with socket.create_connection((config.host, config.port)) as client:
            client.sendall(LIVE)
            client.setblocking(False)
            stop = asyncio.create_task(server.shutdown())
            answer = await asyncio.get_running_loop().sock_recv(client, KIB)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(config.host, config.port)
        await stop
        return answer

    with systemd:
        assert asyncio.run(story()).startswith(b"HTTP/1.1 200 OK")
        assert systemd.recv(KIB) == b"STOPPING=1"


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
