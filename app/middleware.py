"""Plain ASGI middleware: the prefix that a proxy adds, HEAD, and the largest body that is read."""

from collections.abc import Iterable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BodyTooLarge

MAX_BODY_BYTES = 128 * 1024
MAX_DIGITS = 19  # int() is slow, and in the end fails, on very many


class Prefix:
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


class Head:
    """Answer HEAD as GET, without the body (RFC 9110 §9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self.app({**scope, "method": "GET"}, receive, send_without_body)


class BodyLimit:
    """Refuse a body over `MAX_BODY_BYTES` with 413: by its Content-Length before it is read, else at the byte over it.

    The error is raised where the body is read, so that it takes the same way out as every other error.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        too_large, received = _declares_too_much(scope["headers"]), 0

        async def receive_within_limit() -> Message:
            nonlocal received
            if too_large:
                raise HTTPException(413, BodyTooLarge.detail)
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise HTTPException(413, BodyTooLarge.detail)
            return message

        await self.app(scope, receive_within_limit, send)


def _declares_too_much(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    length = next((value for name, value in headers if name == b"content-length"), b"0")
    return length.isdigit() and (len(length) > MAX_DIGITS or int(length) > MAX_BODY_BYTES)
