"""The keys of the settings: the secret, or the file of a generated one, and the key pairs of a PEM file.

A file that is damaged, open to everybody, or cannot be read or made raises BadSettings.
"""

import os
import re
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic import SecretStr

from app.auth.tokens import PEMKey, Tokens, key_id
from app.config import Settings
from app.config.values import check_secret, strip_secret
from app.errors import BadSettings

PEM_BLOCK = re.compile(r"(-----BEGIN ([A-Z ]+)-----.*?-----END \2-----)", re.DOTALL)
MIN_RSA_BITS = 2048


def load_tokens(settings: Settings) -> Tokens:
    return Tokens(settings.public_url, signing_secrets(settings), key_pairs(settings.jwt_private_key_file))


def add_key_pair(path: Path) -> str:
    """Add a key pair for ES256 to the end of a file. Return its `kid`. It signs if it is the only one."""
    private = generate_private_key(SECP256R1())
    kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = private.private_bytes(*kind).decode()
    key = PEMKey("ES256", pem, is_private=True)
    _write_key_pairs(path, [*(key_pairs(path) if path.exists() else []), key])
    return key_id(key)


def use_key_pair(path: Path, kid: str) -> bool:
    """Move a key pair to the beginning of the file, so that it signs. Return whether the file has its private half."""
    pairs = key_pairs(path)
    chosen = [key for key in pairs if key.is_private and key_id(key) == kid]
    if chosen:
        _write_key_pairs(path, [*chosen, *(key for key in pairs if key not in chosen)])
    return bool(chosen)


def signing_secrets(settings: Settings) -> list[str]:
    """Return the secret that signs, then those that only verify."""
    given = [secret.get_secret_value() for secret in (settings.secret_key, settings.secret_key_previous) if secret]
    return given if settings.secret_key else [_kept_secret(secret_file(settings)), *given]


def new_secret() -> str:
    return secrets.token_urlsafe(32)


def secret_file(settings: Settings) -> Path:
    """Return the path of the generated secret, beside the SQLite file."""
    return Path(f"{settings.database.database}.secret")


def _kept_secret(path: Path) -> str:
    """Read the generated secret. The first process makes it, by a hard link: that appears whole, and only once."""
    try:
        if not path.exists():
            draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
            _write_secretly(draft, new_secret())
            try:
                path.hardlink_to(draft)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        _refuse_open(path, str(path))
        secret = strip_secret(path.read_text("utf-8"))
    except OSError as error:
        raise BadSettings(f"{path} cannot be read or made: {error.strerror}. Mend that, or set SECRET_KEY") from error
    except UnicodeDecodeError as error:  # the text of the error shows a part of the file
        raise BadSettings(f"{path} is damaged: it must be UTF-8 text") from error
    try:
        check_secret(SecretStr(secret))
    except ValueError as error:
        raise BadSettings(f"{path} is damaged: it {error}") from error
    return secret


def key_pairs(path: Path | None) -> list[PEMKey]:
    """Return the key pair that signs, then those that only verify. Of these the public half is enough."""
    if path is None:
        return []
    name = f"JWT_PRIVATE_KEY_FILE: {path}"
    try:
        _refuse_open(path, name)
        text = path.read_bytes()
    except OSError as error:
        raise BadSettings(f"{name} cannot be read: {error.strerror}") from error
    try:
        pairs = [_key_pair(*block) for block in _pem_blocks(text.decode())]
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # the texts of these errors may show the keys
        raise BadSettings(f"{name} must hold PEM keys for ES256 (P-256) or RS256 (2048 bits or more)") from error
    if not pairs or not pairs[0].is_private:
        raise BadSettings(f"{name} must begin with a private key: it signs")
    return pairs


def _write_key_pairs(path: Path, keys: Sequence[PEMKey]) -> None:
    """Write the whole file or nothing. It keeps its owner and mode; only the owner may read a new file."""
    path = path.resolve()
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        _write_secretly(draft, "\n".join(key.pem for key in keys))
        if path.exists():
            there = path.stat()
            os.chown(draft, there.st_uid, there.st_gid)
            draft.chmod(stat.S_IMODE(there.st_mode))
        draft.replace(path)
    except OSError as error:
        raise BadSettings(f"JWT_PRIVATE_KEY_FILE: {path} cannot be written: {error.strerror}") from error


def _write_secretly(path: Path, text: str) -> None:
    """Write a new file that only its owner may read, and sync it to the disk."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _refuse_open(path: Path, name: str) -> None:
    if os.name == "posix" and path.stat().st_mode & stat.S_IRWXO:
        raise BadSettings(f"{name} is open to every user of this host: chmod o= {path}")


def _pem_blocks(text: str) -> list[tuple[str, str]]:
    """Return each block and its label."""
    blocks: list[tuple[str, str]] = PEM_BLOCK.findall(text)
    if text.count("-----BEGIN ") != len(blocks):
        raise ValueError("a block without its end")
    return [(pem, label) for pem, label in blocks if label != "EC PARAMETERS"]  # openssl may write it before a key


def _key_pair(pem: str, label: str) -> PEMKey:
    is_private, text = "PRIVATE" in label, pem.encode()
    load_private, load_public = serialization.load_pem_private_key, serialization.load_pem_public_key
    key = load_private(text, None).public_key() if is_private else load_public(text)
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        algorithm = "ES256"
    elif isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        algorithm = "RS256"
    else:
        raise ValueError("another kind of key")
    return PEMKey(algorithm, pem, is_private)
