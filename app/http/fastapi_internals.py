"""The private parts of FastAPI that `query` and `planned_route` need.

If this version of FastAPI lacks one of them, or has more to do for a route than we know, `IS_KNOWN` is false. Both
modules then leave their work to FastAPI, and `python -m app check` says so.
"""

from dataclasses import fields
from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.types import Scope

KNOWN_FIELDS: Final = {
    *("path_params", "query_params", "header_params", "cookie_params", "body_params", "dependencies", "name", "call"),
    *("request_param_name", "websocket_param_name", "http_connection_param_name", "response_param_name"),
    *("background_tasks_param_name", "security_scopes_param_name", "own_oauth_scopes", "parent_oauth_scopes"),
    *("use_cache", "path", "scope", "concurrency"),
}

try:
    from fastapi._compat import field_annotation_is_sequence
    from fastapi.dependencies.models import Dependant
    from fastapi.dependencies.models import _get_cache_key as cache_key
    from fastapi.dependencies.models import _get_oauth_scopes as oauth_scopes
    from fastapi.dependencies.utils import _get_param_aliases as param_aliases
    from fastapi.dependencies.utils import get_flat_params, request_params_to_args
    from fastapi.routing import _effective_route_context_var, _get_scope_effective_route_context, get_request_handler
    from fastapi.telemetry._api import get_telemetry_data

    IS_KNOWN = {field.name for field in fields(Dependant)} == KNOWN_FIELDS
except ImportError:
    IS_KNOWN = False

__all__ = [
    "IS_KNOWN",
    "Dependant",
    "cache_key",
    "field_annotation_is_sequence",
    "get_flat_params",
    "get_request_handler",
    "get_telemetry_data",
    "oauth_scopes",
    "param_aliases",
    "request_params_to_args",
]


def as_included(route: APIRoute) -> Any:
    """Return the route with the prefix and the dependencies that its router was included with.

    It works while the route makes its handler: FastAPI has a route make one for each time that it is included.
    """
    context = _effective_route_context_var.get()
    return context if context is not None and context.original_route is route else route


def is_included(scope: Scope) -> bool:
    """Whether the route that the request found is one of an included router."""
    return _get_scope_effective_route_context(scope) is not None


def declared_path(scope: Scope) -> str | None:
    """Return the declared path of the route or mount that the request found. Nothing that was sent is in it."""
    mount: str = scope["root_path"].removeprefix(scope["app_root_path"]) if "app_root_path" in scope else ""
    route = scope.get("route")
    if route is None:
        return mount + "/{path}" if mount else None
    context = _get_scope_effective_route_context(scope) if IS_KNOWN else None
    included = context if context is not None and context.original_route is route else route
    return f"{mount}{included.path}"
