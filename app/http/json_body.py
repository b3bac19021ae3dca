"""Parse JSON bodies strictly."""

import json
import re
from codecs import BOM_UTF8
from functools import lru_cache
from itertools import islice
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.params import Form
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter

from app.errors import InvalidInput, UnsupportedMediaType
from app.http.query import Handler, unknown_name
from app.http.schema import Schema

MAX_TOKENS = 256  # no body here needs more than twenty
TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{,]', re.DOTALL)
"""A string, ended or not, or the beginning of an object, an array or another part."""


class InvalidJSON(InvalidInput):
    detail = "must be JSON in UTF-8, no member twice"
    kind = "json_invalid"
    code = "invalid_json"


class JSONRequest(Request):
    """A request that parses JSON strictly. FastAPI asks it to if the Content-Type is JSON."""

    parsed: Any

    async def json(self) -> Any:
        self.parsed = parse(await self.body())
        return self.parsed


def parse_body(route: APIRoute, handle: Handler) -> Handler:
    """Make a handler that takes one unambiguous JSON text. Python's parser alone accepts more than JSON."""
    if route.body_field is None or isinstance(route.body_field.field_info, Form):
        return handle
    body_type: Any = route.body_field.field_info.annotation
    for parameter in route.dependant.body_params:
        model = parameter.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel) and not issubclass(model, Schema):
            raise TypeError(f"{model.__name__}: derive the models of request bodies from Schema, which refuses NUL")

    async def handle_json(request: Request) -> Response:
        request = JSONRequest(request.scope, request.receive)
        body = await request.body()
        try:
            return await handle(request)
        except RequestValidationError as error:
            if body and not hasattr(request, "parsed"):
                raise UnsupportedMediaType from error
            for fault in error.errors():
                if fault["type"] == "extra_forbidden" and fault["loc"][0] == "body":
                    fault["msg"] = unknown_name("field", str(fault["loc"][-1]), _names(body_type))
            raise

    return handle_json


def parse(body: bytes) -> Any:
    """Parse JSON (RFC 8259). Raises InvalidJSON: not UTF-8 (§8.1), too many parts, or a member twice (§4)."""
    if body.startswith(BOM_UTF8):
        raise InvalidJSON(detail="must not begin with a byte order mark")
    if any(islice(TOKEN.finditer(body), MAX_TOKENS, None)):
        raise InvalidJSON(detail="has too many members and elements")
    try:
        return json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except ValueError as error:
        raise InvalidJSON from error


@lru_cache(128)
def _names(body_type: Any) -> frozenset[str]:
    """Return the names of a body's fields, and of the fields of its parts."""
    schema = TypeAdapter(body_type).json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return frozenset(name for part in parts for name in part.get("properties", {}))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member twice")
    return members


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
