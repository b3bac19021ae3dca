"""Account recovery without a mail server: a token sets a new password, once, within an hour."""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection

from app.auth.claims import ResetClaims
from app.auth.errors import InvalidResetToken
from app.auth.tokens import BadToken, Tokens
from app.db.database import AnyRow
from app.users.errors import ResetNotSent, UserDisabled
from app.users.service import get_account, store_reset_id

logger = logging.getLogger(__name__)

TTL = timedelta(hours=1)
HOOK_SECONDS = 15


class Reset(NamedTuple):
    """A reset token and its user. `RESET_HOOK` is called with it."""

    username: str
    email: str | None
    reset_token: str


ResetHook = Callable[[Reset], Awaitable[None]]


def issue_reset(connection: Connection, tokens: Tokens, user_id: str, now: datetime) -> Reset:
    """Make a token for the account. A newer token voids it, and so does any change of the account.

    Raises:
        UserNotFound, UserDisabled
    """
    account = get_account(connection, user_id)
    if not account.is_active:
        raise UserDisabled
    issued_at = int(now.timestamp())
    claims = ResetClaims(
        iss=tokens.issuer,
        aud=tokens.issuer,
        sub=account.id,
        jti=secrets.token_urlsafe(16),
        iat=issued_at,
        exp=issued_at + int(TTL.total_seconds()),
        pwd=_fingerprint(account),
    )
    store_reset_id(connection, user_id, claims.jti)
    return Reset(account.username, account.email, tokens.sign(claims))


def read_reset_token(tokens: Tokens, token: str, now: datetime) -> ResetClaims:
    """Raises InvalidResetToken."""
    try:
        return tokens.verify(ResetClaims, token, now)
    except BadToken as error:
        raise InvalidResetToken from error


def require_unchanged(account: AnyRow, claims: ResetClaims) -> None:
    """Check that the account of a token has not changed since the token was issued.

    Raises:
        InvalidResetToken: the token was used, or there is a newer one. Or the account was changed or disabled.
    """
    is_latest = account.reset_id in {None, claims.jti}  # None: an older version issued it, and did not store the id
    if not account.is_active or claims.pwd != _fingerprint(account) or not is_latest:
        raise InvalidResetToken


async def send(hook: ResetHook, reset: Reset) -> None:
    """Raises ResetNotSent: the hook failed or took too long."""
    try:
        async with asyncio.timeout(HOOK_SECONDS):
            await hook(reset)
    except Exception as error:
        logger.warning("the reset hook failed: %s", type(error).__name__)  # its message may contain the token
        raise ResetNotSent from error


def _fingerprint(account: AnyRow) -> str:
    """Digest the hash and the latest change. The hash has a salt of 128 bits, so the digest reveals no password."""
    return hashlib.sha256(f"{account.password_hash} {account.updated_at}".encode()).hexdigest()
