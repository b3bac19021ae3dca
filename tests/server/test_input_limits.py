"""The limits of what one client may send, in bytes and in time."""

import pytest

from tests.support.scene import KIB, LIVE, POST, Play, Scene

CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
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


@pytest.mark.parametrize("split", [0, 60, 300], ids=["whole", "head in pieces", "body apart"])
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
