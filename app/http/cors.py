"""CORS: pages of the origins that are listed may call, without credentials such as cookies."""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.config import normalize_origin
from app.errors import AppError
from app.http.error_responses import ErrorHandlers

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
KEPT = {"vary", "access-control-allow-methods", "access-control-allow-origin"}  # what was sent is in others
EXPOSED = ("Date", "ETag", "Link", "Location", "Retry-After", "WWW-Authenticate", "X-Request-ID")


class PreflightRefused(AppError):
    status_code = 400
    detail = "CORS does not allow this origin, or this method"
    code = "cors_not_allowed"

    def __init__(self, headers: Headers) -> None:
        self.headers = {name: value for name, value in headers.items() if name in KEPT}


class CORS(CORSMiddleware):
    """Starlette's, with refused preflights in the shape of our errors.

    A preflight for any request header is answered with the names that it asks for: a literal `*` would not cover
    Authorization (Fetch standard, §3.3.5).
    """

    def __init__(self, app: ASGIApp, errors: ErrorHandlers, origins: Collection[str]) -> None:
        super().__init__(app, origins, METHODS, ["*"], expose_headers=EXPOSED)
        self.errors = errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except PreflightRefused as error:
            response = await self.errors.app_error(Request(scope), error)
            await response(scope, receive, send)

    def is_allowed_origin(self, origin: str) -> bool:
        return super().is_allowed_origin(normalize_origin(origin))

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == PreflightRefused.status_code:
            raise PreflightRefused(response.headers)
        return response
