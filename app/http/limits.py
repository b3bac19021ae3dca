"""Refuse requests that are too large, too slow, ambiguous, or for another host."""

import asyncio
import re
from collections.abc import Collection
from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import errors
from app.http.error_responses import ErrorHandlers

MAX_URL_BYTES: Final = 8 * 1024
MAX_PARAMETERS: Final = 64
MAX_HEADER_BYTES: Final = 16 * 1024
MAX_AUTHORIZATION_BYTES: Final = 8 * 1024
MAX_BODY_BYTES: Final = 128 * 1024
MAX_LENGTH_DIGITS: Final = 19  # int() takes long for very many digits, and fails in the end
BODY_SECONDS: Final = 10
CHECKED_HEADERS: Final = {b"authorization", b"content-encoding", b"content-length", b"host", b"transfer-encoding"}
TRANSFER_CODINGS: Final = {b"compress", b"deflate", b"gzip", b"x-compress", b"x-gzip"}  # RFC 9112 §7.2

Headers = dict[bytes, list[bytes]]


class RequestLimits:
    """Check the head of a request at once, and its body while it is read."""

    def __init__(self, app: ASGIApp, error_handlers: ErrorHandlers, hosts: Collection[str]) -> None:
        self.app = app
        self.error_handlers = error_handlers
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self._check(scope)
        except errors.AppError as error:
            response = await self.error_handlers.app_error(Request(scope), error)
            await response(scope, receive, send)
        else:
            await self.app(scope, _limited(receive), send)

    def _check(self, scope: Scope) -> None:
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        query: bytes = scope["query_string"]
        if len(path) + len(query) > MAX_URL_BYTES:
            raise errors.URLTooLong
        size, headers = 0, Headers()
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name in CHECKED_HEADERS:
                headers.setdefault(name, []).append(value)
        if size > MAX_HEADER_BYTES:
            raise errors.HeadersTooLarge
        if b"%2f" in path.lower():  # no path here has an encoded slash, and a proxy may read it as another path
            raise errors.NotFound
        if len(headers.get(b"authorization", [b""])[0]) > MAX_AUTHORIZATION_BYTES:
            raise errors.HeadersTooLarge
        _check_body(headers)
        if not self._is_host_allowed(scope, headers.get(b"host", [])):
            raise errors.UnknownHost
        if query.count(b"&") >= MAX_PARAMETERS:
            raise errors.InvalidInput(("query",), f"must have at most {MAX_PARAMETERS} parameters")
        if query and not _is_text(query):
            raise errors.InvalidInput(("query",), "must be UTF-8 text without NUL")

    def _is_host_allowed(self, scope: Scope, hosts: list[bytes]) -> bool:
        """Require one Host header (RFC 9112 §3.2), and one of `self.hosts` if there are any. Probes may use others."""
        if len(hosts) > 1 or (not hosts and scope["http_version"] != "1.0"):
            return False
        if not self.hosts or scope["path"].startswith(scope.get("root_path", "") + "/health/"):
            return True
        names = {re.sub(rb":\d*$", b"", host).decode("latin-1").lower() for host in hosts}
        return not names.isdisjoint(self.hosts)


def _check_body(headers: Headers) -> None:
    """Check what the head says about the body. The service decodes chunks and nothing else.

    A coding that exists is 501. Any other leaves open where the body ends, and is 400 (RFC 9112 §6.1, §6.3). Without a
    body its coding does not matter.
    """
    length = headers.get(b"content-length", [b""])[0]
    if length.isdigit() and (len(length) > MAX_LENGTH_DIGITS or int(length) > MAX_BODY_BYTES):
        raise errors.BodyTooLarge
    transfer = [value.lower() for value in headers.get(b"transfer-encoding", ())]
    if transfer and transfer != [b"chunked"]:
        *codings, last = [coding.strip() for coding in b",".join(transfer).split(b",")]
        is_known = last == b"chunked" and TRANSFER_CODINGS.issuperset(codings)
        raise errors.UnsupportedTransferEncoding if is_known else errors.InvalidTransferEncoding
    content = [value.lower() for value in headers.get(b"content-encoding", ())]
    if (transfer or length.strip(b"0")) and any(coding not in {b"", b"identity"} for coding in content):
        raise errors.UnsupportedContentEncoding


def _limited(receive: Receive) -> Receive:
    """Receive at most `MAX_BODY_BYTES` within `BODY_SECONDS`. The reader of the body gets the error."""
    received, is_whole = 0, False
    deadline: float | None = None

    async def receive_within_limits() -> Message:
        nonlocal received, deadline, is_whole
        if is_whole:
            return await receive()
        deadline = deadline or asyncio.get_running_loop().time() + BODY_SECONDS
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError as error:
            raise errors.BodyTooSlow from error
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise errors.BodyTooLarge
        is_whole = not message.get("more_body", False)
        return message

    return receive_within_limits


def _is_text(query: bytes) -> bool:
    try:
        return "\0" not in unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        return False
