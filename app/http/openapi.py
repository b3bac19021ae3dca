"""The answers in the OpenAPI document: their headers, and the errors that each operation may answer with."""

from collections.abc import Collection, Sequence
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.db.database import DatabaseUnavailable, SchemaBehind
from app.errors import (
    AppError,
    BodyTooLarge,
    BodyTooSlow,
    HeadersTooLarge,
    InvalidInput,
    ShuttingDown,
    UnknownHost,
    UnsupportedContentEncoding,
    UnsupportedMediaType,
    URLTooLong,
)
from app.http.json_body import InvalidJSON

JSON: Final = "application/json"
SCHEMAS: Final = "#/components/schemas/{model}"
CODES: Final = "x-codes"
OTHER_ERROR: Final[dict[str, Any]] = {"description": "Another error: what a request must be anywhere"}
INVALID: Final = "A part of the request is not what it must be"
EVERYWHERE: Final[Sequence[type[AppError]]] = (
    *(AppError, UnknownHost, BodyTooLarge, URLTooLong, HeadersTooLarge, InvalidInput),
    *(DatabaseUnavailable, SchemaBehind, ShuttingDown),
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


def header(name: str, description: str, *, required: bool = True, **schema: Any) -> dict[str, Any]:
    """A header of a response, for the OpenAPI document."""
    described = {"description": description, "required": required, "schema": {"type": "string"} | schema}
    return {"headers": {name: described}}


RETRY_AFTER = header("Retry-After", "Seconds to wait.", type="integer", minimum=1)
HEADERS = {
    401: header("WWW-Authenticate", "RFC 6750 §3.", pattern="^Bearer"),
    429: RETRY_AFTER,
    503: RETRY_AFTER,
}


def describe(*errors: type[AppError]) -> dict[int | str, dict[str, Any]]:
    """These errors as FastAPI's `responses`. `complete` adds the body, and the errors that are possible everywhere."""
    responses: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        _add(responses, error.status_code, error)
    return responses


def complete(app: FastAPI, form_paths: Collection[str], bearer_errors: Sequence[type[AppError]]) -> None:
    """Have the document say of each operation what no route needs to say: whom it is open to, and common errors."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = make()
            _, models = models_json_schema(
                [(model, "serialization") for model in (ErrorBody, InvalidInputBody, OAuthErrorBody)],
                ref_template=SCHEMAS,
            )
            document["components"]["schemas"] |= models["$defs"]
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    _complete(operation, bearer_errors, is_form=path in form_paths)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(operation: dict[str, Any], bearer_errors: Sequence[type[AppError]], *, is_form: bool) -> None:
    responses = operation["responses"]
    for error in (*EVERYWHERE, *_body_errors(operation), *_caller_errors(operation, bearer_errors)):
        _add(responses, "400" if is_form and error is InvalidInput else str(error.status_code), error)
    for status, response in responses.items():
        if codes := response.pop(CODES, None):
            model = OAuthErrorBody if is_form else InvalidInputBody if status == "422" else ErrorBody
            schema = {"$ref": SCHEMAS.format(model=model.__name__), "properties": {"code": {"enum": [*codes]}}}
            response["description"] = "; ".join(dict.fromkeys(codes.values()))
            response["content"] = {JSON: {"schema": schema}}
    other = SCHEMAS.format(model=(OAuthErrorBody if is_form else ErrorBody).__name__)
    responses["default"] = OTHER_ERROR | {"content": {JSON: {"schema": {"$ref": other}}}}
    operation["responses"] = dict(sorted(responses.items()))


def _body_errors(operation: dict[str, Any]) -> Sequence[type[AppError]]:
    content = operation.get("requestBody", {}).get("content", {})
    of_json = (InvalidJSON, UnsupportedMediaType) if JSON in content else ()
    return (*of_json, UnsupportedContentEncoding, BodyTooSlow) if content else ()


def _caller_errors(operation: dict[str, Any], bearer_errors: Sequence[type[AppError]]) -> list[type[AppError]]:
    """The errors about tokens that the operation's security asks for. `security: []` is open to everybody."""
    security = operation.setdefault("security", [])
    is_optional = {} in security
    has_scopes = any(scopes for scheme in security for scopes in scheme.values())
    return [
        error
        for error in (bearer_errors if security else ())
        if (error.error or not is_optional) and (has_scopes or error.error != "insufficient_scope")
    ]


def _add(responses: dict[Any, dict[str, Any]], status: int | str, error: type[AppError]) -> None:
    """Add an error to the answer of a status."""
    response = responses.setdefault(status, dict(HEADERS.get(error.status_code, {})))
    words = INVALID if issubclass(error, InvalidInput) else error.detail
    response.setdefault(CODES, {})[error.code] = words
