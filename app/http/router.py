"""The router of every room: its routes are safe by default."""

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
    """A route that takes one unambiguous JSON body and known query parameters, and checks the caller first.

    A dependency that knows the caller sets `request.state.check_caller`. It is called before anybody learns what is
    wrong with a request: 401 and 403 come before 422.
    """

    def __init__(self, path: str, *args: Any, **options: Any) -> None:
        super().__init__(path, *args, **options)
        self.has_slash = not path.endswith(("}", "/"))

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if match is Match.NONE and self.has_slash and scope["path"].endswith("/"):
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
    def __init__(self, *, route_class: type[APIRoute] = SafeRoute, **options: Any) -> None:
        super().__init__(route_class=route_class, **options)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Skip the routes one by one, when the prefix is not in the path."""
        return super().matches(scope) if self.prefix in scope["path"] else (Match.NONE, {})

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().add_api_route(path.rstrip("/") or ("" if self.prefix else "/"), endpoint, **options)
