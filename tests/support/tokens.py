"""Tokens and claims at a known time, and what other libraries read in them."""

import string
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from hypothesis import strategies as st
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import OctKey

from app.auth.claims import AccessClaims, Claims, RefreshClaims
from app.auth.tokens import BadToken, ExpiredToken, Tokens

SECRET = "a-key-for-tests-only-0123456789abcdef"
OTHER_SECRET = "another-key-for-tests-9876543210-fedcba"
ISSUER = "https://tasks.example/api"
NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())
TOKENS = Tokens(ISSUER, [SECRET])
COMMON: dict[str, Any] = {
    "iss": ISSUER,
    "aud": ISSUER,
    "sub": "019ab000-0000-7000-8000-000000000001",
    "sid": "019ab000-0000-7000-8000-000000000002",
    "jti": "019ab000-0000-7000-8000-000000000002.1",
    "iat": EPOCH,
    "exp": EPOCH + 1800,
    "scope": "tasks:read tasks:write",
}
ACCESS = AccessClaims(**COMMON)
REFRESH = RefreshClaims(**COMMON, gen=1)
ALPHABET = string.ascii_letters + string.digits + "-_"
seconds = st.integers(min_value=0, max_value=2**40 - 1)
uuids = st.uuids().map(str)
claims_of_any_kind = st.builds(
    lambda kind, **claims: kind(**(COMMON | claims)),
    st.sampled_from([AccessClaims, lambda **claims: RefreshClaims(**claims, gen=2**31 - 1)]),
    sub=uuids,
    sid=uuids,
    jti=st.text(st.characters(codec="utf-8"), min_size=1, max_size=64),
    iat=seconds,
    exp=seconds,
    scope=st.text(st.characters(codec="utf-8"), max_size=255),
)


def encode(part: bytes) -> str:
    return urlsafe_b64encode(part).rstrip(b"=").decode()


def claims_elsewhere(token: str) -> dict[str, Any]:
    """The claims as two other libraries read them, whatever the time."""
    unchecked: Any = {f"verify_{name}": False for name in ("exp", "iat", "nbf", "aud")}
    ours: dict[str, Any] = jwt.decode(token, SECRET, ["HS256"], unchecked)
    assert joserfc_jwt.decode(token, OctKey.import_key(SECRET), ["HS256"]).claims == ours
    return ours


def assert_refused(token: str) -> None:
    readers: list[Callable[[], Claims]] = [
        lambda: TOKENS.verify(AccessClaims, token, NOW),
        lambda: TOKENS.verify(RefreshClaims, token, NOW),
        lambda: TOKENS.verify_session_token(token),
    ]
    for reader in readers:
        with pytest.raises(BadToken) as caught:
            reader()
        assert not isinstance(caught.value, ExpiredToken)
