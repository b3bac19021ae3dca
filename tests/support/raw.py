"""HTTP over a bare socket: exactly these bytes, and everything that comes back.

A connection that is reset raises ConnectionError, one that hangs TimeoutError: either fails the test.
"""

import socket
import struct
from contextlib import suppress
from typing import NamedTuple, Self

TIMEOUT = 8  # the service cuts a slow body at 10 s: who waits for that has not been answered


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether the service hangs up after it."""
        return self.headers.get("connection") == "close"


class Connection:
    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self._reader = self._socket.makefile("rb")
        self._forgiven: tuple[type[Exception], ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        with suppress(*self._forgiven):
            self._socket.sendall(data)

    def overfill(self, data: bytes) -> None:
        """Send what the service may not want to read to its end: from here on it may reset the connection."""
        self._forgiven = (ConnectionError,)
        self.send(data)

    def answer(self) -> Answer:
        """Read the next answer, to anything but HEAD."""
        version, status, _ = self._line().split(" ", 2)
        assert version == "HTTP/1.1"
        headers = {}
        while line := self._line():
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        has_body = status not in {"100", "204", "304"}
        return Answer(int(status), headers, self._body(headers) if has_body else b"")

    def rest(self) -> bytes:
        """Read until the service hangs up."""
        data = b""
        with suppress(*self._forgiven):
            while piece := self._reader.read1():
                data += piece
        return data

    def hears_within(self, seconds: float) -> bool:
        """Wait for the first byte, or for the end."""
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return False
        finally:
            self._socket.settimeout(TIMEOUT)
        return True

    def end(self) -> None:
        """Close the sending side."""
        self._socket.shutdown(socket.SHUT_WR)

    def drop(self) -> None:
        """Have the service see a reset, not an end, when this is closed."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self._read(int(headers["content-length"])) if "content-length" in headers else self.rest()
        body = b""
        while size := int(self._line(), 16):
            body += self._read(size)
            self._line()
        self._line()
        return body

    def _read(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise ConnectionError(f"cut off after {data!r}")
        return data

    def _line(self) -> str:
        line = self._reader.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError(f"cut off after {line!r}")
        return line[:-2].decode("latin-1")
