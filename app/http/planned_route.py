"""The fast path: a route whose dependencies are put in order once, when the service starts.

FastAPI walks the tree of a route's dependencies for each request. That costs more than reading a page from the
database. `PlannedRoute` calls the same functions in the same order, from a flat list. FastAPI's own way answers instead
if an input is not valid, a dependency is overridden, the request is traced, or the route needs more than is known here.
A router opts in: `Router(route_class=PlannedRoute)`.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from fastapi import Request, Response
from fastapi.security import SecurityScopes
from starlette.datastructures import QueryParams

from app.http import fastapi_internals as fastapi
from app.http.query import Handler, QueryNames
from app.http.router import SafeRoute

if TYPE_CHECKING:
    from fastapi.dependencies.models import Dependant

UNPLANNED = (
    *("cookie_params", "body_params", "websocket_param_name", "response_param_name"),
    *("background_tasks_param_name", "concurrency"),
)
"""The fields of a `Dependant` that ask for more than a plan does."""


class PlannedRoute(SafeRoute):
    """A route that follows its plan. It has one if every function is `async` and the endpoint is `-> Response`."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        if not fastapi.IS_KNOWN:
            return handle
        route = fastapi.as_included(self)
        plan = plan_for(route)
        if plan is None:
            return handle
        app = route.dependency_overrides_provider

        async def follow_plan(request: Request) -> Response:
            if (app is not None and app.dependency_overrides) or fastapi.get_telemetry_data() is not None:
                return await handle(request)
            response = await plan(request)
            return await handle(request) if response is None else response

        return follow_plan


class Inputs:
    """The parameters that one function takes from the path, the query and the headers."""

    def __init__(self, dependant: "Dependant") -> None:
        self.path, self.query, self.header = dependant.path_params, dependant.query_params, dependant.header_params
        self.header_names = {field.alias.lower().encode() for field in self.header}
        self.without_query = fastapi.request_params_to_args(self.query, QueryParams())
        self.without_headers = fastapi.request_params_to_args(self.header, {})

    def read(self, request: Request) -> dict[str, Any] | None:
        """Return the values, or None if one of them is not valid."""
        read, scope = fastapi.request_params_to_args, request.scope
        has_headers = any(name in self.header_names for name, _ in scope["headers"])
        given = [
            read(self.path, request.path_params),
            read(self.query, request.query_params) if scope["query_string"] else self.without_query,
            read(self.header, request.headers) if has_headers else self.without_headers,
        ]
        values: dict[str, Any] = {}
        for valid, faults in given:
            if faults:
                return None
            values |= valid
        return values


class Step(NamedTuple):
    """One function to call, and where its arguments come from."""

    call: Callable[..., Awaitable[Any]]
    fixed: Mapping[str, Any]
    takes_request: list[str]
    takes_results: list[tuple[str, int]]
    inputs: Inputs | None


class Plan:
    """A route's functions in the order in which FastAPI calls them, the endpoint last."""

    def __init__(self, dependant: "Dependant") -> None:
        self.query_names = QueryNames(dependant)
        self.steps: list[Step] = []
        self._numbers: dict[object, int] = {}
        self._add(dependant)

    async def __call__(self, request: Request) -> Response | None:
        """Return the endpoint's response, or None if an input is not valid."""
        if self.query_names.faults(request):
            return None
        results: list[Any] = []
        for call, fixed, takes_request, takes_results, inputs in self.steps:
            values = dict(fixed)
            for name in takes_request:
                values[name] = request
            for name, number in takes_results:
                values[name] = results[number]
            if inputs is not None:
                given = inputs.read(request)
                if given is None:
                    return None
                values |= given
            results.append(await call(**values))
        response: Response = results[-1]
        return response

    @property
    def has_inputs(self) -> bool:
        return any(step.inputs for step in self.steps)

    def _add(self, dependant: "Dependant") -> int:
        """Add the steps of a function's dependencies, then its own, each once. Return the number of its step."""
        key = fastapi.cache_key(dependant=dependant)
        if key not in self._numbers:
            results = [(sub.name, self._add(sub)) for sub in dependant.dependencies]
            scopes = dependant.security_scopes_param_name
            has_inputs = dependant.path_params or dependant.query_params or dependant.header_params
            step = Step(
                cast("Callable[..., Awaitable[Any]]", dependant.call),
                {scopes: SecurityScopes(fastapi.oauth_scopes(dependant=dependant))} if scopes else {},
                [name for name in (dependant.request_param_name, dependant.http_connection_param_name) if name],
                [(name, number) for name, number in results if name],
                Inputs(dependant) if has_inputs else None,
            )
            self._numbers[key] = len(self.steps)
            self.steps.append(step)
        return self._numbers[key]


def plan_for(route: Any) -> Plan | None:
    """Plan a route. Return None if FastAPI has more to do for it than is known here.

    A plan gives up at an input that is not valid, and FastAPI begins again. Only a GET may begin twice.
    """
    dependant = route.dependant
    if not _is_plain(dependant) or inspect.signature(dependant.call).return_annotation is not Response:
        return None
    plan = Plan(dependant)
    return plan if route.methods == {"GET"} or not plan.has_inputs else None


def _is_plain(dependant: "Dependant") -> bool:
    call = dependant.call
    is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004
    is_simple = not any(getattr(dependant, name) for name in UNPLANNED)
    return is_async and is_simple and dependant.use_cache and all(map(_is_plain, dependant.dependencies))
