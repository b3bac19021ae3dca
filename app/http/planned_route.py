"""The fast path: a route whose dependencies are put in order once, when the service starts.

FastAPI walks the tree of a route's dependencies for each request. That costs more than reading a page from the
database. `PlannedRoute` calls the same functions in the same order, from a flat list. FastAPI's own way answers instead
if an input is not valid, a dependency is overridden, the request is traced, or the route needs more than is known here.
A router opts in: `Router(route_class=PlannedRoute)`.
"""

import inspect
from collections.abc import Awaitable, Callable, Hashable, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from fastapi import Request, Response
from fastapi.security import SecurityScopes
from starlette.datastructures import QueryParams
from starlette.types import Receive, Scope, Send

from app.http import fastapi_internals as fastapi
from app.http.query import QueryNames
from app.http.router import SafeRoute

if TYPE_CHECKING:
    from fastapi.dependencies.models import Dependant

UNPLANNED = (
    *("cookie_params", "body_params", "websocket_param_name", "response_param_name"),
    *("background_tasks_param_name", "concurrency"),
)
"""The fields of a `Dependant` that ask for more than a plan does."""


class PlannedRoute(SafeRoute):
    """A route that follows its plan. It has one if every function is `async` and the endpoint is `-> Response`.

    FastAPI answers instead if a subclass makes a handler of its own, or the route's router was included: what the
    handler or the inclusion adds is not in the plan.
    """

    def __init__(self, path: str, *args: Any, **options: Any) -> None:
        super().__init__(path, *args, **options)
        has_own_handler = type(self).get_route_handler is not SafeRoute.get_route_handler
        self.plan = None if has_own_handler or not fastapi.IS_KNOWN else plan_for(self)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer without what FastAPI puts around each handler: a plan needs none of it."""
        response = None
        if self.plan is not None and scope["method"] in (self.methods or ()) and not self._stands_aside(scope):
            response = await self.plan(Request(scope, receive, send))
        await (response or super().handle)(scope, receive, send)

    def _stands_aside(self, scope: Scope) -> bool:
        app = self.dependency_overrides_provider
        is_overridden = app is not None and app.dependency_overrides
        return is_overridden or fastapi.is_included(scope) or fastapi.get_telemetry_data() is not None


class Inputs:
    """The parameters that one function takes from the path, the query and the headers."""

    def __init__(self, dependant: "Dependant") -> None:
        self.path, self.query, self.header = dependant.path_params, dependant.query_params, dependant.header_params
        aliases = [alias for field in self.header for _, alias in fastapi.param_aliases(field)]
        self.header_names = {alias.lower().encode() for alias in aliases}
        self.without_query = _shareable(self.query, QueryParams())
        self.without_headers = _shareable(self.header, {})

    def read(self, request: Request) -> dict[str, Any] | None:
        """Return the values, or None if one of them is not valid."""
        read, scope = fastapi.request_params_to_args, request.scope
        has_headers = not self.header_names.isdisjoint(map(itemgetter(0), scope["headers"]))
        given = [
            read(self.path, request.path_params),
            (not scope["query_string"] and self.without_query) or read(self.query, request.query_params),
            (not has_headers and self.without_headers) or read(self.header, request.headers),
        ]
        values: dict[str, Any] = {}
        for valid, faults in given:
            if faults:
                return None
            values |= valid
        return values


def _shareable(params: Any, without: Any) -> tuple[dict[str, Any], list[Any]] | None:
    """Read parameters of which none was sent. None if requests cannot share the values, because one could change."""
    values, faults = fastapi.request_params_to_args(params, without)
    return (values, faults) if all(isinstance(value, Hashable) for value in values.values()) else None


class Step(NamedTuple):
    """One function to call, and where its arguments come from: `results` names results of other steps, by number."""

    call: Callable[..., Awaitable[Any]]
    fixed: Mapping[str, Any]
    results: list[tuple[str, int]]
    inputs: Inputs | None


class Plan:
    """A route's functions in the order in which FastAPI calls them, the endpoint last. Result 0 is the request."""

    def __init__(self, dependant: "Dependant") -> None:
        self.query_names = QueryNames(dependant)
        self.steps: list[Step] = []
        self._numbers: dict[object, int] = {}
        self._add(dependant)

    async def __call__(self, request: Request) -> Response | None:
        """Return the endpoint's response, or None if an input is not valid."""
        if self.query_names.faults(request):
            return None
        results: list[Any] = [request]
        for call, fixed, takes, inputs in self.steps:
            values = dict(fixed)
            for name, number in takes:
                values[name] = results[number]
            if inputs is not None:
                given = inputs.read(request)
                if given is None:
                    return None
                values |= given
            results.append(await call(**values))
        response: Response = results[-1]
        return response

    def _add(self, dependant: "Dependant") -> int:
        """Add the steps of a function's dependencies, then its own, each once. Return the number of its step."""
        key = fastapi.cache_key(dependant=dependant)
        if key not in self._numbers:
            results = [(sub.name, self._add(sub)) for sub in dependant.dependencies]
            results += [(dependant.request_param_name, 0), (dependant.http_connection_param_name, 0)]
            scopes = dependant.security_scopes_param_name
            has_inputs = dependant.path_params or dependant.query_params or dependant.header_params
            step = Step(
                cast("Callable[..., Awaitable[Any]]", dependant.call),
                {scopes: SecurityScopes(fastapi.oauth_scopes(dependant=dependant))} if scopes else {},
                [(name, number) for name, number in results if name],
                Inputs(dependant) if has_inputs else None,
            )
            self.steps.append(step)
            self._numbers[key] = len(self.steps)
        return self._numbers[key]


def plan_for(route: Any) -> Plan | None:
    """Plan a route. Return None if FastAPI has more to do for it than is known here.

    A plan gives up at an input that is not valid, and FastAPI begins again. Only a GET may begin twice.
    """
    dependant = route.dependant
    is_limited = route.max_body_size is not None
    if is_limited or not _is_plain(dependant) or inspect.signature(dependant.call).return_annotation is not Response:
        return None
    plan = Plan(dependant)
    return None if route.methods != {"GET"} and any(step.inputs for step in plan.steps) else plan


def _is_plain(dependant: "Dependant") -> bool:
    call = dependant.call
    is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004
    headers = dependant.header_params
    is_flat = fastapi.get_flat_params(fastapi.Dependant(header_params=headers)) == headers  # no model of headers
    is_simple = is_flat and not any(getattr(dependant, name) for name in UNPLANNED)
    return is_async and is_simple and dependant.use_cache and all(map(_is_plain, dependant.dependencies))
