"""Account recovery without a mail server: a reset token sets a new password, once, within an hour."""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from app.auth.claims import ResetClaims
from app.auth.errors import InvalidResetToken
from app.auth.models import User
from app.auth.tokens import BadToken, Tokens
from app.db.database import AnyRow
from app.users.errors import ResetNotSent, UserDisabled, UserNotFound
from app.users.service import set_password

logger = logging.getLogger(__name__)

TTL = 3600  # seconds
HOOK_SECONDS = 15

COLUMNS = User.id, User.username, User.email, User.password_hash, User.is_active, User.updated_at, User.reset_id
SELECT_ACCOUNT = select(*COLUMNS).where(User.id == bindparam("user_id"), User.deleted_at.is_(None))
LOCK_ACCOUNT = SELECT_ACCOUNT.with_for_update(key_share=True)


class Reset(NamedTuple):
    """A reset token and its user. `RESET_HOOK` is called with it."""

    username: str
    email: str | None
    reset_token: str


def issue_reset(connection: Connection, tokens: Tokens, user_id: str, now: datetime) -> Reset:
    """Make a token for the account. Raises UserNotFound, UserDisabled.

    A newer token voids it, and so does any change of the account.
    """
    account = connection.execute(LOCK_ACCOUNT, {"user_id": user_id}).one_or_none()
    if account is None:
        raise UserNotFound
    if not account.is_active:
        raise UserDisabled
    issued_at = int(now.timestamp())
    claims = ResetClaims(
        iss=tokens.issuer,
        aud=tokens.issuer,
        sub=account.id,
        jti=secrets.token_urlsafe(16),
        iat=issued_at,
        exp=issued_at + TTL,
        pwd=_fingerprint(account),
    )
    connection.execute(update(User).where(User.id == user_id).values(reset_id=claims.jti))
    return Reset(account.username, account.email, tokens.sign(claims))


def read_reset_token(tokens: Tokens, token: str, now: datetime) -> ResetClaims:
    """Raises InvalidResetToken."""
    try:
        return tokens.verify(ResetClaims, token, now)
    except BadToken as error:
        raise InvalidResetToken from error


def require_unchanged(connection: Connection, claims: ResetClaims) -> AnyRow:
    """Read and lock the account of a token, if nothing has changed since the token was issued.

    Raises InvalidResetToken: the token was used, there is a newer one, or the account was changed or deleted.
    """
    account = connection.execute(LOCK_ACCOUNT, {"user_id": claims.sub}).one_or_none()
    if account is None or not account.is_active or claims.pwd != _fingerprint(account):
        raise InvalidResetToken
    if account.reset_id not in {None, claims.jti}:  # None: an older version issued the token, and stored no id
        raise InvalidResetToken
    return account


def reset_password(connection: Connection, claims: ResetClaims, new_hash: str, counters: str, now: datetime) -> None:
    """Set the password as `set_password` does. Raises InvalidResetToken."""
    require_unchanged(connection, claims)  # again: to hash the password took a while
    set_password(connection, claims.sub, new_hash, counters, now)


async def send(hook: Callable[[Reset], Awaitable[None]], reset: Reset) -> None:
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
