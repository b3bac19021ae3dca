"""What the users endpoints take and answer."""

from datetime import datetime
from re import fullmatch
from typing import Annotated

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import TypedDict

from app.auth.passwords import MAX_LENGTH, MIN_LENGTH, normalize
from app.db.types import StorableText
from app.http.schema import Schema
from app.pagination.page import PageOf, PageQuery

# The library's own switch: intranets use these names, and tests use `test`.
for name in "arpa", "local", "test":
    SPECIAL_USE_DOMAIN_NAMES.remove(name)

NAME = "^[A-Za-z0-9_][A-Za-z0-9._-]*$"
RESERVED = {
    *("abuse", "admin", "administrator", "anonymous", "help", "info", "me", "moderator", "nobody", "null", "official"),
    *("operator", "postmaster", "root", "security", "staff", "support", "sysadmin", "system", "undefined", "webmaster"),
}


def _is_a_name(value: str) -> str:
    if not fullmatch(NAME[1:-1], value):
        raise ValueError("must be letters, digits, dots, hyphens and underscores, with no dot or hyphen at the start")
    return value


def _is_not_reserved(value: str) -> str:
    if value.lower() in RESERVED:
        raise ValueError("is a reserved name: choose another")
    return value


def _is_an_address(value: str) -> str:
    try:
        return validate_email(value, check_deliverability=False).normalized
    except EmailNotValidError:  # its words repeat what was sent
        raise ValueError("is not an e-mail address") from None


Username = Annotated[
    str,
    Field(min_length=3, max_length=64, json_schema_extra={"pattern": NAME}, examples=["ada"]),
    AfterValidator(_is_a_name),
]
Email = Annotated[
    str,
    Field(max_length=254, json_schema_extra={"format": "email"}, examples=["ada@example.com"]),
    AfterValidator(_is_an_address),
]
NFC = BeforeValidator(lambda value: normalize(value) if isinstance(value, str) else value)
PASSWORD = {"format": "password"}
Password = Annotated[
    StorableText,
    Field(max_length=MAX_LENGTH, json_schema_extra=PASSWORD, examples=["correct horse battery"]),
    NFC,
]
NewPassword = Annotated[
    StorableText,
    Field(min_length=MIN_LENGTH, max_length=MAX_LENGTH, json_schema_extra=PASSWORD, examples=["correct horse battery"]),
    NFC,
]


class NewUser(Schema):
    """A user whom the command line adds."""

    username: Username
    password: NewPassword
    email: Email | None = None


class NamedUser(BaseModel):
    """A user to be added, before a password is asked for."""

    username: Username
    email: Email | None = None


class UserCreate(NewUser):
    """A user who registers. Names that could pass for the service's own are reserved."""

    username: Annotated[Username, AfterValidator(_is_not_reserved)]


class UserUpdate(TypedDict, total=False):
    """The fields that are given change; null clears."""

    __pydantic_config__ = ConfigDict(  # type: ignore[misc]
        extra="forbid", json_schema_extra={"examples": [{"email": "ada@example.com"}]}
    )

    email: Email | None


class PasswordSet(Schema):
    new_password: NewPassword


class PasswordChange(PasswordSet):
    current_password: Password


class UserChange(TypedDict, total=False):
    """What an administrator changes, of the fields that are given."""

    __pydantic_config__ = ConfigDict(  # type: ignore[misc]
        extra="forbid", json_schema_extra={"examples": [{"is_active": True}]}
    )

    is_active: Annotated[bool, Field(strict=True, description="Disabled, a user has no sessions, and cannot log in.")]
    is_admin: Annotated[bool, Field(strict=True)]


class PasswordReset(PasswordSet):
    reset_token: Annotated[StorableText, Field(max_length=4096, json_schema_extra=PASSWORD, examples=["eyJhbGciOi…"])]


class ResetSent(BaseModel):
    expires_in: int = Field(description="Seconds that the token is good for.")


class ResetToken(ResetSent):
    reset_token: str = Field(description="Good once, until a newer one is issued or the account changes.")


class UserRead(BaseModel):
    id: str = Field(json_schema_extra={"format": "uuid"})
    username: str
    email: str | None
    is_active: bool
    is_admin: bool
    created_at: datetime
    updated_at: datetime


class UserPage(PageOf[UserRead]):
    pass


class UserQuery(PageQuery):
    in_every_cursor = frozenset({"username"})

    username: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9._-]*$")] = Field(
        "", description="What the usernames begin with, in either letter case."
    )
