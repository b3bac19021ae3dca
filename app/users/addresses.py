"""Verified e-mail addresses: a token that was mailed to an address comes back from it, within a day."""

import hashlib
from datetime import datetime

from sqlalchemy import Connection, RowMapping, bindparam, update
from sqlalchemy.exc import IntegrityError

from app.auth.account_events import record
from app.auth.claims import VerificationClaims
from app.auth.models import User
from app.auth.networks import LoginOrigin
from app.auth.tokens import BadToken, Tokens
from app.db.constraints import violated_constraint
from app.users.errors import EmailTaken, InvalidVerificationToken
from app.users.service import LOCK_USER

TTL = 86_400  # seconds

VERIFY_ADDRESS = (
    update(User).where(User.id == bindparam("id_")).values(email_verified=True, updated_at=bindparam("now"))
)


def issue_verification(tokens: Tokens, profile: RowMapping, now: datetime) -> str:
    """Make a token that verifies the address of a profile, as long as the account keeps it."""
    digest = _digest(profile["email"])
    return tokens.sign(tokens.new_claims(VerificationClaims, profile["id"], now, TTL, adr=digest))


def read_verification_token(tokens: Tokens, token: str, now: datetime) -> VerificationClaims:
    """Raises InvalidVerificationToken."""
    try:
        return tokens.verify(VerificationClaims, token, now)
    except BadToken as error:
        raise InvalidVerificationToken from error


def verify_address(connection: Connection, claims: VerificationClaims, origin: LoginOrigin, now: datetime) -> bool:
    """Mark the address of a token as verified. Return whether it was not before.

    Raises:
        InvalidVerificationToken: the account has another address now, or is disabled or gone.
        EmailTaken: another account has verified the address.
    """
    user = connection.execute(LOCK_USER, {"user_id": claims.sub}).one_or_none()
    if user is None or not user.is_active or _digest(user.email or "") != claims.adr:
        raise InvalidVerificationToken
    if user.email_verified:
        return False
    try:
        connection.execute(VERIFY_ADDRESS, {"id_": claims.sub, "now": now})
    except IntegrityError as error:
        if violated_constraint(error) == "uq_users_verified_email":
            raise EmailTaken from error
        raise
    record(connection, claims.sub, "email_verified", now, origin)
    return True


def _digest(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()
