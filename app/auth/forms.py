"""The form endpoints: what RFC 6749 §3.2 and appendix B ask of a form, which form parsers let pass."""

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote_from_bytes, unquote_to_bytes

from fastapi import Form, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import OAuth2PasswordRequestForm
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from app.auth.errors import InvalidRequest
from app.errors import NO_STORE

ASCII: Final = bytes(range(128))
MAX_FIELDS: Final = 16
MAX_FIELD_BYTES: Final = 8192
FIELDS: Final = {
    "grant_type",
    "username",
    "password",
    "refresh_token",
    "scope",
    "client_id",
    "client_secret",
    "token",
    "token_type_hint",
}


class TokenForm(OAuth2PasswordRequestForm):
    """FastAPI's password form, with the refresh grant's field beside it. Empty is absent (RFC 6749 §3.2)."""

    def __init__(
        self,
        *,
        grant_type: Annotated[str | None, Form(description="`password`, the default, or `refresh_token`.")] = None,
        username: Annotated[str | None, Form()] = None,
        password: Annotated[str | None, Form(json_schema_extra={"format": "password"})] = None,
        refresh_token: Annotated[str | None, Form(json_schema_extra={"format": "password"})] = None,
        scope: Annotated[str, Form(description="Separated by spaces; none asks for all.")] = "",
        client_id: Annotated[str | None, Form()] = None,
        client_secret: Annotated[str | None, Form(json_schema_extra={"format": "password"})] = None,
    ) -> None:
        super().__init__(
            grant_type=grant_type,
            username=username or "",
            password=password or "",
            scope=scope,
            client_id=client_id,
            client_secret=client_secret,
        )
        self.refresh_token = refresh_token or ""

    def require(self, *names: Literal["username", "password", "refresh_token"]) -> None:
        """Raises InvalidRequest for the first of the fields that is missing."""
        for name in names:
            if not getattr(self, name):
                raise InvalidRequest(f"{name}: Field required")


class FormRoute(APIRoute):
    """A route that takes a well-formed form only, and whose answers are not to be stored."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_form(request: Request) -> Response:
            body = _well_formed(request.headers.get("content-type", ""), await request.body())
            request = Request(request.scope, _replay(body))
            await _check_fields(request)
            response = await handle(request)
            response.headers.update(NO_STORE)
            return response

        return handle_form


def _well_formed(content_type: str, body: bytes) -> bytes:
    """Refuse what form parsers would mend, cut short or take for Latin-1; escape UTF-8 that came as it is.

    Raises:
        InvalidRequest: not a form, cut off, or not UTF-8 text.
    """
    kind, options = parse_options_header(content_type)
    if kind == b"application/x-www-form-urlencoded":
        body = quote_from_bytes(body, safe=ASCII).encode()
        text = unquote_to_bytes(body)
    elif kind == b"multipart/form-data" and body.rstrip().endswith(b"--%b--" % options.get(b"boundary", b"")):
        text = body
    else:
        raise InvalidRequest("The body must be a whole form, urlencoded or multipart")
    if options.get(b"charset", b"utf-8").lower() not in {b"utf-8", b"utf8"} or b"\0" in text or not _is_utf8(text):
        raise InvalidRequest("The form must be UTF-8 text without NUL")
    return body


async def _check_fields(request: Request) -> None:
    """Parse the form, for FastAPI to find it parsed.

    Raises:
        InvalidRequest: too many or too long fields, a file, or a field sent twice (RFC 6749 §3.2).
    """
    try:
        form = await request.form(max_fields=MAX_FIELDS, max_files=0, max_part_size=MAX_FIELD_BYTES)
    except HTTPException as error:
        raise InvalidRequest("The form must have a few short text fields only") from error
    for name, count in Counter(name for name, _ in form.multi_items()).items():
        if count > 1:
            raise InvalidRequest(f"{name if name in FIELDS else 'a field'}: Field sent more than once")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _replay(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    return receive
