"""The forms of the OAuth endpoints (RFC 6749 §3.2 and appendix B).

We do not use `Depends()` on FastAPI's form. Its parser accepts files, repeated fields and other text than UTF-8, which
RFC 6749 forbids, and its errors are 422, without the `error` that OAuth clients read.
"""

from base64 import b64decode
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, unquote_plus

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordRequestForm
from pydantic import BaseModel, Field
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser

from app.auth.errors import FieldRequired, InvalidRequest, InvalidScope
from app.auth.schemas import SCOPE_WORDS, SCOPES
from app.http.fields import StorableText

MAX_FIELDS: Final = 16
MAX_FIELD_BYTES: Final = 8192
NOT_TEXT: Final = "The form must be UTF-8 text without NUL"
NOT_UTF_8: Final = "A form that is not all ASCII must be UTF-8: its Content-Type has another charset"
TOO_MUCH: Final = "The form must have a few short text fields only"

# The models are for the OpenAPI document only. `read_form` has errors of its own.
Secret = Annotated[StorableText, Field(json_schema_extra={"format": "password"})]


class TokenFields(BaseModel):
    """A username and password, or a refresh token."""

    grant_type: str = Field(
        "", description="`password`, the default, or `refresh_token`.", pattern="^(password|refresh_token)?$"
    )
    username: Annotated[StorableText, Field(description="Or the verified e-mail address.")] = ""
    password: Secret = ""
    otp: Annotated[Secret, Field(description="The code of a second factor: a one-time code or a recovery code.")] = ""
    refresh_token: Secret = ""
    scope: str = Field(
        "",
        description="Scopes with single spaces between them. An empty one asks for everything.",
        pattern=f"^({SCOPE_WORDS})?$",
    )
    client_id: StorableText = ""
    client_secret: Annotated[
        Secret, Field(description="Taken for `otp` if that is absent: forms of OAuth clients have no field for codes.")
    ] = ""


class TokenField(BaseModel):
    """The token to revoke or to introspect."""

    token: Annotated[StorableText, Field(min_length=1, description="An access, refresh or personal token.")]
    token_type_hint: Annotated[StorableText, Field(description="Not needed: the token itself says its type.")] = ""


REQUIRED_FIELDS: Final = {"password": ("username", "password"), "refresh_token": ("refresh_token",)}
"""The required fields of each grant type."""


def form_of(fields: type[BaseModel]) -> dict[str, Any]:
    """Describe a form as a request body, for the OpenAPI document."""
    schema = fields.model_json_schema()
    del schema["title"]  # generated clients would take it as the name of a class
    content = {kind: {"schema": schema} for kind in ("application/x-www-form-urlencoded", "multipart/form-data")}
    return {"requestBody": {"content": content, "required": "required" in schema}}


async def read_form(request: Request) -> Mapping[str, str]:
    """Read a form. An empty field counts as absent (RFC 6749 §3.2). A charset does not matter to ASCII text.

    Raises InvalidRequest if the body is no whole form, or not UTF-8, or has a file, a field twice, or too much text.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    body, boundary = await request.body(), options.get(b"boundary", b"")
    is_utf_8 = options.get(b"charset", b"utf-8").lower() in {b"utf-8", b"utf8"}
    try:
        if kind == b"application/x-www-form-urlencoded":
            items = _parse_urlencoded(body.decode())
        elif kind == b"multipart/form-data" and body.rstrip().endswith(b"--%b--" % boundary):
            body.decode()  # the parser would take other bytes for Latin-1
            items = await _parse_multipart(boundary, body)
        else:
            raise InvalidRequest("The body must be a whole form, urlencoded or multipart")
    except UnicodeDecodeError as error:
        raise InvalidRequest(NOT_TEXT if is_utf_8 else NOT_UTF_8) from error
    if not (is_utf_8 or (body.isascii() and all(name.isascii() and value.isascii() for name, value in items))):
        raise InvalidRequest(NOT_UTF_8)
    if any("\0" in name or "\0" in value for name, value in items):
        raise InvalidRequest(NOT_TEXT)
    for name, number in Counter(name for name, _ in items).items():
        if number > 1:
            known = TokenFields.model_fields | TokenField.model_fields
            raise InvalidRequest(f"{name if name in known else 'a field'}: Field sent more than once")
    return {name: value for name, value in items if value}


FormFields = Annotated[Mapping[str, str], Depends(read_form)]


class PasswordForm(OAuth2PasswordRequestForm):
    """FastAPI's password form, with the field of the refresh grant, and a one-time code.

    Swagger UI has no field for the code. It sends the client secret in the form or in the header, so `otp` may stand
    there.
    """

    def __init__(self, fields: Mapping[str, str], authorization: str) -> None:
        values = {name: fields.get(name, "") for name in TokenFields.model_fields}
        self.refresh_token = values.pop("refresh_token")
        self.otp = values.pop("otp") or values["client_secret"] or _basic_secret(authorization)
        super().__init__(**values)
        self.username = self.username.strip()
        # FastAPI splits at any white space, and takes white space alone for no scope.
        self.scopes = values["scope"].split(" ") if values["scope"] else []


async def get_token_form(request: Request, fields: FormFields) -> PasswordForm:
    """Check the fields of the grant type, and that the scopes exist. Raises FieldRequired, InvalidScope."""
    form = PasswordForm(fields, request.headers.get("authorization", ""))
    for name in REQUIRED_FIELDS.get(form.grant_type or "password", ()):
        if not getattr(form, name):
            raise FieldRequired(name)
    if not SCOPES.keys() >= set(form.scopes):
        raise InvalidScope
    return form


async def get_form_token(fields: FormFields) -> str:
    if "token" not in fields:
        raise FieldRequired("token")
    return fields["token"]


TokenForm = Annotated[PasswordForm, Depends(get_token_form)]
FormToken = Annotated[str, Depends(get_form_token)]


def _basic_secret(authorization: str) -> str:
    """Read the client's secret from an HTTP Basic header (RFC 6749 §2.3.1). A header that is malformed has none."""
    scheme, _, credentials = authorization.partition(" ")
    try:
        text = b64decode(credentials, validate=True).decode() if scheme.lower() == "basic" else ""
    except ValueError:
        return ""
    return unquote_plus(text.partition(":")[2])


def _parse_urlencoded(body: str) -> list[tuple[str, str]]:
    """Raises UnicodeDecodeError, InvalidRequest."""
    if body.count("&") >= MAX_FIELDS:
        raise InvalidRequest(TOO_MUCH)
    items = parse_qsl(body, keep_blank_values=True, errors="strict")
    if any(len(name.encode()) + len(value.encode()) > MAX_FIELD_BYTES for name, value in items):
        raise InvalidRequest(TOO_MUCH)
    return items


async def _parse_multipart(boundary: bytes, body: bytes) -> list[tuple[str, str]]:
    """Parse the parts as UTF-8, whatever charset the Content-Type names. Raises InvalidRequest."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    headers = Headers(raw=[(b"content-type", b'multipart/form-data; boundary="%b"' % boundary)])
    parser = MultiPartParser(headers, stream(), max_fields=MAX_FIELDS, max_files=0, max_part_size=MAX_FIELD_BYTES)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidRequest(TOO_MUCH) from error
    return [(name, str(value)) for name, value in form.multi_items()]
