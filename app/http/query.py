"""Query parameters: a route refuses those that it does not know, because a mistyped filter would return everything."""

from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from app.http import fastapi_internals as fastapi

if TYPE_CHECKING:
    from fastapi.dependencies.models import Dependant

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

REQUEST = "the request"  # no parameter of an endpoint has this name
LONGEST_NAME = 32  # the time to find a similar name grows with the square of the length


class QueryNames:
    """The query parameters that a route knows, with all that it depends on."""

    def __init__(self, dependant: "Dependant") -> None:
        fields = fastapi.get_flat_params(fastapi.Dependant(query_params=list(_query_params(dependant))))
        named = [(alias, field.field_info.annotation) for field in fields for _, alias in fastapi.param_aliases(field)]
        self.known = {alias for alias, _ in named}
        self.lists = {alias for alias, annotation in named if fastapi.field_annotation_is_sequence(annotation)}

    def faults(self, request: Request) -> list[dict[str, Any]]:
        """Describe unknown and repeated parameters, and NUL in those of the path, in FastAPI's form."""
        if not request.scope["query_string"] and "\0" not in request.scope["path"]:
            return []
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
        with_nul = [
            {"type": "value_error", "loc": ("path", name), "msg": "must not contain NUL"}
            for name, value in request.path_params.items()
            if "\0" in str(value)
        ]
        return unknown + repeated + with_nul


def refuse_query(route: APIRoute, handle: Handler) -> Handler:
    """Make a handler that refuses unknown parameters, and repeated ones that are no list.

    It solves the route's dependencies first: only a caller who may use the route learns what is wrong.
    """
    if not fastapi.IS_KNOWN:
        return handle
    included = fastapi.as_included(route)
    names = QueryNames(included.dependant)

    async def raise_faults(**values: Any) -> NoReturn:
        raise RequestValidationError(names.faults(values[REQUEST]))

    refuse = fastapi.get_request_handler(
        replace(included.dependant, call=raise_faults, request_param_name=REQUEST),
        included.body_field,
        dependency_overrides_provider=included.dependency_overrides_provider,
        embed_body_fields=included._embed_body_fields,  # noqa: SLF001 - solve them as the route does
        strict_content_type=included.strict_content_type,
    )

    async def handle_strictly(request: Request) -> Response:
        return await (refuse if names.faults(request) else handle)(request)

    return handle_strictly


def unknown_name(kind: str, name: str, known: Collection[str]) -> str:
    """Return the message about an unknown name. It offers the nearest known name and never repeats the one sent."""
    near = get_close_matches(name.lower(), known, 1) if len(name) <= LONGEST_NAME else []
    return f"Unknown {kind}; did you mean {near[0]}?" if near else f"Unknown {kind}"


def _query_params(dependant: "Dependant") -> Iterator[Any]:
    yield from dependant.query_params
    for dependency in dependant.dependencies:
        yield from _query_params(dependency)
