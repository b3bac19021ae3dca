"""Account recovery: a reset token sets a new password, once, within an hour."""

import hashlib
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from app.auth.account_events import record
from app.auth.claims import ResetClaims
from app.auth.errors import InvalidResetToken
from app.auth.liveness import Moment
from app.auth.models import User
from app.auth.networks import LoginOrigin
from app.auth.tokens import BadToken, Tokens
from app.db.database import AnyRow
from app.users.errors import NoVerifiedAddress, UserDisabled, UserNotFound
from app.users.service import set_password

TTL = 3600  # seconds

COLUMNS = User.id, User.username, User.email, User.email_verified, User.password_hash
SELECT_ACCOUNT = select(*COLUMNS, User.is_active, User.updated_at, User.reset_id).where(
    User.id == bindparam("user_id"), User.deleted_at.is_(None)
)
LOCK_ACCOUNT = SELECT_ACCOUNT.with_for_update(key_share=True)


class Reset(NamedTuple):
    """A reset token, and the verified address of its user if there is one."""

    username: str
    address: str | None
    token: str


def issue_reset(
    connection: Connection, tokens: Tokens, user_id: str, now: datetime, origin: LoginOrigin | None = None
) -> Reset:
    """Make a token for the account. A newer token voids it, and so does any change of the account.

    `origin` is the client if it was no administrator who asked. Then the token must go by mail.

    Raises UserNotFound, UserDisabled, NoVerifiedAddress.
    """
    account = connection.execute(LOCK_ACCOUNT, {"user_id": user_id}).one_or_none()
    if account is None:
        raise UserNotFound
    if not account.is_active:
        raise UserDisabled
    if origin and not account.email_verified:
        raise NoVerifiedAddress
    record(connection, user_id, "password_reset_requested" if origin else "reset_token_issued", now, origin)
    claims = tokens.new_claims(ResetClaims, account.id, now, TTL, pwd=_fingerprint(account))
    connection.execute(update(User).where(User.id == user_id).values(reset_id=claims.jti))
    return Reset(account.username, account.email if account.email_verified else None, tokens.sign(claims))


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


def reset_password(
    connection: Connection, claims: ResetClaims, new_hash: str, counters: str, moment: Moment, origin: LoginOrigin
) -> None:
    """Set the password as `set_password` does. Raises InvalidResetToken."""
    require_unchanged(connection, claims)  # again: to hash the password took a while
    set_password(connection, claims.sub, new_hash, counters, moment, "password_reset", origin)


def _fingerprint(account: AnyRow) -> str:
    """Digest the hash and the latest change. The hash has a salt of 128 bits, so the digest reveals no password."""
    return hashlib.sha256(f"{account.password_hash} {account.updated_at}".encode()).hexdigest()
