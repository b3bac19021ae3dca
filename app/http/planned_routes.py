"""A short path: what FastAPI works out for each request, worked out once.

FastAPI walks the tree of dependencies, and matches the routes one by one, for every request anew; that costs more than
reading a page from the database. Here both are laid out flat when the service starts. The functions are the same, in
the same order, and so are the errors that they raise. Whatever else there is to a request goes FastAPI's way from its
beginning: an input that is not valid, overridden dependencies, traces, routes that do more than is known here. What a
route class does around its handler is left out: ours look at bodies and at invalid input, which have no short path.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, cast

from fastapi import FastAPI, Request, Response
from fastapi.dependencies.models import Dependant, _get_cache_key, _get_oauth_scopes
from fastapi.dependencies.utils import request_params_to_args
from fastapi.routing import RouteContext, iter_route_contexts
from fastapi.security import SecurityScopes
from fastapi.telemetry._api import get_telemetry_data
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import AppError
from app.http.error_responses import ErrorHandlers
from app.http.query import QueryNames
from app.observe.requests import matched_route

UNKNOWN = (
    *("cookie_params", "body_params", "websocket_param_name", "response_param_name"),
    *("background_tasks_param_name", "concurrency"),
)


class Shortcut:
    """Answer along the plan of a route, where there is one, and leave the rest to FastAPI."""

    def __init__(self, app: ASGIApp, fastapi: FastAPI, errors: ErrorHandlers) -> None:
        self.app = app
        self.fastapi = fastapi
        self.errors = errors
        self.plans: dict[tuple[str, str], Plan] = {}
        self.patterns: list[tuple[RouteContext, Plan]] = []
        for route in iter_route_contexts(fastapi.routes):
            plan = plan_for(getattr(route, "dependant", None))
            if plan is None or route.path is None or (plan.has_inputs and route.methods != {"GET"}):
                continue  # FastAPI must not begin anew with a body that has been read
            if "{" in route.path:
                self.patterns.append((route, plan))
            else:
                for method in route.methods or ():
                    self.plans.setdefault((method, route.path), plan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        plan = self._plan(scope) if scope["type"] == "http" else None
        try:
            response = await self._follow(plan, Request(scope, receive, send)) if plan else None
            await (response or self.app)(scope, receive, send)
        finally:
            if plan is None:
                matched_route.set(_declared(scope))

    def _plan(self, scope: Scope) -> "Plan | None":
        if self.fastapi.dependency_overrides or get_telemetry_data() is not None:
            return None
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if plan := self.plans.get((scope["method"], path)):
            scope["path_params"] = {}
            matched_route.set(path)
            return plan
        for route, plan in self.patterns:
            match, found = route.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                matched_route.set(route.path)
                return plan
        return None

    async def _follow(self, plan: "Plan", request: Request) -> Response | None:
        try:
            return await plan(request)
        except AppError as error:
            return await self.errors.app_error(request, error)
        except HTTPException as error:
            return await self.errors.http_exception(request, error)


def _declared(scope: Scope) -> str | None:
    """The path of the route, or mount, that the router found."""
    if "route" in scope:
        path: str = scope["route"].path
        return path
    if "app_root_path" in scope:
        return f"{scope['root_path'].removeprefix(scope['app_root_path'])}/{{path}}"
    return None


class Inputs:
    """What one function takes from the path, the query and the headers."""

    def __init__(self, dependant: Dependant) -> None:
        self.path, self.query, self.header = dependant.path_params, dependant.query_params, dependant.header_params
        self.header_names = {field.alias.lower().encode() for field in self.header}
        self.without_query = request_params_to_args(self.query, QueryParams())
        self.without_headers = request_params_to_args(self.header, {})

    def read(self, request: Request) -> dict[str, Any] | None:
        """The values; None where one of them is not valid."""
        scope = request.scope
        has_headers = any(name in self.header_names for name, _ in scope["headers"])
        given = [
            request_params_to_args(self.path, request.path_params),
            request_params_to_args(self.query, request.query_params) if scope["query_string"] else self.without_query,
            request_params_to_args(self.header, request.headers) if has_headers else self.without_headers,
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
    """A route's functions in the order in which FastAPI calls them, the endpoint last.

    It answers with the response; None where an input is not valid.
    """

    def __init__(self, dependant: Dependant) -> None:
        self.query_names = QueryNames(dependant)
        self.steps: list[Step] = []
        self._numbers: dict[object, int] = {}
        self._add(dependant)

    async def __call__(self, request: Request) -> Response | None:
        if request.scope["query_string"] and self.query_names.faults(request):
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

    def _add(self, dependant: Dependant) -> int:
        """Lay out what a function depends on, and then itself, once; its number."""
        key = _get_cache_key(dependant=dependant)
        if key not in self._numbers:
            results = [(sub.name, self._add(sub)) for sub in dependant.dependencies]
            scopes = dependant.security_scopes_param_name
            has_inputs = dependant.path_params or dependant.query_params or dependant.header_params
            step = Step(
                cast("Callable[..., Awaitable[Any]]", dependant.call),
                {scopes: SecurityScopes(_get_oauth_scopes(dependant=dependant))} if scopes else {},
                [name for name in (dependant.request_param_name, dependant.http_connection_param_name) if name],
                [(name, number) for name, number in results if name],
                Inputs(dependant) if has_inputs else None,
            )
            self._numbers[key] = len(self.steps)
            self.steps.append(step)
        return self._numbers[key]


def plan_for(dependant: Dependant | None) -> Plan | None:
    """Plan a route; None where FastAPI has more to do for it than is known here."""
    if dependant is None or dependant.call is None or not _is_plain(dependant):
        return None
    is_whole = inspect.signature(dependant.call).return_annotation is Response
    return Plan(dependant) if is_whole else None


def _is_plain(dependant: Dependant) -> bool:
    call = dependant.call
    is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004
    knows_all = not any(getattr(dependant, name) for name in UNKNOWN)
    return is_async and knows_all and dependant.use_cache and all(map(_is_plain, dependant.dependencies))
