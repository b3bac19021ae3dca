"""The form endpoints: what RFC 6749 §3.2 and appendix B ask of a form, which form parsers let pass."""

from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordRequestForm
from pydantic import BaseModel, Field
from python_multipart.multipart import parse_options_header
from starlette.formparsers import MultiPartException
from starlette.types import Message

from app.auth.errors import FieldRequired, InvalidRequest, InvalidScope
from app.auth.schemas import SCOPES
from app.http.fields import StorableText

MAX_FIELDS: Final = 16
MAX_FIELD_BYTES: Final = 8192
NOT_TEXT: Final = "The form must be UTF-8 text without NUL"
NOT_UTF_8: Final = "A form that is not all ASCII must be UTF-8: its Content-Type has another charset"
TOO_MUCH: Final = "The form must have a few short text fields only"


# For the document: what is not so has errors of its own.
Text = StorableText
Secret = Annotated[Text, Field(json_schema_extra={"format": "password"})]
GRANT_TYPE: Final[dict[str, Any]] = {
    "description": "`password`, the default, or `refresh_token`.",
    "pattern": "^(password|refresh_token)?$",
}
WORD: Final = f"({'|'.join(SCOPES)})"
SCOPE: Final[dict[str, Any]] = {
    "description": "Separated by single spaces; none asks for all.",
    "pattern": f"^({WORD}( {WORD})*)?$",
}


class TokenFields(BaseModel):
    """A username and password, or a refresh token."""

    grant_type: Annotated[Text, Field(json_schema_extra=GRANT_TYPE)] = ""
    username: Text = ""
    password: Secret = ""
    refresh_token: Secret = ""
    scope: Annotated[Text, Field(json_schema_extra=SCOPE)] = ""
    client_id: Text = ""
    client_secret: Secret = ""


class TokenField(BaseModel):
    """The token in question."""

    token: Annotated[Text, Field(min_length=1, description="An access or refresh token.")]
    token_type_hint: Annotated[Text, Field(description="Not needed: a token says itself what it is.")] = ""


REQUIRED: Final = {
    "": ("username", "password"),
    "password": ("username", "password"),
    "refresh_token": ("refresh_token",),
}
FIELDS: Final = TokenFields.model_fields | TokenField.model_fields


def form_of(fields: type[BaseModel]) -> dict[str, Any]:
    """A form as a request's body, for the document."""
    schema = fields.model_json_schema()
    del schema["title"]  # it would name the class in generated clients
    content = {kind: {"schema": schema} for kind in ("application/x-www-form-urlencoded", "multipart/form-data")}
    return {"requestBody": {"content": content, "required": "required" in schema}}


async def read_form(request: Request) -> Mapping[str, str]:
    """Read a well-formed form. Empty is absent (RFC 6749 §3.2). A charset makes no difference to what is all ASCII.

    Raises:
        InvalidRequest: it is not one, is cut off, not UTF-8, has too many or too long fields, a file, or a field twice.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    body = await request.body()
    is_utf_8 = options.get(b"charset", b"utf-8").lower() in {b"utf-8", b"utf8"}
    try:
        if kind == b"application/x-www-form-urlencoded":
            items = _urlencoded(body.decode())
        elif kind == b"multipart/form-data" and body.rstrip().endswith(b"--%b--" % options.get(b"boundary", b"")):
            body.decode()  # the parser would take what is not UTF-8 for Latin-1
            items = await _multipart(options.get(b"boundary", b""), body)
        else:
            raise InvalidRequest("The body must be a whole form, urlencoded or multipart")
    except UnicodeDecodeError as error:
        raise InvalidRequest(NOT_TEXT if is_utf_8 else NOT_UTF_8) from error
    if not (is_utf_8 or (body.isascii() and all(name.isascii() and value.isascii() for name, value in items))):
        raise InvalidRequest(NOT_UTF_8)
    if any("\0" in name or "\0" in value for name, value in items):
        raise InvalidRequest(NOT_TEXT)
    form = dict(items)
    if len(form) != len(items):
        names = [name for name, _ in items]
        name = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"{name if name in FIELDS else 'a field'}: Field sent more than once")
    return {name: value for name, value in form.items() if value}


FormFields = Annotated[Mapping[str, str], Depends(read_form)]


class PasswordForm(OAuth2PasswordRequestForm):
    """FastAPI's password form, with the refresh grant's field beside it."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        values = {name: fields.get(name, "") for name in TokenFields.model_fields}
        self.refresh_token = values.pop("refresh_token")
        super().__init__(**values)
        self.username = self.username.strip()
        # FastAPI splits at any white space, and takes white space alone for no scope.
        self.scopes = values["scope"].split(" ") if values["scope"] else []

    def require(self, *names: str) -> None:
        """Check what a grant needs: these fields, and a scope that exists.

        Raises:
            FieldRequired: for the first of the fields that is missing.
            InvalidScope: it is malformed, or unknown.
        """
        for name in names:
            if not getattr(self, name):
                raise FieldRequired(name)
        if not SCOPES.keys() >= set(self.scopes):
            raise InvalidScope


async def get_token_form(fields: FormFields) -> PasswordForm:
    """Raise FieldRequired or InvalidScope where the form lacks what its grant needs."""
    form = PasswordForm(fields)
    form.require(*REQUIRED.get(form.grant_type or "", ()))
    return form


async def get_form_token(fields: FormFields) -> str:
    if "token" not in fields:
        raise FieldRequired("token")
    return fields["token"]


TokenForm = Annotated[PasswordForm, Depends(get_token_form)]
FormToken = Annotated[str, Depends(get_form_token)]


def _urlencoded(body: str) -> list[tuple[str, str]]:
    """Raises UnicodeDecodeError, InvalidRequest."""
    if body.count("&") >= MAX_FIELDS:
        raise InvalidRequest(TOO_MUCH)
    items = parse_qsl(body, keep_blank_values=True, errors="strict")
    if any(len(name.encode()) + len(value.encode()) > MAX_FIELD_BYTES for name, value in items):
        raise InvalidRequest(TOO_MUCH)
    return items


async def _multipart(boundary: bytes, body: bytes) -> list[tuple[str, str]]:
    """Parse the parts as UTF-8, whatever the charset of the Content-Type.

    Raises:
        InvalidRequest
    """
    headers = [(b"content-type", b'multipart/form-data; boundary="%b"' % boundary)]

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    try:
        request = Request({"type": "http", "headers": headers}, receive)
        form = await request.form(max_fields=MAX_FIELDS, max_files=0, max_part_size=MAX_FIELD_BYTES)
    except MultiPartException as error:
        raise InvalidRequest(TOO_MUCH) from error
    return [(name, str(value)) for name, value in form.multi_items()]
