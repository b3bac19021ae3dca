"""The transport to which uvicorn writes its answers, and a watch for clients that do not read them."""

from asyncio import AbstractEventLoop, TimerHandle, WriteTransport
from typing import Any, Final

MAX_HELD_BYTES: Final = 32 * 1024  # a larger part is a stream, which a slow reader must be able to pause


class CoalescingTransport:
    """Sends all that is written in one turn of the event loop at once: uvicorn writes a head, and then its body.

    Each send is a system call. Without this class, requests on eight connections cost a tenth more CPU.
    """

    def __init__(self, transport: Any, loop: AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self.is_closing = transport.is_closing  # called for every answer: faster than __getattr__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)
        if len(data) > MAX_HELD_BYTES:
            self._send()

    def write_eof(self) -> None:
        self._send()
        self._transport.write_eof()

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        held, self._held = self._held, []
        if held and not self.is_closing():  # after a close, the client has gone
            self._transport.write(b"".join(held))


class ReaderWatch:
    """Aborts a connection if its client reads nothing of its answers for some seconds."""

    def __init__(self, transport: WriteTransport, loop: AbstractEventLoop, seconds: float) -> None:
        self._transport = transport
        self._loop = loop
        self._seconds = seconds
        self._timer: TimerHandle | None = None

    def start(self) -> None:
        self.stop()
        if unread := self._transport.get_write_buffer_size():
            self._timer = self._loop.call_later(self._seconds, self._check, unread)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _check(self, unread_before: int) -> None:
        if self._transport.get_write_buffer_size() >= unread_before:
            self._transport.abort()
        else:
            self.start()
