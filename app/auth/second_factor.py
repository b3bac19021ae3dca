"""The second factor of an account (RFC 6238): to set up, activate, use and remove it. Callers have locked the user."""

import logging
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from app.auth.account_events import record
from app.auth.callers import CurrentUser
from app.auth.errors import InvalidOneTimeCode, MFARequired, TOTPActive, TOTPNotSetUp, WrongCode
from app.auth.models import RecoveryCode, User
from app.auth.networks import LoginOrigin
from app.auth.one_time_codes import OneTimeCodes, Unreadable, hash_recovery_code, is_one_time_code, new_recovery_codes
from app.db.database import AnyRow

logger = logging.getLogger(__name__)

FACTOR_COLUMNS = User.id, User.totp_secret, User.totp_step
IS_USER = User.id == bindparam("user_id")
IS_OF_USER = RecoveryCode.user_id == bindparam("user_id")

SELECT_FACTOR = select(*FACTOR_COLUMNS).where(IS_USER)
UPDATE_INACTIVE = update(User).where(IS_USER, User.totp_step.is_(None))
USE_STEP = update(User).where(IS_USER, User.totp_step < bindparam("step"))
USE_RECOVERY_CODE = delete(RecoveryCode).where(IS_OF_USER, RecoveryCode.code_hash == bindparam("code_hash"))
REMOVE = update(User).where(IS_USER).values(totp_secret=None, totp_step=None, updated_at=bindparam("now"))
DELETE_RECOVERY_CODES = delete(RecoveryCode).where(IS_OF_USER)


def set_up(connection: Connection, user: CurrentUser, codes: OneTimeCodes) -> dict[str, str]:
    """Make a secret that is not active yet, in place of an earlier one. Raises TOTPActive."""
    secret = codes.new_secret()
    change = UPDATE_INACTIVE.values(totp_secret=codes.seal(secret))
    if not connection.execute(change, {"user_id": user.user_id}).rowcount:
        raise TOTPActive
    return {"secret": secret, "uri": codes.uri(secret, user.username)}


def activate(
    connection: Connection, user: CurrentUser, codes: OneTimeCodes, code: str, now: datetime, origin: LoginOrigin
) -> list[str]:
    """Turn the factor on with its first code. Return the recovery codes. Raises TOTPActive, TOTPNotSetUp, WrongCode."""
    values = {"user_id": user.user_id}
    factor = connection.execute(SELECT_FACTOR, values).one()
    if factor.totp_step is not None:
        raise TOTPActive
    if factor.totp_secret is None:
        raise TOTPNotSetUp
    try:
        step = codes.matching_step(factor.totp_secret, code, now)
    except Unreadable as error:
        raise TOTPNotSetUp from error
    if step is None:
        raise WrongCode
    connection.execute(UPDATE_INACTIVE.values(totp_step=step, updated_at=now), values)
    texts = new_recovery_codes()
    connection.execute(insert(RecoveryCode), [{**values, "code_hash": hash_recovery_code(text)} for text in texts])
    record(connection, user.user_id, "totp_enabled", now, origin, user.session_id)
    return texts


def use_code(connection: Connection, codes: OneTimeCodes, factor: AnyRow, code: str, now: datetime) -> bool:
    """Use up a code, if the account has a second factor. Return whether it was a recovery code.

    Raises:
        MFARequired: there is no code.
        InvalidOneTimeCode: the code is wrong or used, or no secret of the settings opens the factor.
    """
    if factor.totp_step is None:
        return False
    if not code:
        raise MFARequired
    is_recovery = not is_one_time_code(code)
    if is_recovery:
        use = connection.execute(USE_RECOVERY_CODE, {"user_id": factor.id, "code_hash": hash_recovery_code(code)})
        is_right = bool(use.rowcount)
    else:
        is_right = _use_step(connection, codes, factor, code, now)
    if not is_right:
        raise InvalidOneTimeCode
    return is_recovery


def _use_step(connection: Connection, codes: OneTimeCodes, factor: AnyRow, code: str, now: datetime) -> bool:
    """Move the factor on to the time step of a code, and seal its secret with the present key."""
    try:
        step = codes.matching_step(factor.totp_secret, code, now)
    except Unreadable:
        logger.warning(
            "SECRET_KEY has changed: the second factor of user %s cannot be read. Put the former key into "
            "SECRET_KEY_PREVIOUS, or run: python -m app users reset-totp NAME",
            factor.id,
        )
        return False
    if step is None:
        return False
    change = USE_STEP.values(totp_step=step, totp_secret=codes.seal_again(factor.totp_secret))
    return bool(connection.execute(change, {"user_id": factor.id, "step": step}).rowcount)


def remove(
    connection: Connection, user_id: str, now: datetime, origin: LoginOrigin | None = None, *session_ids: str
) -> bool:
    """Forget the secret and the recovery codes. Return whether the factor was active. For the rest see `record`."""
    was_active = connection.execute(SELECT_FACTOR, {"user_id": user_id}).one().totp_step is not None
    connection.execute(REMOVE, {"user_id": user_id, "now": now})
    connection.execute(DELETE_RECOVERY_CODES, {"user_id": user_id})
    if was_active:
        record(connection, user_id, "totp_disabled", now, origin, *session_ids)
    return was_active
