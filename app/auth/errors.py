"""The refusals of logins, tokens and sessions.

`OAuthError` refuses a form (RFC 6749 §5.2). The errors with a challenge refuse a bearer token (RFC 6750 §3.1, for
`StaleLogin` RFC 9470 §3). Without a token, the challenge has no `error`.
"""

from collections.abc import Mapping
from datetime import datetime
from math import ceil

from app import SLUG
from app.errors import AppError, Conflict, Forbidden, InvalidInput, NotFound, TooManyRequests, Unavailable

SESSION_EXPIRED = "The session has expired"
SESSION_OVER = "The session is over"
END_REASONS = {  # a newer version may know more: then the text is SESSION_OVER
    "expired": SESSION_EXPIRED,
    "revoked": "The session was signed out",
    "password_changed": "The password was changed",
    "disabled": "The user was disabled",
    "demoted": "The user is no longer an administrator",
    "reuse": "The session was ended because a replaced refresh token was used again",
    "too_many": "The session was ended because the account had too many: it was used longest ago",
}


def _challenge(error: str | None = None, **more: str) -> dict[str, str]:
    """The header that says why a bearer token is refused (RFC 6750 §3)."""
    members = {"realm": SLUG, **({"error": error} if error else {}), **more}
    return {"WWW-Authenticate": "Bearer " + ", ".join(f'{name}="{value}"' for name, value in members.items())}


class OAuthError(AppError):
    status_code = 400
    error: str
    detail = "Another OAuth error"
    code = "oauth_error"

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self.detail


class InvalidRequest(OAuthError):
    code = error = "invalid_request"
    detail = "A field is missing, sent twice or not text"


class FieldRequired(InvalidRequest):
    code = "field_required"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: Field required")


class UnsupportedGrantType(OAuthError):
    code = error = "unsupported_grant_type"
    detail = "grant_type must be password or refresh_token"


class InvalidScope(OAuthError):
    code = error = "invalid_scope"
    detail = "Unknown scope, or not allowed for this user"


class InvalidGrant(OAuthError):
    code = error = "invalid_grant"
    detail = "The refresh token is not valid"


class TokenReused(InvalidGrant):
    """A replaced refresh token came again, so somebody has a copy."""

    detail = END_REASONS["reuse"]
    code = "token_reused"


class InvalidCredentials(OAuthError):
    """Unknown user, wrong password or disabled user: nobody outside can tell which."""

    status_code = 401
    error = "invalid_grant"
    detail = "Invalid credentials"
    code = "invalid_credentials"
    headers = _challenge("invalid_grant")


class MFARequired(OAuthError):
    """The password is right, and the account has a second factor."""

    code = error = "mfa_required"
    detail = "A one-time code is required"


class InvalidOneTimeCode(InvalidCredentials):
    """The password is right. The code is wrong, or was used before."""

    detail = "Invalid one-time code"
    code = "invalid_one_time_code"


class RepeatedCredentials(AppError):
    status_code = 400
    detail = "Several Authorization headers"
    error = "invalid_request"
    code = "repeated_credentials"
    headers = _challenge("invalid_request")


class NotAuthenticated(AppError):
    status_code = 401
    detail = "Not authenticated"
    code = "not_authenticated"
    headers = _challenge()


class InvalidToken(AppError):
    status_code = 401
    code = error = "invalid_token"
    detail = "The access token is not valid"

    def __init__(self, detail: str = detail) -> None:
        self.detail = detail
        self.headers = _challenge(self.error, error_description=detail)


class StaleLogin(AppError):
    status_code = 401
    code = error = "insufficient_user_authentication"
    detail = "The login is too old for this: log in again"

    def __init__(self, max_age: int) -> None:
        self.headers = _challenge(self.error, max_age=str(max_age), error_description=self.detail)


class InsufficientScope(Forbidden):
    code = error = "insufficient_scope"
    detail = "The access token lacks a scope"

    def __init__(self, needed: str) -> None:
        self.detail = f"The access token lacks the scope {needed}"
        self.headers = _challenge(self.error, scope=needed)


class InvalidResetToken(AppError):
    status_code = 400
    error = "invalid_token"
    detail = "The reset token is invalid or has expired"
    code = "invalid_reset_token"


class WeakPassword(InvalidInput):
    code = "weak_password"


class WrongPassword(Forbidden):
    detail = "The current password is wrong"
    code = "wrong_password"


class WrongCode(Forbidden):
    detail = "The one-time code is wrong"
    code = "wrong_code"


class TOTPActive(Conflict):
    detail = "The second factor is active: remove it first"
    code = "totp_active"


class TOTPNotSetUp(Conflict):
    detail = "No second factor is set up: ask for a secret first"
    code = "totp_not_set_up"


class SessionNotFound(NotFound):
    detail = "Session not found"
    code = "session_not_found"


class TokenNotFound(NotFound):
    detail = "Personal token not found"
    code = "token_not_found"


class TooManyTokens(Conflict):
    detail = "The account has 100 personal tokens: delete one first"
    code = "too_many_tokens"


class TooManyAttempts(TooManyRequests):
    detail = "Too many attempts; try again later"
    code = "too_many_attempts"

    def __init__(self, over: Mapping[str, datetime], now: datetime) -> None:
        """`over`: the keys of the reached limits, and the time when each counter starts again."""
        self.over = over
        super().__init__(max(ceil((max(over.values()) - now).total_seconds()), 1))


class HashingQueueFull(Unavailable):
    detail = "Too many passwords are being hashed"
    code = "hashing_queue_full"


class ClockBehind(Unavailable):
    code = "clock_behind"
    detail = "The clock of this host is behind: by it, the refresh token is not issued yet"
    headers = {"Retry-After": "30"}  # noqa: RUF012
