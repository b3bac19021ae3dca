"""Where the keys come from: the secret, kept in a file when nobody gives one, and the key pairs of a PEM file."""

import os
import re
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from app.auth.tokens import PEMKey, Tokens
from app.config import Settings, check_secret, refuse_start

PEM_BLOCK = re.compile(r"(-----BEGIN ([A-Z ]+)-----.*?-----END \2-----)", re.DOTALL)
MIN_RSA_BITS = 2048


def load_tokens(settings: Settings) -> Tokens:
    """Make what signs and verifies, with the keys that the settings name.

    Raises:
        ValueError, OSError: a file of keys is damaged, open to everybody, or cannot be read or made.
    """
    return Tokens(settings.public_url, signing_secrets(settings), _key_pairs(settings.jwt_private_key_file))


def check_keys(settings: Settings) -> None:
    """End the process where the keys are of no use, with exit code 2 and one line that shows nothing of them."""
    try:
        load_tokens(settings)
    except (ValueError, OSError) as error:
        refuse_start(str(error))


def signing_secrets(settings: Settings) -> list[str]:
    """The secret that signs, then those that only verify."""
    given = [secret.get_secret_value() for secret in (settings.secret_key, settings.secret_key_previous) if secret]
    return given if settings.secret_key else [_kept_secret(secret_file(settings)), *given]


def secret_file(settings: Settings) -> Path:
    """Beside the SQLite file."""
    return Path(f"{settings.database.database}.secret")


def _kept_secret(path: Path) -> str:
    """Read the secret, made by whoever comes first: a hard link appears whole or not at all, and only once."""
    if not path.exists():
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(descriptor)
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    _refuse_open(path)
    try:
        secret = path.read_text()
        check_secret(secret)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it {error}") from error
    return secret


def _key_pairs(path: Path | None) -> list[PEMKey]:
    """The key pair that signs, then those that only verify, of which the public half is enough."""
    if path is None:
        return []
    _refuse_open(path)
    try:
        pairs = [_key_pair(*block) for block in _pem_blocks(path.read_text())]
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # their words could show what the file holds
        raise ValueError(f"{path} must hold PEM keys for ES256 (P-256) or RS256 (2048 bits or more)") from error
    if not pairs or not pairs[0].is_private:
        raise ValueError(f"{path} must begin with a private key: it signs")
    return pairs


def _refuse_open(path: Path) -> None:
    if os.name == "posix" and path.stat().st_mode & stat.S_IRWXO:
        raise ValueError(f"{path} is open to every user of this host: chmod o= {path}")


def _pem_blocks(text: str) -> list[tuple[str, str]]:
    """Each block, and its label."""
    blocks: list[tuple[str, str]] = PEM_BLOCK.findall(text)
    if text.count("-----BEGIN ") != len(blocks):
        raise ValueError("a block without its end")
    return [(pem, label) for pem, label in blocks if label != "EC PARAMETERS"]  # which openssl may write before a key


def _key_pair(pem: str, label: str) -> PEMKey:
    is_private = "PRIVATE" in label
    key = load_pem_private_key(pem.encode(), None).public_key() if is_private else load_pem_public_key(pem.encode())
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        algorithm = "ES256"
    elif isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        algorithm = "RS256"
    else:
        raise ValueError("another kind of key")
    return PEMKey(algorithm, pem, is_private)
