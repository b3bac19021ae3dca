"""Request and response models of the users endpoints."""

from datetime import datetime
from re import fullmatch
from typing import Annotated

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, with_config
from pydantic.config import JsonDict
from typing_extensions import TypedDict

from app.auth.passwords import MAX_LENGTH, MIN_LENGTH, normalize
from app.http.fields import StorableText
from app.http.schema import Schema
from app.pagination.page import PageOf, PageQuery

# Intranets use these names, and tests use `test`. The library documents this way to allow them.
for name in "arpa", "local", "test":
    SPECIAL_USE_DOMAIN_NAMES.remove(name)

USERNAME_PATTERN = "^[A-Za-z0-9_][A-Za-z0-9._-]*$"
RESERVED_NAMES = {
    *("abuse", "admin", "administrator", "anonymous", "help", "info", "me", "moderator", "nobody", "null", "official"),
    *("operator", "postmaster", "root", "security", "staff", "support", "sysadmin", "system", "undefined", "webmaster"),
}


def _check_username(value: str) -> str:
    if not fullmatch(USERNAME_PATTERN[1:-1], value):
        raise ValueError("must be letters, digits, dots, hyphens and underscores, with no dot or hyphen at the start")
    return value


def _refuse_reserved(value: str) -> str:
    if value.lower() in RESERVED_NAMES:
        raise ValueError("is a reserved name: choose another")
    return value


def _check_address(value: str) -> str:
    try:
        return validate_email(value, check_deliverability=False).normalized
    except EmailNotValidError:  # its message repeats the input
        raise ValueError("is not an e-mail address") from None


NAME = Field(min_length=3, max_length=64, json_schema_extra={"pattern": USERNAME_PATTERN}, examples=["ada"])
ADDRESS = Field(max_length=254, json_schema_extra={"format": "email"}, examples=["ada@example.com"])
Username = Annotated[str, NAME, AfterValidator(_check_username)]
Email = Annotated[str, ADDRESS, AfterValidator(_check_address)]
NORMALIZED = BeforeValidator(lambda value: normalize(value) if isinstance(value, str) else value)
PASSWORD_FORMAT: JsonDict = {"format": "password"}
PASSWORD = Field(max_length=MAX_LENGTH, json_schema_extra=PASSWORD_FORMAT, examples=["correct horse battery"])
Password = Annotated[StorableText, PASSWORD, NORMALIZED]
NewPassword = Annotated[StorableText, Field(min_length=MIN_LENGTH), PASSWORD, NORMALIZED]
TOKEN = Field(max_length=4096, json_schema_extra=PASSWORD_FORMAT, examples=["eyJhbGciOi…"])
MailedToken = Annotated[StorableText, TOKEN]


class NewUser(Schema):
    """A user whom the command line adds."""

    username: Username
    password: NewPassword
    email: Email | None = None


class NamedUser(BaseModel):
    """A user to be added, before a password is asked for."""

    username: Username
    email: Email | None = None


class Recipient(BaseModel):
    """Somebody to write to."""

    address: Email


class UserCreate(NewUser):
    """A user who registers. Names that could pass for the service's own are reserved."""

    username: Annotated[Username, AfterValidator(_refuse_reserved)]


@with_config(extra="forbid", json_schema_extra={"examples": [{"email": "ada@example.com"}]})
class UserUpdate(TypedDict, total=False):
    """The given fields change. Null clears a field."""

    email: Email | None


class PasswordSet(Schema):
    new_password: NewPassword


class PasswordChange(PasswordSet):
    current_password: Password


@with_config(extra="forbid", json_schema_extra={"examples": [{"is_active": True}]})
class UserChange(TypedDict, total=False):
    """An administrator changes the given fields."""

    is_active: Annotated[bool, Field(strict=True, description="A disabled user has no sessions and cannot log in.")]
    is_admin: Annotated[bool, Field(strict=True)]


class PasswordReset(PasswordSet):
    reset_token: MailedToken


class TOTPSetup(BaseModel):
    secret: str = Field(description="In base 32. It is shown this once.", json_schema_extra=PASSWORD_FORMAT)
    uri: str = Field(description="The same as `otpauth://` URI, for a QR code.", json_schema_extra=PASSWORD_FORMAT)


class TOTPActivation(Schema):
    code: StorableText = Field(max_length=32, json_schema_extra=PASSWORD_FORMAT, examples=["123 456"])


class RecoveryCodes(BaseModel):
    recovery_codes: list[str] = Field(description="Each works once in place of a code. They are shown this once.")


class ForgottenPassword(Schema):
    username: StorableText = Field(
        min_length=1, max_length=254, description="Or the verified e-mail address.", examples=["ada"]
    )


class AddressVerification(Schema):
    verification_token: MailedToken


class TokenMailed(BaseModel):
    expires_in: int = Field(description="Seconds until the token expires.")


class ResetToken(TokenMailed):
    reset_token: str = Field(description="Works once, until a newer token is issued or the account changes.")


class UserRead(BaseModel):
    id: str = Field(json_schema_extra={"format": "uuid"})
    username: str
    email: str | None
    email_verified: bool
    is_active: bool
    is_admin: bool
    totp: bool = Field(description="Whether the login asks for a one-time code.")
    created_at: datetime
    updated_at: datetime


class UserPage(PageOf[UserRead]):
    pass


class UserQuery(PageQuery):
    in_every_cursor = frozenset({"username"})

    username: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9._-]*$")] = Field(
        "", description="Only usernames that begin with this text. Letter case does not matter."
    )
