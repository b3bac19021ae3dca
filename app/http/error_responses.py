"""The one place where errors become responses: `{"detail": …, "code": …}`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from app.errors import AppError, Forbidden, InvalidInput, NotFound, TooManyRequests
from app.observe.events import log_event

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
OAUTH_CODES = {
    401: "invalid_client",
    429: "temporarily_unavailable",
    500: "server_error",
    503: "temporarily_unavailable",
}
FRAMEWORK_CODES: Final = {
    400: "bad_request",
    401: "not_authenticated",
    403: Forbidden.code,
    404: NotFound.code,
    405: "method_not_allowed",
}
REFUSALS = {"invalid_token", "insufficient_scope", "insufficient_user_authentication"}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
NOT_IN_DESCRIPTION = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")


class ErrorHandlers:
    """Turn errors into responses. Those of the form endpoints have RFC 6749's keys too."""

    def __init__(self, app: FastAPI, form_paths: frozenset[str]) -> None:
        self.routes = app.routes
        self.form_paths = form_paths
        app.exception_handler(AppError)(self.app_error)
        app.exception_handler(HTTPException)(self.http_exception)
        app.exception_handler(RequestValidationError)(self.validation_error)

    async def app_error(self, request: Request, error: AppError) -> Response:
        if isinstance(error, InvalidInput):
            return self.invalid(request, [{"type": error.kind, "loc": error.loc, "msg": error.detail}], error.code)
        if error.error in REFUSALS:
            log_event("access_refused", reason=error.detail)
        if isinstance(error, TooManyRequests):
            log_event("throttled", reason=request.scope["path"])
        return self.respond(request, error.status_code, error.detail, error.code, error.headers, error.error)

    async def http_exception(self, request: Request, error: HTTPException) -> Response:
        """Answer an error of the framework. It wraps errors that were raised while it read a body."""
        if isinstance(error.__cause__, AppError):
            return await self.app_error(request, error.__cause__)
        status, headers = error.status_code, dict(error.headers or {})
        code = FRAMEWORK_CODES.get(status, f"http_{status}")
        if code == "method_not_allowed":
            headers["Allow"] = self.allowed_methods(request)
        return self.respond(request, status, error.detail, code, headers)

    async def validation_error(self, request: Request, error: RequestValidationError) -> Response:
        return self.invalid(request, [_without_input(fault) for fault in error.errors()], InvalidInput.code)

    def unexpected_error(self, request: Request, error: Exception) -> Response:
        log_event("unexpected_error", reason=type(error).__name__)
        closing = {"Connection": "close"}  # uvicorn does
        return self.respond(request, AppError.status_code, AppError.detail, AppError.code, closing)

    def invalid(self, request: Request, faults: Sequence[Mapping[str, Any]], code: str) -> Response:
        if self.is_form(request):
            words = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in faults)
            return self.respond(request, 400, words, code)
        return JSONResponse({"detail": faults, "code": code}, InvalidInput.status_code)

    def respond(
        self,
        request: Request,
        status: int,
        detail: str,
        code: str,
        headers: Mapping[str, str] = {},
        oauth_code: str | None = None,
    ) -> Response:
        if not self.is_form(request):
            return JSONResponse({"detail": detail, "code": code}, status, headers)
        return JSONResponse(oauth_body(status, detail, code, oauth_code), status, {**headers, **NO_STORE})

    def allowed_methods(self, request: Request) -> str:
        """Return the methods of all routes at this path. Starlette would return those of the first route only.

        A file of the docs has no route.
        """
        asked = [(method, {**request.scope, "method": method}) for method in METHODS]
        allowed = [m for m, scope in asked if any(route.matches(scope)[0] is Match.FULL for route in self.routes)]
        return ", ".join(["GET", "HEAD", *allowed[1:]] if "GET" in allowed or not allowed else allowed)

    def is_form(self, request: Request) -> bool:
        return request.scope["path"].rstrip("/") in self.form_paths


def oauth_body(status: int, detail: str, code: str, error: str | None = None) -> dict[str, str]:
    """Make the body of an error of a form endpoint: RFC 6749 §5.2, with our own keys beside it."""
    error = error or OAUTH_CODES.get(status, "invalid_request")
    return {"detail": detail, "code": code, "error": error, "error_description": NOT_IN_DESCRIPTION.sub("'", detail)}


def _without_input(fault: Mapping[str, Any]) -> dict[str, Any]:
    """Return a fault without anything that the client sent: no value, and no name of an unknown field."""
    loc = fault["loc"][:-1] if fault["type"] == "extra_forbidden" else fault["loc"]
    return {"type": fault["type"], "loc": loc, "msg": fault["msg"].removeprefix("Value error, ")}
