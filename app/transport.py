"""The transport of a connection, as uvicorn writes to it."""

from typing import Any


class AnswerTransport:
    """Sends the head of an answer with the first part of its body. uvicorn writes them apart.

    To send costs a system call, which takes a tenth of all that a page costs.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._head = b""
        self.is_closing = transport.is_closing  # which every answer asks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._head and data.endswith(b"\r\n\r\n") and not data.startswith(b"HTTP/1.1 100 "):
            self._head = data
        else:
            self._transport.write(self._head + data)
            self._head = b""

    def flush(self) -> None:
        """Send the head that nothing has followed: an answer to HEAD has no body."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._transport.close()
