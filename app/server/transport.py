"""The transport of a connection, as uvicorn writes to it."""

from asyncio import AbstractEventLoop
from typing import Any, Final

MAX_HELD_BYTES: Final = 32 * 1024  # of one part: more is a stream, and its reader must be able to slow it down


class CoalescingTransport:
    """Sends in one go what is written in one turn of the event loop: uvicorn writes a head, and then its body.

    Without it a page costs an eighth more CPU. To send is a system call, and it wakes a client whose next request then
    comes by itself, and not together with those of others.
    """

    def __init__(self, transport: Any, loop: AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self.is_closing = transport.is_closing  # which every answer asks

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
        if held and not self.is_closing():  # else the client has gone
            self._transport.write(b"".join(held))
