"""The scopes, and the answers of the auth endpoints."""

from datetime import datetime
from typing import Final, Literal

from pydantic import BaseModel, Field

from app.config import DAY
from app.http.fields import Flag, VisibleText, WholeNumber
from app.http.schema import Schema
from app.pagination.page import PageOf, PageQuery

SCOPES: Final = {
    "tasks:read": "Read your tasks.",
    "tasks:write": "Create, change and delete your tasks.",
    "account": "Your profile, password, sessions and personal tokens.",
    "admin": "Administer users; for administrators only.",
}

SCOPE_WORD: Final = f"({'|'.join(SCOPES)})"
SCOPE_WORDS: Final = f"{SCOPE_WORD}( {SCOPE_WORD})*"


class TokenResponse(BaseModel):
    """RFC 6749 §5.1."""

    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int = Field(description="Seconds until the access token expires.")
    scope: str = Field(description="The scopes of the access token, separated by spaces.")


class SessionRead(BaseModel):
    id: str = Field(json_schema_extra={"format": "uuid"})
    created_at: datetime
    last_used_at: datetime = Field(description="The login, or the latest refresh.")
    expires_at: datetime
    user_agent: str
    ip: str
    current: bool = Field(description="Whether this request's token belongs to the session.")
    ended_at: datetime | None = Field(None, description="Only for sessions that are over.")
    end_reason: str | None = Field(None, description="Only for sessions that are over: `revoked`, `expired`, …")


class SessionQuery(PageQuery):
    ended: Flag = Field(False, description="List the sessions that ended within 30 days, in place of the live ones.")


class SessionPage(PageOf[SessionRead]):
    pass


class TokenCreate(Schema):
    """A personal token to be made."""

    name: VisibleText = Field(max_length=100, examples=["Backup script"])
    scope: str = Field(
        "tasks:read tasks:write",
        description="Scopes with single spaces between them. Your own token must have them.",
        pattern=f"^{SCOPE_WORDS}$",
    )
    expires_in: WholeNumber = Field(90 * DAY, ge=1, le=366 * DAY, description="Seconds until it expires.")


class PersonalTokenRead(BaseModel):
    id: str = Field(json_schema_extra={"format": "uuid"})
    name: str
    scope: str
    created_at: datetime
    last_used_at: datetime | None = Field(description="The day of the latest use.")
    expires_at: datetime


class PersonalTokenCreated(PersonalTokenRead):
    token: str = Field(description="Shown only here. The service keeps no copy.")


class PersonalTokenPage(PageOf[PersonalTokenRead]):
    pass


class EventRead(BaseModel):
    id: str = Field(json_schema_extra={"format": "uuid"})
    event: str = Field(examples=["login_succeeded"])
    at: datetime
    session_id: str | None = Field(description="The session or personal token that it concerns.")
    reason: str | None = Field(description="Why a login failed, a session ended, or what was changed.")
    ip: str | None
    user_agent: str | None


class EventPage(PageOf[EventRead]):
    pass


class Revocation(BaseModel):
    """An empty object, for clients that parse each answer. RFC 7009 §2.2 defines no members."""


class Introspection(BaseModel):
    """RFC 7662 §2.2. If the token is not active, or the caller may not ask about it, there is only `active`."""

    active: bool
    scope: str | None = None
    username: str | None = None
    token_type: Literal["bearer"] | None = None
    sub: str | None = None
    iss: str | None = None
    aud: str | None = None
    jti: str | None = None
    iat: int | None = None
    exp: int | None = None


class Metadata(BaseModel):
    """RFC 8414 §2."""

    issuer: str
    token_endpoint: str
    revocation_endpoint: str
    introspection_endpoint: str
    jwks_uri: str | None = Field(None, description="Present if a key pair signs the access tokens.")
    service_documentation: str
    scopes_supported: list[str]
    response_types_supported: list[str]
    grant_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    revocation_endpoint_auth_methods_supported: list[str]
    introspection_endpoint_auth_methods_supported: list[str]


class KeySet(BaseModel):
    """RFC 7517 §5."""

    keys: list[dict[str, str]]
