"""Answers go out together with their heads, and only to clients that read them."""

from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined]

import pytest

from tests.support.scene import KIB, LARGE, LIVE, Play, Scene


def test_only_a_client_that_reads_nothing_is_dropped(play: Play) -> None:
    """A client that reads slowly is not dropped."""

    async def story(scene: Scene) -> None:
        await scene.client.send(LIVE.replace(b"/health/live", b"/large"))
        for _ in range(3):
            await scene.client.reader.readexactly(LARGE // 8)
            await scene.wait(10.1)
        assert scene.state.connections
        for _ in range(3):  # the kernel may have taken a little more of it
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
        for _ in range(4):  # the kernel may take a little more of it
            await scene.wait(10.1)
        assert not scene.state.connections

    play(story)


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
