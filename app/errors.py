"""What can go wrong, in the domain's words, and the one place where it becomes HTTP.

    AppError
    ├── InvalidHTTPRequest    400
    ├── UnknownHost           400
    ├── Forbidden             403
    ├── NotFound              404
    ├── BodyTooSlow           408
    ├── Conflict              409
    ├── PreconditionFailed    412
    ├── BodyTooLarge          413
    ├── URLTooLong            414
    ├── UnsupportedMediaType  415
    ├── UnsupportedContentEncoding   415
    ├── InvalidInput          422, with the place of the fault
    ├── TooManyRequests       429, Retry-After
    ├── HeadersTooLarge       431
    ├── UnsupportedTransferEncoding  501
    └── Unavailable           503, Retry-After

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
from starlette.routing import Match

from app.events import record

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
OAUTH_CODES = {
    401: "invalid_client",
    429: "temporarily_unavailable",
    500: "server_error",
    503: "temporarily_unavailable",
}
REFUSALS = {"invalid_token", "insufficient_scope"}
MAX_FAULTS = 100
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
NOT_IN_DESCRIPTION = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")


class ErrorBody(BaseModel):
    detail: str


class Fault(BaseModel):
    """What is wrong in a request, and where."""

    type: str
    loc: list[str | int]
    msg: str


class InvalidInputBody(BaseModel):
    detail: list[Fault]


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
    kind = "value_error"

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


class InvalidHTTPRequest(AppError):
    """What could not be parsed: the protocol sends this one."""

    status_code = 400
    detail = "Invalid HTTP request received."
    code = "invalid_http_request"


class UnknownHost(AppError):
    status_code = 400
    detail = "The Host header is not one of this service's"


class BodyTooSlow(AppError):
    status_code = 408
    detail = "The body did not arrive within 10 seconds"
    headers = {"Connection": "close"}  # noqa: RUF012


class BodyTooLarge(AppError):
    status_code = 413
    detail = "The body is over 128 KiB"


class URLTooLong(AppError):
    status_code = 414
    detail = "The URL is over 8 KiB"


class UnsupportedMediaType(AppError):
    status_code = 415
    detail = "The body must be JSON, with Content-Type: application/json"


class UnsupportedContentEncoding(AppError):
    status_code = 415
    detail = "The body must be sent without Content-Encoding"
    code = "unsupported_content_encoding"
    headers = {"Accept-Encoding": "identity"}  # noqa: RUF012


class HeadersTooLarge(AppError):
    status_code = 431
    detail = "The headers are over 16 KiB, or Authorization over 8 KiB"


class UnsupportedTransferEncoding(AppError):
    status_code = 501
    detail = "The only Transfer-Encoding is chunked"
    code = "unsupported_transfer_encoding"
    headers = {"Connection": "close"}  # noqa: RUF012


class TooManyRequests(AppError):
    status_code = 429
    detail = "Too many requests"

    def __init__(self, seconds: int) -> None:
        self.headers = {"Retry-After": str(seconds)}


class Unavailable(AppError):
    status_code = 503
    headers: Mapping[str, str] = {"Retry-After": "1"}


class ShuttingDown(Unavailable):
    detail = "The service is shutting down"
    headers = {**Unavailable.headers, "Connection": "close"}  # noqa: RUF012


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
INVALID_INPUT: dict[int | str, dict[str, Any]] = {
    422: {"model": InvalidInputBody, "description": "A part of the request is not what it must be"}
}


def describe(*errors: type[AppError], body: type[ErrorBody] = ErrorBody) -> dict[int | str, dict[str, Any]]:
    """These errors as FastAPI's `responses`, for the OpenAPI document."""
    responses: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        before = responses.get(error.status_code)
        description = f"{before['description']}; {error.detail}" if before else error.detail
        responses[error.status_code] = {"model": body, "description": description} | HEADERS.get(error.status_code, {})
    return responses


class ErrorHandlers:
    """Every error as `{"detail": …}`; on the OAuth form endpoints with RFC 6749's keys beside it."""

    def __init__(self, app: FastAPI, form_paths: frozenset[str]) -> None:
        self.routes = app.routes
        self.form_paths = form_paths
        app.exception_handler(AppError)(self.app_error)
        app.exception_handler(HTTPException)(self.http_exception)
        app.exception_handler(RequestValidationError)(self.validation_error)

    async def app_error(self, request: Request, error: AppError) -> Response:
        if isinstance(error, InvalidInput):
            return self.invalid(request, [{"type": error.kind, "loc": error.loc, "msg": error.detail}])
        if error.error in REFUSALS:
            record("access_refused", reason=error.detail)
        if isinstance(error, TooManyRequests):
            record("throttled", reason=request.scope["path"])
        return self.respond(request, error.status_code, error.detail, error.headers, error.error)

    async def http_exception(self, request: Request, error: HTTPException) -> Response:
        headers = {"Allow": self.allowed_methods(request)} if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED else {}
        return self.respond(request, error.status_code, error.detail, {**(error.headers or {}), **headers})

    async def validation_error(self, request: Request, error: RequestValidationError) -> Response:
        return self.invalid(request, [_without_input(fault) for fault in error.errors()[:MAX_FAULTS]])

    def unexpected_error(self, request: Request, error: Exception) -> Response:
        record("unexpected_error", reason=type(error).__name__)
        return self.respond(request, AppError.status_code, AppError.detail, {"Connection": "close"})  # uvicorn does

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

    def allowed_methods(self, request: Request) -> str:
        """The methods of every route at this path; Starlette would name the first route's only."""
        asked = [(method, {**request.scope, "method": method}) for method in METHODS]
        allowed = [m for m, scope in asked if any(route.matches(scope)[0] is Match.FULL for route in self.routes)]
        return ", ".join(["GET", "HEAD", *allowed[1:]] if "GET" in allowed else allowed)

    def is_form(self, request: Request) -> bool:
        return request.scope["path"] in self.form_paths


def _without_input(fault: Mapping[str, Any]) -> dict[str, Any]:
    """A fault in FastAPI's shape, less what the client sent: neither the value nor the name of an unknown field."""
    loc = fault["loc"][:-1] if fault["type"] == "extra_forbidden" else fault["loc"]
    return {"type": fault["type"], "loc": loc, "msg": fault["msg"].removeprefix("Value error, ")}
