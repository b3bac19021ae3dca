"""How uvicorn serves the application, and what it does not do by itself."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from typing import Any, Final

import uvicorn
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.supervisors import Multiprocess, multiprocess

from app.metrics import shared_folder

MAX_UNREAD_BYTES: Final = 64 * 1024
UNREAD_SECONDS: Final = 10
MAX_CORKED_BYTES: Final = 32 * 1024  # of one part: more is a stream, and its reader must be able to slow it down
UPGRADE: Final = {b"upgrade", b"http2-settings"}
LET_IN_SECONDS: Final = 0.1  # after which whom the loop has accepted is a connection
GRACEFUL_SHUTDOWN: Final = 12  # seconds for requests in flight: a slow body has 10, and the rest is done within 20


def serve(host: str, port: int, workers: int, *, reload: bool, metrics: bool) -> None:
    """Serve until SIGTERM or SIGINT. `metrics`: whether several workers are to count together."""
    settings: dict[str, Any] = {
        "host": host,
        "port": port,
        "workers": workers,
        "http": Protocol,
        "ws": "none",
        "log_config": None,
        "log_level": "info",
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "timeout_graceful_shutdown": GRACEFUL_SHUTDOWN,
    }
    config = uvicorn.Config("app.main:app", **settings)
    if reload:
        uvicorn.run("app.main:app", reload=True, **settings)
    elif workers == 1:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # which uvicorn raises again when it has done
        with suppress(KeyboardInterrupt):
            Server(config).run()
    else:
        with shared_folder() if metrics else nullcontext():
            Workers(config, [config.bind_socket()]).run()


class Server(uvicorn.Server):
    """uvicorn's, that serves whoever had been let in when it was told to stop, by the kernel or by the loop.

    Who is refused tries elsewhere; who is cut off cannot tell whether the request was carried out, and may not.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in self._let_in_the_last(sockets or []):
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        await asyncio.sleep(LET_IN_SECONDS)
        await super().shutdown(sockets)

    def _let_in_the_last(self, sockets: Iterable[socket.socket]) -> list[socket.socket]:
        """Stop listening. The kernel resets the connections that nobody has accepted by then: accept them."""
        accepted: list[socket.socket] = []
        for server in self.servers:
            for listener in server.sockets:
                with socket.socket(fileno=os.dup(listener.fileno())) as waiting, suppress(BlockingIOError):
                    waiting.setblocking(False)
                    while True:
                        accepted.append(waiting.accept()[0])
            server.close()
        for listener in sockets:
            listener.close()
        return accepted

    def _protocol(self) -> "Protocol":
        return Protocol(self.config, self.server_state, self.lifespan.state)


multiprocess.Server = Server  # type: ignore[attr-defined] # there is no other way to choose


class Workers(Multiprocess):
    """uvicorn's, that no longer listens once it is told to stop: who connects is refused, and tries elsewhere."""

    def terminate_all(self) -> None:
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


class Corked(asyncio.Transport):
    """A transport that sends in one go what is written in one go: uvicorn writes a head, and then its body.

    A system call to send costs more than all else that there is to do with an answer's head.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._written: list[bytes | bytearray | memoryview] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._written:
            self._loop.call_soon(self._send)
        self._written.append(data)
        if len(data) > MAX_CORKED_BYTES:
            self._send()

    def close(self) -> None:
        self._send()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _send(self) -> None:
        if self._written:
            written, self._written = self._written, []
            self._transport.write(b"".join(written))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()


class Protocol(HttpToolsProtocol):
    """uvicorn's, with an end to what no application gets to see, and to waiting for who does not read.

    Heads, trailers and bodies that are not wanted have `MAX_UNREAD_BYTES`, and `UNREAD_SECONDS` where nothing is being
    answered meanwhile. A client that has read nothing of its answer for as long is gone.

    When the server stops, an idle connection ends as idle ones always do, or with the next answer, which says so: the
    next request may be on its way, and its client could not tell whether it was carried out (RFC 9112 §9.3.1).
    """

    _is_last = False
    _unread = 0
    _deadline: asyncio.TimerHandle | None = None
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Corked(transport, self.loop))
        self._deadline = self.loop.call_later(UNREAD_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._unread += len(data)
        self._feed(data)
        if self.transport.is_closing():
            return
        if self._unread > MAX_UNREAD_BYTES:
            self._refuse()
        elif self._deadline is None and not self._is_answering():
            self._deadline = self.loop.call_later(UNREAD_SECONDS, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_wait()
        self._look_later(None)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        self._is_last = True
        if self._is_answering():
            super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_later(self.transport.get_write_buffer_size())

    def on_headers_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            if self._is_last:
                self.cycle.keep_alive = False
            self.headers = []  # for trailers, which are no headers: those have been decided on (RFC 9110 §6.5.1)
        self._end_wait()

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._unread = 0

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()
        self._end_wait()

    def _feed(self, data: bytes) -> None:
        """Parse what has come. httptools takes all that follows an offer to upgrade for the other protocol's."""
        while True:
            try:
                self.parser.feed_data(data)
            except HttpParserUpgrade as offer:
                if self.parser.get_method() == b"CONNECT":
                    self._refuse()
                    return
                data = self._without_offer() + data[offer.args[0] :]
                self.parser = HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            except HttpParserError:
                self._refuse()
                return
            else:
                return

    def _without_offer(self) -> bytes:
        """The head just read, less its offer to upgrade, which a server may ignore (RFC 9110 §7.8)."""
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] not in UPGRADE]
        return b"\r\n".join([*lines, b"", b""])

    def _refuse(self) -> None:
        self.send_400_response("Invalid HTTP request received.")

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _end_wait(self) -> None:
        self._unread = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _look_later(self, unread: int | None) -> None:
        if self._look is not None:
            self._look.cancel()
        self._look = self.loop.call_later(UNREAD_SECONDS, self._leave_who_reads_nothing, unread) if unread else None

    def _leave_who_reads_nothing(self, unread_before: int) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread >= unread_before:
            self.transport.abort()
        else:
            self._look_later(unread)
