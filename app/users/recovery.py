"""Account recovery without a mail server: a reset token sets a new password, once, within an hour."""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from app.auth.claims import ResetClaims
from app.auth.counters import Keys
from app.auth.errors import InvalidResetToken
from app.auth.models import User
from app.auth.tokens import BadToken, Tokens
from app.db.database import AnyRow
from app.users.errors import ResetNotSent, UserDisabled, UserNotFound
from app.users.service import set_password

logger = logging.getLogger(__name__)

TTL = timedelta(hours=1)
HOOK_SECONDS = 15


class Reset(NamedTuple):
    """A reset token and its user. `RESET_HOOK` is called with it."""

    username: str
    email: str | None
    reset_token: str


SELECT_ACCOUNT = select(
    *(User.id, User.username, User.email, User.password_hash, User.is_active, User.updated_at, User.reset_id)
).where(User.id == bindparam("user_id"), User.deleted_at.is_(None))

ResetHook = Callable[[Reset], Awaitable[None]]


def issue_reset(connection: Connection, tokens: Tokens, user_id: str, now: datetime) -> Reset:
    """Make a token for the account. A newer token voids it, and so does any change of the account.

    Raises:
        UserNotFound, UserDisabled
    """
    account = read_account(connection, user_id)
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
        exp=issued_at + int(TTL.total_seconds()),
        pwd=_fingerprint(account),
    )
    connection.execute(update(User).where(User.id == user_id).values(reset_id=claims.jti))
    return Reset(account.username, account.email, tokens.sign(claims))


def read_account(connection: Connection, user_id: str) -> AnyRow | None:
    """Read the fields of an account that a reset token depends on."""
    return connection.execute(SELECT_ACCOUNT, {"user_id": user_id}).one_or_none()


def read_reset_token(tokens: Tokens, token: str, now: datetime) -> ResetClaims:
    """Raises InvalidResetToken."""
    try:
        return tokens.verify(ResetClaims, token, now)
    except BadToken as error:
        raise InvalidResetToken from error


def require_unchanged(connection: Connection, claims: ResetClaims) -> AnyRow:
    """Read the account of a token, if nothing has changed since the token was issued.

    Raises:
        InvalidResetToken: the token was used, or there is a newer one. Or the account was changed, disabled or deleted.
    """
    account = read_account(connection, claims.sub)
    if account is None or not account.is_active or claims.pwd != _fingerprint(account):
        raise InvalidResetToken
    if account.reset_id not in {None, claims.jti}:  # None: an older version issued the token, and stored no id
        raise InvalidResetToken
    return account


def replace_password(connection: Connection, account: AnyRow, new_hash: str, counters: Keys, now: datetime) -> None:
    """Set the password of an account that has not changed since it was read, as `set_password` does.

    Raises:
        InvalidResetToken: the account was changed, disabled or deleted, or has a newer reset token.
    """
    is_unchanged = (
        User.password_hash == account.password_hash,
        User.updated_at == account.updated_at,
        User.reset_id.is_not_distinct_from(account.reset_id),
        User.is_active.is_(True),
    )
    try:
        set_password(connection, account.id, new_hash, counters, now, *is_unchanged)
    except UserNotFound as error:
        raise InvalidResetToken from error


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
