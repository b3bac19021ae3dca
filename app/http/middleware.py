"""Plain ASGI middleware: request ids, response headers, the path prefix, and HEAD."""

import asyncio
import re
import secrets
from collections.abc import Mapping

from opentelemetry import trace
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ShuttingDown
from app.http.error_responses import ErrorHandlers
from app.observe.events import RequestContext, request_context

REDACTED = "REDACTED"
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
HSTS = {"Strict-Transport-Security": "max-age=31536000"}
SERVER_OPTIONS = Response(status_code=204, headers={"Allow": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"})


class RequestIdAndHeaders:
    """Give each request an id, and each response that id and the default headers that it lacks.

    It also answers unexpected errors and the end of the process, so that these responses have the headers too.
    """

    def __init__(self, app: ASGIApp, error_handlers: ErrorHandlers, headers: Mapping[str, str]) -> None:
        self.app = app
        self.error_handlers = error_handlers
        self.headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        trace_id = _trace(scope) if "fastapi.telemetry" in scope else None
        request_id: bytes = dict(scope["headers"]).get(b"x-request-id", b"")
        if not REQUEST_ID.fullmatch(request_id):
            request_id = secrets.token_hex(16).encode()
        client = scope.get("client")
        request_context.set(RequestContext(request_id.decode(), client[0] if client else "", trace_id=trace_id))
        is_answered = False

        async def send_with_headers(message: Message) -> None:
            nonlocal is_answered
            if message["type"] == "http.response.start":
                is_answered = True
                given = dict(message["headers"])
                missing = [header for header in self.headers if header[0] not in given]
                message["headers"] = [*message["headers"], *missing, (b"x-request-id", request_id)]
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except ClientDisconnect:  # while its body was read: nobody waits for an answer
            return
        except asyncio.CancelledError:  # the server stops
            if is_answered:
                raise
            response = await self.error_handlers.app_error(Request(scope), ShuttingDown())
            await response(scope, receive, send_with_headers)
        except Exception as error:
            if not is_answered:
                response = self.error_handlers.unexpected_error(Request(scope), error)
                await response(scope, receive, send_with_headers)
            raise


def _trace(scope: Scope) -> str:
    """Return the id of the trace, for the log. Keep the URL out of FastAPI's span: people put tokens into URLs.

    The span has `http.route`.
    """
    span = trace.get_current_span()
    sent = ["url.path", "url.query"] if scope["query_string"] else ["url.path"]
    span.set_attributes(dict.fromkeys(sent, REDACTED))
    return trace.format_trace_id(span.get_span_context().trace_id)


class PathPrefix:
    """Serve every path under `prefix` as well, whether or not the proxy strips it."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            inside = path == self.prefix or path.startswith(self.prefix + "/")
            scope.update(root_path=self.prefix, path=path if inside else self.prefix + path)
        await self.app(scope, receive, send)


class HeadAsGet:
    """Answer HEAD as GET, without the body (RFC 9110 §9.3.2), and `OPTIONS *`, which no route can (§9.3.7).

    `is_head` in the scope tells an endpoint with a long body.
    """

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

        asked = {**scope, "method": "GET", "is_head": True}  # uvicorn reads the method of its own scope
        try:
            await self.app(asked, receive, send_without_body)
        finally:
            scope.update(asked, method="HEAD")  # with the route that was found, for the log
