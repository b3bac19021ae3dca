"""The form of personal tokens.

A token is `bt_`, 40 random characters and a checksum of six, so that scanners for leaked secrets find it, and a typing
error costs no look at the database. The database has the SHA-256 of the token only: 238 random bits need no slow hash.
"""

import hashlib
import secrets
import zlib
from typing import Final

PREFIX: Final = "bt_"
ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RANDOM: Final = 40
CHECKSUM: Final = 6


def new_token() -> str:
    """Make a personal token of 49 characters."""
    body = "".join(secrets.choice(ALPHABET) for _ in range(RANDOM))
    return f"{PREFIX}{body}{_checksum(body)}"


def is_token(text: str) -> bool:
    """Whether a text has the form of a personal token, and its checksum is right."""
    body, checksum = text[len(PREFIX) : -CHECKSUM], text[-CHECKSUM:]
    return text.startswith(PREFIX) and len(body) == RANDOM and body.isascii() and checksum == _checksum(body)


def hash_token(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _checksum(body: str) -> str:
    """Write the CRC-32 of the random characters in base 62."""
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECKSUM):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
