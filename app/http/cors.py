"""CORS: pages of the listed origins may call, without credentials such as cookies."""

from collections.abc import Collection
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from app.config.values import normalize_origin
from app.http.error_responses import NO_STORE, oauth_body

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
EXPOSED = ("Date", "ETag", "Link", "Location", "Retry-After", "WWW-Authenticate", "X-Request-ID")
REFUSED = oauth_body(400, "CORS does not allow this origin, or this method", "cors_not_allowed")
"""It has the keys of OAuth at every path, because a form endpoint may be asked for."""

KEPT_HEADERS = {"vary", "access-control-allow-methods", "access-control-allow-origin"}  # the others echo the request


class CORS(CORSMiddleware):
    """Starlette's middleware. It compares origins in their normal form, and refuses a preflight as JSON.

    With `*`, Starlette allows each header that a preflight names. A literal `*` in the answer would not allow
    Authorization (Fetch standard, §3.3.5).
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(app, origins, METHODS, ["*"], expose_headers=EXPOSED)

    def is_allowed_origin(self, origin: str) -> bool:
        return super().is_allowed_origin(normalize_origin(origin))

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        headers = {name: value for name, value in response.headers.items() if name in KEPT_HEADERS}
        return JSONResponse(REFUSED, response.status_code, headers | NO_STORE)
