"""The router that every room uses. Its routes are safe by default."""

from collections.abc import Callable
from inspect import signature
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from app.errors import UnsupportedMediaType
from app.http.json_body import parse_body
from app.http.query import Handler, refuse_query

ROUTE_OPTIONS: Final = (
    signature(APIRouter.add_api_route).parameters.keys() & signature(APIRoute).parameters.keys()
) - {"path", "endpoint"}


class SafeRoute(APIRoute):
    """A route that refuses ambiguous JSON and unknown query parameters, and checks the caller first.

    A dependency that knows the caller sets `request.state.check_caller`, an async function. The route calls it before
    it says what is wrong with a request, so that 401 and 403 come before 422.

    A path that does not end in a parameter also answers with a slash at its end.
    """

    def __init__(self, path: str, *args: Any, **options: Any) -> None:
        super().__init__(path, *args, **options)
        self.ending = path.rpartition("}")[2]
        self.takes_slash = self.ending not in {"", "/"}

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if not self.takes_slash:
            return super().matches(scope)
        path = scope["path"].removesuffix("/")
        if not path.endswith(self.ending):  # a fast answer for most routes
            return Match.NONE, {}
        return super().matches(scope if path == scope["path"] else {**scope, "path": path})

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

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().add_api_route(path.rstrip("/") if self.prefix else path, endpoint, **options)


def add_routes(app: FastAPI, router: APIRouter) -> None:
    """Declare a router's routes on the app itself. FastAPI looks twice for the route of a router that is included."""
    for route in router.routes:
        if not isinstance(route, APIRoute):
            raise TypeError(f"{route} is not a route: use app.include_router() for this router")
        options = {name: getattr(route, name) for name in ROUTE_OPTIONS}
        app.router.add_api_route(route.path, route.endpoint, route_class_override=type(route), **options)
