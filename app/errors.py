"""What can go wrong, in the domain's words, and the one place where it becomes HTTP.

    AppError
    ├── InvalidInput        422, with the place of the fault
    ├── NotFound            404
    ├── Conflict            409
    ├── Forbidden           403
    ├── PreconditionFailed  412
    ├── BodyTooLarge        413
    └── Unavailable         503, Retry-After

The rooms derive their facts from these: `TaskNotFound`, `UsernameTaken`, … A library's message never gets out, nor what
a client sent: an error names the field, not its value.
"""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
OAUTH_CODES = {
    401: "invalid_client",
    429: "temporarily_unavailable",
    500: "server_error",
    503: "temporarily_unavailable",
}
NOT_IN_DESCRIPTION = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")


class ErrorBody(BaseModel):
    detail: str


class OAuthErrorBody(ErrorBody):
    """RFC 6749 §5.2, with FastAPI's `detail` beside it."""

    error: str
    error_description: str


class AppError(Exception):
    """A refusal. `error` is its code where the answer is OAuth's (RFC 6749 §5.2, RFC 6750 §3.1)."""

    status_code: int = 500
    detail: str = "Internal Server Error"
    error: str | None = None
    headers: Mapping[str, str] = {}


class InvalidInput(AppError):
    status_code = 422

    def __init__(self, loc: tuple[str, ...], message: str) -> None:
        self.loc = loc
        self.detail = message


class NotFound(AppError):
    status_code = 404
    detail = "Not Found"


class Conflict(AppError):
    status_code = 409


class Forbidden(AppError):
    status_code = 403


class PreconditionFailed(AppError):
    status_code = 412
    detail = "The resource is not in the state that If-Match asks for"


class BodyTooLarge(AppError):
    status_code = 413
    detail = "The body is over 128 KiB"


class Unavailable(AppError):
    status_code = 503
    headers: Mapping[str, str] = {"Retry-After": "1"}


def describe(*errors: type[AppError], body: type[ErrorBody] = ErrorBody) -> dict[int | str, dict[str, Any]]:
    """These errors as FastAPI's `responses`, for the OpenAPI document."""
    responses: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        before = responses.get(error.status_code)
        description = f"{before['description']}; {error.detail}" if before else error.detail
        responses[error.status_code] = {"model": body, "description": description}
    return responses


class ErrorHandlers:
    """Every error as `{"detail": …}`; on the OAuth form endpoints with RFC 6749's keys beside it."""

    def __init__(self, app: FastAPI, form_paths: frozenset[str]) -> None:
        self.form_paths = form_paths
        app.exception_handler(AppError)(self.app_error)
        app.exception_handler(HTTPException)(self.http_exception)
        app.exception_handler(RequestValidationError)(self.validation_error)
        app.exception_handler(Exception)(self.unexpected_error)

    async def app_error(self, request: Request, error: AppError) -> Response:
        if isinstance(error, InvalidInput):
            return self.invalid(request, [{"type": "value_error", "loc": error.loc, "msg": error.detail}])
        return self.respond(request, error.status_code, error.detail, error.headers, error.error)

    async def http_exception(self, request: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.BAD_REQUEST and error.__cause__:  # a body that FastAPI cannot parse
            return self.invalid(request, [{"type": "json_invalid", "loc": ("body",), "msg": "JSON decode error"}])
        return self.respond(request, error.status_code, error.detail, error.headers or {})

    async def validation_error(self, request: Request, error: RequestValidationError) -> Response:
        return self.invalid(request, [_without_input(fault) for fault in error.errors()])

    async def unexpected_error(self, request: Request, _: Exception) -> Response:
        return self.respond(request, AppError.status_code, AppError.detail)

    def invalid(self, request: Request, faults: Sequence[Mapping[str, Any]]) -> Response:
        if self.is_form(request):
            words = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in faults)
            return self.respond(request, 400, words)
        return JSONResponse({"detail": faults}, 422)

    def respond(
        self, request: Request, status: int, detail: str, headers: Mapping[str, str] = {}, code: str | None = None
    ) -> Response:
        if not self.is_form(request):
            return JSONResponse({"detail": detail}, status, headers)
        error = code or OAUTH_CODES.get(status, "invalid_request")
        description = NOT_IN_DESCRIPTION.sub("'", detail)
        body = {"detail": detail, "error": error, "error_description": description}
        return JSONResponse(body, status, {**headers, **NO_STORE})

    def is_form(self, request: Request) -> bool:
        return request.scope["path"] in self.form_paths


def _without_input(fault: Mapping[str, Any]) -> dict[str, Any]:
    """A fault in FastAPI's shape, less what the client sent: neither the value nor the name of an unknown field."""
    loc = fault["loc"][:-1] if fault["type"] == "extra_forbidden" else fault["loc"]
    return {"type": fault["type"], "loc": loc, "msg": fault["msg"].removeprefix("Value error, ")}
