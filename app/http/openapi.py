"""The errors in the OpenAPI document: which ones each operation may answer with, and what they look like."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel

from app import errors
from app.db import errors as db
from app.errors import AppError, InvalidInput
from app.http.error_responses import oauth_body
from app.http.json_body import InvalidJSON

JSON: Final = "application/json"
SCHEMAS: Final = "#/components/schemas/"
ERRORS: Final = "x-errors"
SENTENCE_END: Final = re.compile(r"\.(?:\s+|$)")
EVERYWHERE: Final[Sequence[type[AppError]]] = (
    *(AppError, errors.UnknownHost, errors.BodyTooLarge, errors.URLTooLong, errors.HeadersTooLarge, InvalidInput),
    *(db.DatabaseUnavailable, db.DatabaseReadOnly, db.DatabaseIsStandby, db.DatabaseForbidden, db.DatabaseNotUTF8),
    *(db.DatabaseDamaged, db.DatabaseFileGone, db.DatabaseFileReplaced),
    *(db.PoolerForgets, db.PoolerRefuses, db.SchemaBehind, errors.ShuttingDown),
)


class ErrorBody(BaseModel):
    """`detail` is for people, `code` for programs."""

    detail: str
    code: str


class Fault(BaseModel):
    """A fault of a request, and its place."""

    type: str
    loc: list[str | int]
    msg: str


class InvalidInputBody(BaseModel):
    detail: list[Fault]
    code: str


class OAuthErrorBody(ErrorBody):
    """RFC 6749 §5.2, with `detail` and `code` beside it."""

    error: str
    error_description: str


UNEXPECTED: Final[dict[str, Any]] = {
    "description": "Unexpected error",
    "model": ErrorBody | InvalidInputBody | OAuthErrorBody,
}
"""A response of every operation. It brings the three models into the document."""


def header(name: str, description: str, *, required: bool = True, **schema: Any) -> dict[str, Any]:
    """Describe a header of a response."""
    described = {"description": description, "required": required, "schema": {"type": "string"} | schema}
    return {"headers": {name: described}}


SECONDS: Final[dict[str, Any]] = {"type": "integer", "minimum": 1}
HEADERS: Final = {
    401: header("WWW-Authenticate", "RFC 6750 §3.", pattern="^Bearer"),
    429: header("Retry-After", "Seconds to wait.", **SECONDS),
    503: header("Retry-After", "Seconds to wait. It is absent if waiting does not help.", required=False, **SECONDS),
}


def describe(*described: type[AppError]) -> dict[int | str, dict[str, Any]]:
    """Return these errors as FastAPI's `responses`. `complete` adds their bodies, and the errors of every operation."""
    responses: dict[int | str, dict[str, Any]] = {}
    for error in described:
        _add(responses, error.status_code, error)
    return responses


def complete(
    app: FastAPI,
    form_paths: Collection[str],
    bearer_errors: Sequence[type[AppError]],
    other_schemes: Mapping[str, dict[str, Any]],
) -> None:
    """Add to each operation of the document who may call it, the common errors, and a summary in words.

    Each operation that takes a token takes one of the other security schemes in its place.
    """
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = make()
            shared: dict[str, Any] = {}
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    _summarize(operation)
                    _complete(operation, bearer_errors, is_form=path in form_paths)
                    operation["security"] += [{name: []} for name in other_schemes if operation["security"]]
                    operation["responses"] = dict(_shared(operation["responses"], shared))
            document["components"]["responses"] = shared
            document["components"]["securitySchemes"].update(other_schemes)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def _summarize(operation: dict[str, Any]) -> None:
    """Make the summary of the first sentence of the endpoint's docstring."""
    first, *rest = SENTENCE_END.split(operation.pop("description", ""), 1)
    if first:
        operation["summary"] = " ".join(first.split())
    if any(rest):
        operation["description"] = rest[0]


def _complete(operation: dict[str, Any], bearer_errors: Sequence[type[AppError]], *, is_form: bool) -> None:
    responses = operation["responses"]
    for error in (*EVERYWHERE, *_own_errors(operation, bearer_errors)):
        _add(responses, "400" if is_form and error is InvalidInput else str(error.status_code), error)
    for status, response in responses.items():
        model = OAuthErrorBody if is_form else InvalidInputBody if status == "422" else ErrorBody
        schema: dict[str, Any] = {"$ref": SCHEMAS + model.__name__}
        if bodies := response.pop(ERRORS, None):
            schema["properties"] = {"code": {"enum": [*bodies]}}
            examples = {code: {"value": body["form" if is_form else "json"]} for code, body in bodies.items()}
            response["description"] = "; ".join(dict.fromkeys(body["title"] for body in bodies.values()))
            response["content"] = {JSON: {"schema": schema, "examples": examples}}
        elif status == "default":
            response["content"] = {JSON: {"schema": schema}}


def _own_errors(operation: dict[str, Any], bearer_errors: Sequence[type[AppError]]) -> Iterator[type[AppError]]:
    """Yield the errors about the body and the token that the operation takes. With `security: []` it takes no token."""
    content = operation.get("requestBody", {}).get("content", {})
    if JSON in content:
        yield from (InvalidJSON, errors.UnsupportedMediaType)
    if content:
        yield from (errors.UnsupportedContentEncoding, errors.BodyTooSlow)
    security = operation.setdefault("security", [])
    has_scopes = any(scopes for scheme in security for scopes in scheme.values())
    for error in bearer_errors if security else ():
        if (error.error or {} not in security) and (has_scopes or error.error != "insufficient_scope"):
            yield error


def _add(responses: dict[Any, dict[str, Any]], status: int | str, error: type[AppError]) -> None:
    """Add an error to the answer with a status: its title, and its body as JSON operations and as forms answer."""
    title = detail = error.detail
    body: dict[str, Any] = {"detail": detail, "code": error.code}
    if issubclass(error, InvalidInput):
        body["detail"] = [{"type": error.kind, "loc": [*error.loc], "msg": detail}]
        title, detail = InvalidInput.detail, f"{error.loc[-1]}: {detail}"
    form = oauth_body(error.status_code, detail, error.code, error.error)
    response = responses.setdefault(status, dict(HEADERS.get(error.status_code, {})))
    response.setdefault(ERRORS, {})[error.code] = {"title": title, "json": body, "form": form}


def _shared(responses: dict[str, Any], shared: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Sort the responses, and move the errors to the document's components, which have each once.

    The name of an error is its code, if it has one only, else its status, and a number if the name is taken.
    """
    for status, response in sorted(responses.items()):
        if status.startswith(("2", "3")):
            yield status, response
            continue
        content = response["content"][JSON]
        codes = [*content.get("examples", ())]
        stem = codes[0].title().replace("_", "") if len(codes) == 1 else f"Error{status.title()}"
        if content["schema"]["$ref"].endswith(OAuthErrorBody.__name__):
            stem = f"OAuth{stem}"
        names = (f"{stem}_{number}" if number > 1 else stem for number in count(1))
        name = next(name for name in names if shared.setdefault(name, response) == response)
        yield status, {"$ref": f"#/components/responses/{name}"}
