"""What a JSON body must be before anything parses it."""

from codecs import BOM_UTF8
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.errors import InvalidInput


class JSONRoute(APIRoute):
    """A route whose body is UTF-8 (RFC 8259 §8.1): Python's parser would guess at UTF-16 and UTF-32 as well."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def handle_json(request: Request) -> Response:
            body = await request.body()
            if b"\0" in body or body.startswith(BOM_UTF8):
                raise InvalidInput(("body",), "must be UTF-8, without a byte order mark")
            return await handle(request)

        return handle_json
