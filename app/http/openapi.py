"""The errors in the OpenAPI document: which ones each operation may answer with, and what they look like."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
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
from app.http.error_responses import oauth_body
from app.http.json_body import InvalidJSON

JSON: Final = "application/json"
SCHEMAS: Final = "#/components/schemas/{model}"
ERRORS: Final = "x-errors"
UNEXPECTED: Final[dict[str, Any]] = {"description": "Unexpected error"}
FIRST_SENTENCE: Final = re.compile(r"(.+?)\.(?:\s+|$)", re.DOTALL)
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
    """Describe a header of a response."""
    described = {"description": description, "required": required, "schema": {"type": "string"} | schema}
    return {"headers": {name: described}}


RETRY_AFTER = header("Retry-After", "Seconds to wait.", type="integer", minimum=1)
HEADERS = {
    401: header("WWW-Authenticate", "RFC 6750 §3.", pattern="^Bearer"),
    429: RETRY_AFTER,
    503: RETRY_AFTER,
}


def describe(*errors: type[AppError]) -> dict[int | str, dict[str, Any]]:
    """Return these errors as FastAPI's `responses`. `complete` adds their bodies, and the errors of every operation."""
    responses: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        _add(responses, error.status_code, error)
    return responses


def complete(app: FastAPI, form_paths: Collection[str], bearer_errors: Sequence[type[AppError]]) -> None:
    """Add to each operation of the document who may call it, the common errors, and a summary in words."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = make()
            _, models = models_json_schema(
                [(model, "serialization") for model in (ErrorBody, InvalidInputBody, OAuthErrorBody)],
                ref_template=SCHEMAS,
            )
            document["components"]["schemas"] |= models["$defs"]
            for path, operation in _operations(document):
                _summarize(operation)
                _complete(operation, bearer_errors, is_form=path in form_paths)
            _share_errors(document)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        yield from ((path, operation) for operation in operations.values())


def _summarize(operation: dict[str, Any]) -> None:
    """Make the summary of the first sentence of the endpoint's docstring."""
    description = operation.pop("description", "")
    if first := FIRST_SENTENCE.match(description):
        operation["summary"] = " ".join(first[1].split())
        description = description[first.end() :]
    if description:
        operation["description"] = description


def _complete(operation: dict[str, Any], bearer_errors: Sequence[type[AppError]], *, is_form: bool) -> None:
    responses = operation["responses"]
    for error in (*EVERYWHERE, *_body_errors(operation), *_caller_errors(operation, bearer_errors)):
        _add(responses, "400" if is_form and error is InvalidInput else str(error.status_code), error)
    for status, response in responses.items():
        if errors := response.pop(ERRORS, None):
            model = OAuthErrorBody if is_form else InvalidInputBody if status == "422" else ErrorBody
            bodies = {code: _body(status, code, error, is_form=is_form) for code, error in errors.items()}
            schema = {"$ref": SCHEMAS.format(model=model.__name__), "properties": {"code": {"enum": [*errors]}}}
            examples = {code: {"value": body} for code, body in bodies.items()}
            response["description"] = "; ".join(dict.fromkeys(error["title"] for error in errors.values()))
            response["content"] = {JSON: {"schema": schema, "examples": examples}}
    model = OAuthErrorBody if is_form else ErrorBody
    responses["default"] = UNEXPECTED | {"content": {JSON: {"schema": {"$ref": SCHEMAS.format(model=model.__name__)}}}}
    operation["responses"] = dict(sorted(responses.items()))


def _body(status: str, code: str, error: dict[str, Any], *, is_form: bool) -> dict[str, Any]:
    """Make the body of an error, as an example."""
    detail, fault = error["detail"], error.get("fault")
    if is_form:
        return oauth_body(int(status), f"{fault['loc'][-1]}: {detail}" if fault else detail, code, error.get("error"))
    return {"detail": [fault] if fault else detail, "code": code}


def _body_errors(operation: dict[str, Any]) -> Sequence[type[AppError]]:
    content = operation.get("requestBody", {}).get("content", {})
    of_json = (InvalidJSON, UnsupportedMediaType) if JSON in content else ()
    return (*of_json, UnsupportedContentEncoding, BodyTooSlow) if content else ()


def _caller_errors(operation: dict[str, Any], bearer_errors: Sequence[type[AppError]]) -> list[type[AppError]]:
    """Return the errors about tokens that the operation's security needs. Anybody may call one with `security: []`."""
    security = operation.setdefault("security", [])
    is_optional = {} in security
    has_scopes = any(scopes for scheme in security for scopes in scheme.values())
    return [
        error
        for error in (bearer_errors if security else ())
        if (error.error or not is_optional) and (has_scopes or error.error != "insufficient_scope")
    ]


def _add(responses: dict[Any, dict[str, Any]], status: int | str, error: type[AppError]) -> None:
    """Add an error to the answer with a status."""
    response = responses.setdefault(status, dict(HEADERS.get(error.status_code, {})))
    described: dict[str, Any] = {"detail": error.detail, "error": error.error, "title": error.detail}
    if issubclass(error, InvalidInput):
        fault = {"type": error.kind, "loc": [*error.loc], "msg": error.detail}
        described |= {"fault": fault, "title": InvalidInput.detail}
    response.setdefault(ERRORS, {})[error.code] = described


def _share_errors(document: dict[str, Any]) -> None:
    """Move each error that several operations answer with to the document's components."""
    places = [
        (operation["responses"], status)
        for _, operation in _operations(document)
        for status in operation["responses"]
        if not status.startswith(("2", "3"))
    ]
    counts = Counter(json.dumps(responses[status]) for responses, status in places)
    shared: dict[str, Any] = {}
    names: dict[str, str] = {}
    for responses, status in places:
        key = json.dumps(responses[status])
        if counts[key] > 1:
            if key not in names:
                names[key] = _name(responses[status], status, shared)
                shared[names[key]] = responses[status]
            responses[status] = {"$ref": f"#/components/responses/{names[key]}"}
    document["components"]["responses"] = shared


def _name(response: dict[str, Any], status: str, taken: Collection[str]) -> str:
    """Name an answer by its code, if it has one only, else by its status."""
    content = response["content"][JSON]
    codes = [*content.get("examples", ())]
    name = codes[0].title().replace("_", "") if len(codes) == 1 else f"Error{status.title()}"
    if OAuthErrorBody.__name__ in content["schema"]["$ref"]:
        name = f"OAuth{name}"
    number = sum(each.partition("_")[0] == name for each in taken)
    return f"{name}_{number + 1}" if number else name
