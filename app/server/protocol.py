"""The HTTP protocol of a connection: uvicorn's, with limits on what one client can make the service hold."""

import asyncio
import json
import socket
from contextlib import suppress
from contextvars import Context
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.errors import InvalidHTTPRequest
from app.server.open_files import Warner
from app.server.transport import CoalescingTransport, ReaderWatch

PIECE_BYTES: Final = 1024
TURNS_BETWEEN: Final = 4
MAX_UNREAD_BYTES: Final = 64 * 1024
UNREAD_SECONDS: Final = 10
LOOPBACK: Final = "127.0.0.1", 0
UPGRADE_HEADERS: Final = {b"upgrade", b"http2-settings"}

_warner = Warner()


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with limits, and with an answer to each request in its turn.

    - Data is parsed in pieces. Parsing and reading stop while a request waits for its turn, so a connection holds the
      requests of one piece at most, and the data of one read.
    - Heads, trailers and the lines around chunks may have `MAX_UNREAD_BYTES`. They may take `UNREAD_SECONDS` while no
      request is being answered, and so may the rest of a body that the application does not read.
    - A client that reads nothing of its answer for `UNREAD_SECONDS` is cut off.
    - Data that is not HTTP gets a 400, after the answers to the requests before it. Then the connection ends.
    - A client that closes its sending side gets the answers to the requests that it has sent.
    - A client of a Unix socket is on this host, so it has this host's address: `TRUSTED_PROXIES` can name it.
    - When the server stops, an idle connection stays until its timeout or its next answer: a request may be on its
      way, and its client could not tell whether it was carried out (RFC 9112 §9.3.1).
    """

    _unparsed = b""
    _answered: RequestResponseCycle | None = None  # the request in its turn; `cycle` is the one that was parsed last
    _is_in_body = False
    _is_refused = False
    _is_ended = False
    _is_last = False
    _unread = 0
    _deadline: asyncio.TimerHandle | None = None
    _reader_watch: ReaderWatch

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(CoalescingTransport(transport, self.loop))  # type: ignore[arg-type]
        self._reader_watch = ReaderWatch(transport, self.loop, UNREAD_SECONDS)
        self._deadline = self.loop.call_later(UNREAD_SECONDS, self._close)
        connection = transport.get_extra_info("socket")
        if connection.family == socket.AF_UNIX:
            self.client = LOOPBACK
        _warner.see(connection.fileno(), self.loop.time())

    def data_received(self, data: bytes) -> None:
        if not self._is_refused:
            self._unparsed += data
            self._parse()

    def eof_received(self) -> bool:  # type: ignore[override] # as asyncio has it: whether to keep the connection
        self._is_ended = True
        if not self._is_refused:
            self._parse()
        return self._is_answering() or bool(self.pipeline or self._unparsed)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_wait()
        self._reader_watch.stop()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._answered is not None:
            _disconnect(self._answered)
        # A request that waits for its turn refers to this protocol: the garbage collector would have to find both.
        self._answered = None
        self.cycle = None  # type: ignore[assignment]

    def shutdown(self) -> None:
        self._is_last = True
        if self._is_answering() or self.pipeline:
            super().shutdown()
        elif self._is_refused:
            self._close()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader_watch.start()

    def on_headers_complete(self) -> None:
        if not self.parser.should_upgrade():
            if self.expect_100_continue and self.parser.get_http_version() == "1.0":
                self.expect_100_continue = False  # RFC 9110 §10.1.1
            super().on_headers_complete()
            if not self.pipeline:
                self._answered = self.cycle
            if self._is_last:
                self.cycle.keep_alive = False
            self.headers = []  # trailers go here: they must not become headers (RFC 9110 §6.5.1)
            self._is_in_body = True
        self._end_wait()

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._unread = max(0, self._unread - len(body))

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()
            self._is_in_body = False
        self._end_wait()

    def on_response_complete(self) -> None:
        if self.transport.is_closing():
            self._close()
        elif self.pipeline or self._unparsed:
            self._go_on(TURNS_BETWEEN)
        else:
            super().on_response_complete()
            self._end_if_answered()

    def _go_on(self, turns: int) -> None:
        """Begin the next request, after some turns of the loop for other connections."""
        if turns:
            self.loop.call_soon(self._go_on, turns - 1, context=Context())
        elif not (self.transport.is_closing() or self._is_answering()):
            if self.pipeline:
                self._answered = self.pipeline[-1][0]
            super().on_response_complete()
            if self._unparsed:
                self._parse()

    def send_400_response(self, msg: str) -> None:
        body = json.dumps({"detail": msg, "code": InvalidHTTPRequest.code}).encode()
        own = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        lines = [b"%b: %b\r\n" % header for header in self.server_state.default_headers]
        self.transport.write(b"".join([STATUS_LINE[400], *lines, own, body]))
        # To close now would reset the connection if the client has sent more, and lose its answers (RFC 9112 §9.6).
        with suppress(NotImplementedError):  # TLS cannot close one direction
            self.transport.write_eof()
        self.flow.resume_reading()
        self._end_wait()
        self._deadline = self.loop.call_later(UNREAD_SECONDS, self._close)

    def _parse(self) -> None:
        """Parse what has arrived until a request waits for its turn."""
        self._unset_keepalive_if_required()
        data, position = self._unparsed, 0
        while position < len(data) and self._wants_more():
            piece = data[position : position + PIECE_BYTES]
            position += PIECE_BYTES
            self._unread += len(piece)
            self._feed(piece)
            if self._unread > MAX_UNREAD_BYTES:
                self._refuse()
        self._unparsed = b"" if self._is_refused else data[position:]
        if self._unparsed:
            self.flow.pause_reading()
        elif self._is_ended and not self._is_refused:
            self._refuse() if self._is_in_body else self._end_if_answered()
        elif self._deadline is None and not self._is_answering():
            self._deadline = self.loop.call_later(UNREAD_SECONDS, self._close)

    def _wants_more(self) -> bool:
        """Whether to parse on: the next head, or the body of the request that is being answered."""
        if self.pipeline or self._is_refused or self.transport.is_closing():
            return False
        return self._is_in_body or not self._is_answering()

    def _feed(self, data: bytes) -> None:
        """Feed the parser. httptools takes all data behind an offer to upgrade for the other protocol's."""
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as offer:
            if self.parser.get_method() == b"CONNECT":
                self._refuse()
                return
            head = self._without_offer()
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            self._feed(head + data[offer.args[0] :])
        except HttpParserError:
            self._refuse()

    def _without_offer(self) -> bytes:
        """The head without its offer to upgrade, which a server may ignore (RFC 9110 §7.8)."""
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] not in UPGRADE_HEADERS]
        return b"\r\n".join([*lines, b"", b""])

    def _refuse(self) -> None:
        """Parse nothing more, and answer 400 after the answers to the requests before.

        If the body of a request is malformed, the 400 is its only answer. If its answer has begun, the connection ends.
        """
        if self._is_in_body:
            if self.pipeline:
                self.pipeline.popleft()
            elif self.cycle.response_started:
                self._close()
                return
            else:
                _disconnect(self.cycle)
        self._is_refused = True
        self._end_if_answered()

    def _end_if_answered(self) -> None:
        if self._is_answering() or self.pipeline:
            return
        if self._is_refused:
            self.send_400_response(InvalidHTTPRequest.detail)
        if self._is_ended:  # the client sends no more, so closing does not reset the connection
            self._close()

    def _is_answering(self) -> bool:
        cycle = self._answered
        return cycle is not None and not cycle.response_complete and not cycle.disconnected

    def _end_wait(self) -> None:
        self._unread = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        """Close the connection once the client has read its answers, or reads no more."""
        self.transport.close()
        self._reader_watch.start()


def _disconnect(cycle: RequestResponseCycle) -> None:
    """Tell the application that the client has gone."""
    cycle.disconnected = True
    cycle.message_event.set()
