"""Plain ASGI middleware: what holds for every request and every answer."""

import asyncio
import re
import secrets
from collections.abc import Collection, Mapping
from urllib.parse import unquote_to_bytes

from opentelemetry import trace
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import (
    AppError,
    BodyTooLarge,
    BodyTooSlow,
    HeadersTooLarge,
    InvalidInput,
    InvalidTransferEncoding,
    NotFound,
    ShuttingDown,
    UnknownHost,
    UnsupportedContentEncoding,
    UnsupportedTransferEncoding,
    URLTooLong,
)
from app.http.error_responses import ErrorHandlers
from app.http.fastapi_internals import declared_path
from app.observe.events import RequestContext, request_context
from app.observe.requests import matched_route

MAX_URL_BYTES = 8 * 1024
MAX_PARAMETERS = 64
MAX_HEADER_BYTES = 16 * 1024
MAX_AUTHORIZATION_BYTES = 8 * 1024
MAX_BODY_BYTES = 128 * 1024
ENCODINGS = {b"transfer-encoding", b"content-encoding"}
TRANSFER_CODINGS = {b"compress", b"deflate", b"gzip", b"x-compress", b"x-gzip"}  # RFC 9112 §7.2
MAX_DIGITS = 19  # int() is slow, and in the end fails, on very many
BODY_SECONDS = 10

HIDDEN = "REDACTED"
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

SERVER_OPTIONS = Response(status_code=204, headers={"Allow": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"})


class RequestIdAndHeaders:
    """Give each request an id, and each answer that id and the headers that it has not set itself.

    It is also the last resort for an error that nobody foresaw, so that this answer has them too.
    """

    def __init__(self, app: ASGIApp, errors: ErrorHandlers, headers: Mapping[str, str]) -> None:
        self.app = app
        self.errors = errors
        self.headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        _hide_url(scope)
        request_id = _header(scope, b"x-request-id")
        if not REQUEST_ID.fullmatch(request_id):
            request_id = secrets.token_hex(16).encode()
        client = scope.get("client")
        request_context.set(RequestContext(request_id.decode(), client[0] if client else ""))
        is_answered = False

        async def send_with_headers(message: Message) -> None:
            nonlocal is_answered
            if message["type"] == "http.response.start":
                is_answered = True
                given = {name for name, _ in message["headers"]}
                missing = [header for header in self.headers if header[0] not in given]
                message["headers"] = [*message["headers"], *missing, (b"x-request-id", request_id)]
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except ClientDisconnect:  # in the middle of a body: there is nobody to answer
            return
        except asyncio.CancelledError:  # by the server, whose time is up
            if is_answered:
                raise
            response = await self.errors.app_error(Request(scope), ShuttingDown())
            await response(scope, receive, send_with_headers)
        except Exception as error:
            if not is_answered:
                response = self.errors.unexpected_error(Request(scope), error)
                await response(scope, receive, send_with_headers)
            raise


def _hide_url(scope: Scope) -> None:
    """Keep what was sent out of the span that FastAPI has begun: people put tokens into URLs. `http.route` is there."""
    if "fastapi.telemetry" in scope:
        sent = ["url.path", "url.query"] if scope["query_string"] else ["url.path"]
        trace.get_current_span().set_attributes(dict.fromkeys(sent, HIDDEN))


class PathPrefix:
    """Serve every path under `prefix` as well, whether or not the proxy strips it."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            inside = path == self.prefix or path.startswith(self.prefix + "/")
            scope = {**scope, "root_path": self.prefix, "path": path if inside else self.prefix + path}
        await self.app(scope, receive, send)


class MatchedRoute:
    """Note which route the request has found, for the log and the metrics. It is the innermost middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        finally:
            matched_route.set(declared_path(scope))


class HeadAsGet:
    """Answer HEAD as GET, without the body (RFC 9110 §9.3.2), and `OPTIONS *`, which no route can (§9.3.7)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS" and scope.get("raw_path") == b"*":
            await SERVER_OPTIONS(scope, receive, send)
            return
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self.app({**scope, "method": "GET"}, receive, send_without_body)


class RequestLimits:
    """Refuse what is too large, too slow or not for us: the head of a request at once, its body as it is read."""

    def __init__(self, app: ASGIApp, errors: ErrorHandlers, hosts: Collection[str]) -> None:
        self.app = app
        self.errors = errors
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self._check(scope)
        except AppError as error:
            response = await self.errors.app_error(Request(scope), error)
            await response(scope, receive, send)
        else:
            await self.app(scope, _limited(receive), send)

    def _check(self, scope: Scope) -> None:
        if len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"]) > MAX_URL_BYTES:
            raise URLTooLong
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
            raise HeadersTooLarge
        if b"%2f" in scope.get("raw_path", b"").lower():  # no path here has an encoded slash: a proxy sees another path
            raise NotFound
        if len(_header(scope, b"authorization")) > MAX_AUTHORIZATION_BYTES:
            raise HeadersTooLarge
        if _declares_too_much(scope):
            raise BodyTooLarge
        _check_encodings(scope)
        if not self._is_host_allowed(scope):
            raise UnknownHost
        if scope["query_string"].count(b"&") >= MAX_PARAMETERS:
            raise InvalidInput(("query",), f"must have at most {MAX_PARAMETERS} parameters")
        if not _is_text(scope["query_string"]):
            raise InvalidInput(("query",), "must be UTF-8 text without NUL")

    def _is_host_allowed(self, scope: Scope) -> bool:
        """One Host header (RFC 9112 §3.2); one of the list, where there is a list, for anything but /health."""
        given = [value for name, value in scope["headers"] if name == b"host"]
        if len(given) > 1 or (not given and scope["http_version"] != "1.0"):
            return False
        if not self.hosts or scope["path"].startswith(scope.get("root_path", "") + "/health/"):
            return True
        names = {re.sub(rb":\d*$", b"", host).decode("latin-1").lower() for host in given}
        return not names.isdisjoint(self.hosts)


def _limited(receive: Receive) -> Receive:
    """Receive a body of at most `MAX_BODY_BYTES` within `BODY_SECONDS`.

    The error is raised where the body is read, so that it takes the same way out as every other error.
    """
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
            raise BodyTooSlow from error
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise BodyTooLarge
        is_whole = not message.get("more_body", False)
        return message

    return receive_within_limits


def _declares_too_much(scope: Scope) -> bool:
    length = _header(scope, b"content-length")
    return length.isdigit() and (len(length) > MAX_DIGITS or int(length) > MAX_BODY_BYTES)


def _check_encodings(scope: Scope) -> None:
    """The service decodes chunks and nothing else. Where there is no body its coding does not matter.

    A coding that exists is 501. Anything else leaves open where the body ends, and is 400 (RFC 9112 §6.1, §6.3).
    """
    if not ENCODINGS.intersection(dict(scope["headers"])):
        return
    transfer = _values(scope, b"transfer-encoding")
    if transfer and transfer != [b"chunked"]:
        *codings, last = [coding.strip() for coding in b",".join(transfer).split(b",")]
        is_known = last == b"chunked" and TRANSFER_CODINGS.issuperset(codings)
        raise UnsupportedTransferEncoding if is_known else InvalidTransferEncoding
    has_body = transfer or _header(scope, b"content-length").strip(b"0")
    if has_body and any(coding not in {b"", b"identity"} for coding in _values(scope, b"content-encoding")):
        raise UnsupportedContentEncoding


def _values(scope: Scope, wanted: bytes) -> list[bytes]:
    return [value.lower() for name, value in scope["headers"] if name == wanted]


def _header(scope: Scope, wanted: bytes) -> bytes:
    return next((value for name, value in scope["headers"] if name == wanted), b"")


def _is_text(query: bytes) -> bool:
    try:
        return "\0" not in unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        return False
