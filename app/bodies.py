"""What a JSON body must be before anything works on it."""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from app.errors import InvalidInput, UnsupportedMediaType

MAX_OPENINGS = 32  # of objects and arrays; no body here needs more than one
STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)  # or what would be one: to look for its end takes long
OPENING = re.compile(rb"[\[{]")


class InvalidJSON(InvalidInput):
    kind = "json_invalid"
    code = "invalid_json"

    def __init__(self, message: str) -> None:
        super().__init__(("body",), message)


class JSONRequest(Request):
    """A request whose JSON body has been parsed."""

    parsed: Any

    async def json(self) -> Any:
        return self.parsed


class JSONRoute(APIRoute):
    """A route whose body is one unambiguous JSON text: Python's parser alone would take far more for JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def handle_json(request: Request) -> Response:
            request = JSONRequest(request.scope, request.receive)
            body = await request.body()
            is_json = _is_json(request.headers.get("content-type", ""))
            if body and is_json:
                request.parsed = parse(body)
            try:
                return await handle(request)
            except RequestValidationError as error:
                if body and not is_json:
                    raise UnsupportedMediaType from error
                raise

        return handle_json


def parse(body: bytes) -> Any:
    """Parse a JSON text.

    Raises:
        InvalidJSON: not JSON (RFC 8259) in UTF-8 (§8.1), nested too deeply, or with a member that stands twice (§4).
    """
    if body.startswith(BOM_UTF8):
        raise InvalidJSON("must not begin with a byte order mark")
    if len(OPENING.findall(STRING.sub(b"", body))) > MAX_OPENINGS:
        raise InvalidJSON("is nested too deeply")
    try:
        return json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except ValueError as error:
        raise InvalidJSON("must be JSON in UTF-8, no member twice") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member twice")
    return members


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _is_json(content_type: str) -> bool:
    message = Message()
    message["content-type"] = content_type
    kind, subtype = message.get_content_maintype(), message.get_content_subtype()
    return kind == "application" and (subtype == "json" or subtype.endswith("+json"))
