"""Data that is not HTTP gets one 400, after the answers to the requests before it."""

import json

import pytest

from tests.support.scene import KIB, LIVE, POST, SLOW, Play, Scene, arrival

GARBAGE = {
    "NUL": b"\0",
    "no request line": b"garbage garbage\r\n\r\n",
    "a tunnel": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n" + LIVE,
    "a head without end": b"GET / HTTP/1.1\r\nX: " + b"x" * 70 * KIB,
    "a malformed body": POST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n",
    "a malformed body, later": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nx\r\n",
}
LAST = [b"", LIVE[:9], LIVE, SLOW + LIVE[:9], SLOW + LIVE * 100 + LIVE[:9]]


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
