"""Requests that arrive behind one another are answered one after the other."""

import asyncio
import gc
import weakref

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tests.support.scene import KIB, LIVE, SLOW, Client, Play, Scene, arrival


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
