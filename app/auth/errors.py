"""Why someone is not let in.

AppError
├── OAuthError                the form endpoints' 400 (RFC 6749 §5.2)
│   ├── InvalidRequest
│   │   └── FieldRequired
│   ├── UnsupportedGrantType
│   ├── InvalidScope
│   ├── InvalidGrant          a refresh token that is not good, with the reason
│   │   └── TokenReused
│   └── InvalidCredentials    401: unknown, wrong and disabled alike
├── RepeatedCredentials       400, `invalid_request` (RFC 6750 §3.1)
├── InvalidToken              401, `invalid_token` (RFC 6750 §3.1), with the reason
├── InsufficientScope         403, `insufficient_scope`
├── InvalidResetToken         400
├── WeakPassword              422
├── WrongPassword             403
├── SessionNotFound           404
├── TooManyAttempts           429
└── HashingQueueFull          503
"""

from collections.abc import Mapping
from datetime import datetime
from math import ceil

from app.errors import AppError, Forbidden, InvalidInput, NotFound, TooManyRequests, Unavailable

REALM = "bearer-tasks"

SESSION_EXPIRED = "The session has expired"
END_REASONS = {
    "revoked": "The session was signed out",
    "password_changed": "The password was changed",
    "disabled": "The user was disabled",
    "reuse": "The session was ended because a replaced refresh token was used again",
    "too_many": "The session was ended because the account had too many: it was used longest ago",
}


class OAuthError(AppError):
    status_code = 400
    error: str
    detail = "Another OAuth error"

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self.detail


class InvalidRequest(OAuthError):
    error = "invalid_request"
    detail = "A field is missing, sent twice or not text"


class FieldRequired(InvalidRequest):
    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: Field required")


class UnsupportedGrantType(OAuthError):
    error = "unsupported_grant_type"
    detail = "grant_type must be password or refresh_token"


class InvalidScope(OAuthError):
    error = "invalid_scope"
    detail = "The scope does not exist or may not be had"


class InvalidGrant(OAuthError):
    error = "invalid_grant"
    detail = "The refresh token is not valid"


class TokenReused(InvalidGrant):
    """It was replaced, and somebody has a copy."""

    detail = END_REASONS["reuse"]


class InvalidCredentials(OAuthError):
    """Unknown user, wrong password or disabled user: nobody outside can tell which."""

    status_code = 401
    error = "invalid_grant"
    detail = "Invalid credentials"
    headers = {"WWW-Authenticate": f'Bearer realm="{REALM}", error="invalid_grant"'}  # noqa: RUF012


class RepeatedCredentials(AppError):
    status_code = 400
    detail = "Several Authorization headers"
    error = "invalid_request"
    headers = {"WWW-Authenticate": f'Bearer realm="{REALM}", error="invalid_request"'}  # noqa: RUF012


class InvalidToken(AppError):
    status_code = 401
    error = "invalid_token"
    detail = "The access token is not valid"

    def __init__(self, detail: str = detail) -> None:
        self.detail = detail
        self.headers = {
            "WWW-Authenticate": f'Bearer realm="{REALM}", error="{self.error}", error_description="{detail}"'
        }


class InsufficientScope(Forbidden):
    error = "insufficient_scope"
    detail = "The access token lacks a scope"

    def __init__(self, needed: str) -> None:
        self.detail = f"The access token lacks the scope {needed}"
        self.headers = {"WWW-Authenticate": f'Bearer realm="{REALM}", error="{self.error}", scope="{needed}"'}


class InvalidResetToken(AppError):
    status_code = 400
    error = "invalid_token"
    detail = "The reset token is not valid, or no longer"


class WeakPassword(InvalidInput):
    def __init__(self, message: str) -> None:
        super().__init__(("body",), message)


class WrongPassword(Forbidden):
    detail = "The current password is wrong"


class SessionNotFound(NotFound):
    detail = "Session not found"


class TooManyAttempts(TooManyRequests):
    detail = "Too many attempts; try again later"

    def __init__(self, over: Mapping[str, datetime], now: datetime) -> None:
        """`over`: the keys of the limits that are, and when each of them begins anew."""
        self.over = over
        super().__init__(max(ceil((max(over.values()) - now).total_seconds()), 1))


class HashingQueueFull(Unavailable):
    detail = "Too many passwords are being hashed"
