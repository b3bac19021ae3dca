"""Query parameters: a route refuses those that it does not know, so that a mistyped filter does not return all."""

from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi._compat import field_annotation_is_sequence
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import _get_param_aliases, get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, _effective_route_context_var, get_request_handler

REQUEST = "the request"  # no parameter of an endpoint is called so
LONGEST_NAME = 32  # to look for a near one takes the square of its length


class QueryNames:
    """The query parameters that a route knows, with all that it depends on."""

    def __init__(self, dependant: Dependant) -> None:
        fields = get_flat_params(Dependant(query_params=list(_query_params(dependant))))
        named = [(alias, field.field_info.annotation) for field in fields for _, alias in _get_param_aliases(field)]
        self.known = {alias for alias, _ in named}
        self.lists = {alias for alias, annotation in named if field_annotation_is_sequence(annotation)}

    def faults(self, request: Request) -> list[dict[str, Any]]:
        """Name the unknown and the repeated parameters, in FastAPI's shape."""
        given = Counter(name for name, _ in request.query_params.multi_items())
        unknown = [
            {"type": "extra_forbidden", "loc": ("query", name), "msg": unknown_name("parameter", name, self.known)}
            for name in given
            if name not in self.known
        ]
        repeated = [
            {"type": "repeated", "loc": ("query", name), "msg": "must be given once"}
            for name, count in given.items()
            if count > 1 and name in self.known and name not in self.lists
        ]
        return unknown + repeated


class StrictRoute(APIRoute):
    """A route that refuses query parameters that it does not know, or that are repeated where it takes no list.

    It does so in the place of the endpoint, after all that the route depends on: the caller has been checked by then.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        context = _effective_route_context_var.get()  # the route as it is included, with what it depends on there
        route: Any = context if context is not None and context.original_route is self else self
        names = QueryNames(route.dependant)
        handle = super().get_route_handler()

        async def refuse_query(**values: Any) -> NoReturn:
            raise RequestValidationError(names.faults(values[REQUEST]))

        refuse = get_request_handler(
            replace(route.dependant, call=refuse_query, request_param_name=REQUEST),
            route.body_field,
            dependency_overrides_provider=route.dependency_overrides_provider,
            embed_body_fields=route._embed_body_fields,  # noqa: SLF001 - there is no other way to solve them alike
            strict_content_type=route.strict_content_type,
        )

        async def handle_strictly(request: Request) -> Response:
            if request.scope["query_string"] and names.faults(request):
                return await refuse(request)
            return await handle(request)

        return handle_strictly


def unknown_name(kind: str, name: str, known: Collection[str]) -> str:
    """The message about a name that nobody knows: it offers the nearest one, and does not repeat what was sent."""
    near = get_close_matches(name.lower(), known, 1) if len(name) <= LONGEST_NAME else []
    return f"Unknown {kind}; did you mean {near[0]}?" if near else f"Unknown {kind}"


def _query_params(dependant: Dependant) -> Iterator[Any]:
    yield from dependant.query_params
    for dependency in dependant.dependencies:
        yield from _query_params(dependency)
