"""The router of every room: its routes are safe by default."""

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from app.errors import UnsupportedMediaType
from app.http.json_body import parse_body
from app.http.query import Handler, refuse_query


class SafeRoute(APIRoute):
    """A route that takes one unambiguous JSON body and known query parameters, and checks the caller first.

    A dependency that knows the caller sets `request.state.check_caller`. It is called before anybody learns what is
    wrong with a request: 401 and 403 come before 422.
    """

    def get_route_handler(self) -> Handler:
        handle = parse_body(self, refuse_query(self, super().get_route_handler()))

        async def check_caller_first(request: Request) -> Response:
            try:
                return await handle(request)
            except (RequestValidationError, UnsupportedMediaType):
                if check_caller := getattr(request.state, "check_caller", None):
                    await check_caller()
                raise

        return check_caller_first
