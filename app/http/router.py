"""The router that every room uses. Its routes are safe by default."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from app.errors import UnsupportedMediaType
from app.http.json_body import parse_body
from app.http.query import Handler, refuse_query


class SafeRoute(APIRoute):
    """A route that refuses ambiguous JSON and unknown query parameters, and checks the caller first.

    A dependency that knows the caller sets `request.state.check_caller`, an async function. The route calls it before
    it says what is wrong with a request, so that 401 and 403 come before 422.

    A path that does not end in a parameter also answers with a slash at its end.
    """

    def __init__(self, path: str, *args: Any, **options: Any) -> None:
        super().__init__(path, *args, **options)
        self.takes_slash = not path.endswith(("}", "/"))

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if match is Match.NONE and self.takes_slash and scope["path"].endswith("/"):
            return super().matches({**scope, "path": scope["path"][:-1]})
        return match, child_scope

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


class Router(APIRouter):
    """FastAPI's router with safe routes. `/x` and `/x/` are one path, which the OpenAPI document has once."""

    def __init__(self, *, route_class: type[APIRoute] = SafeRoute, **options: Any) -> None:
        super().__init__(route_class=route_class, **options)
        self.fixed_prefix = self.prefix.partition("{")[0]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Try the routes one by one only if the prefix is somewhere in the path."""
        return super().matches(scope) if self.fixed_prefix in scope["path"] else (Match.NONE, {})

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().add_api_route(path.rstrip("/") if self.prefix else path, endpoint, **options)
