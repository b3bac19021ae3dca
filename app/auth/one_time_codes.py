"""One-time codes (RFC 6238) and recovery codes: making and checking. The service imports pyotp nowhere else."""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pyotp import TOTP, random_base32

from app import NAME

TOLERANCE: Final = 1  # steps
RECOVERY_CODES: Final = 10


class Unreadable(Exception):
    """No secret of the settings opens the sealed text: SECRET_KEY has changed twice."""


class OneTimeCodes:
    """Makes and checks codes. The secret of a factor is sealed by keys that are derived from SECRET_KEY."""

    def __init__(self, secret_keys: Sequence[str]) -> None:
        self._seal = MultiFernet([Fernet(_derive_key(secret)) for secret in secret_keys])

    def new_secret(self) -> str:
        """Make a secret of 160 bits, in base 32 (RFC 4226 §4)."""
        return random_base32()

    def uri(self, secret: str, username: str) -> str:
        """Return the `otpauth://` URI that authenticator apps read."""
        return TOTP(secret).provisioning_uri(name=username, issuer_name=NAME)

    def seal(self, secret: str) -> str:
        return self._seal.encrypt(secret.encode()).decode()

    def seal_again(self, sealed: str) -> str:
        """Seal a readable secret with the first key, so that the others can go."""
        return self._seal.rotate(sealed).decode()

    def matching_step(self, sealed: str, code: str, now: datetime) -> int | None:
        """Return the time step whose code this is: the present one, or one beside it (RFC 6238 §5.2). Else None.

        Raises Unreadable.
        """
        try:
            totp = TOTP(self._seal.decrypt(sealed).decode())
        except InvalidToken as error:
            raise Unreadable from error
        typed = _normalize(code).encode()
        present = int(now.timestamp()) // totp.interval
        near = range(present - TOLERANCE, present + TOLERANCE + 1)
        matching = [step for step in near if hmac.compare_digest(totp.generate_otp(step).encode(), typed)]
        return max(matching, default=None)


def new_recovery_codes() -> list[str]:
    """Make ten codes of 120 random bits each, such as `k3qd-7xyo-22ab-mmzi-p5tw-e4ra`. So many need no slow hash."""
    texts = [base64.b32encode(secrets.token_bytes(15)).decode().lower() for _ in range(RECOVERY_CODES)]
    return ["-".join(text[at : at + 4] for at in range(0, len(text), 4)) for text in texts]


def hash_recovery_code(code: str) -> str:
    return hashlib.sha256(_normalize(code).encode()).hexdigest()


def is_one_time_code(code: str) -> bool:
    """Whether a code has six digits. Any other one may be a recovery code."""
    return re.fullmatch("[0-9]{6}", _normalize(code)) is not None


def _normalize(code: str) -> str:
    """Letter case, hyphens and spaces in what somebody types do not matter."""
    return "".join(code.lower().replace("-", "").split())


def _derive_key(secret: str) -> bytes:
    """Derive a key for sealing alone (RFC 5869)."""
    hkdf = HKDF(SHA256(), length=32, salt=None, info=b"second factor")
    return base64.urlsafe_b64encode(hkdf.derive(secret.encode()))
