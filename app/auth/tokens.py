"""Access, refresh, reset and verification tokens: signing and verifying. The only importer of jose.

jose checks signatures and little else. It accepts several encodings of one token, duplicate members, any `typ` and
`crit` and a missing `exp`, and it raises other errors than its own. So this module checks the form of a token before
jose sees it and the claims afterwards, and raises one error for all that jose raises: `BadToken`.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar

from jose import jwk, jws
from jose.backends.base import Key
from jose.utils import base64url_decode, base64url_encode
from pydantic import BaseModel, ConfigDict

from app.auth.claims import AccessClaims, Claims, RefreshClaims, ResetClaims, SessionClaims, VerificationClaims

MAX_TOKEN_LENGTH: Final = 4096
MAX_HEADER_BYTES: Final = 256
REMEMBERED: Final = 4096  # access tokens
CLOCK_SKEW: Final = 60  # seconds that another host's clock may be ahead of ours
SEGMENTS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class BadToken(Exception):
    """Not a token of ours, or not of the wanted kind."""


class ExpiredToken(BadToken):
    """A token of ours that has expired."""


class EarlyToken(BadToken):
    """A token of ours from the future: this host's clock is behind."""


AnyClaims = TypeVar("AnyClaims", bound=Claims)
OF_SESSIONS: Final = {kind.typ: kind for kind in (AccessClaims, RefreshClaims)}


class _Header(BaseModel):
    """Exactly these members: no `crit`, and no member that says where to fetch a key."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    alg: str
    typ: str
    kid: str


class PEMKey(NamedTuple):
    """A key of a PEM file, and its only algorithm."""

    algorithm: str
    pem: str
    is_private: bool


class KeyUse(NamedTuple):
    """The `kid` of a key, and the tokens that it signs, for people to read."""

    id: str
    algorithm: str
    signs: Sequence[str]


class _Key(NamedTuple):
    id: str
    algorithm: str
    signer: Key
    verifier: Key
    public: dict[str, str] = {}  # noqa: RUF012


class Tokens:
    """Signs with the first key, and verifies with the key that the token's `kid` names.

    The first key pair signs access tokens, if there is one. Only this service reads the other tokens, so the first
    secret signs them. HMAC gives the same bytes for the same claims.
    """

    def __init__(self, issuer: str, keys: Sequence[str], pems: Sequence[PEMKey] = ()) -> None:
        self.issuer = issuer
        symmetric, pairs = [_from_secret(secret) for secret in keys], [_from_pem(pem) for pem in pems]
        self._keys = {key.id: key for key in (*symmetric, *pairs)}
        self._verified = lru_cache(REMEMBERED)(self._verify)  # verifying takes a third of the time of a page
        self._own_key, self._access_key = symmetric[0], (pairs or symmetric)[0]
        self.public_keys = [key.public for key in self._keys.values() if key.public]
        """The public halves of the key pairs, as JWKs (RFC 7517 §4)."""

    @property
    def uses(self) -> list[KeyUse]:
        """Every key, and the tokens that it signs. Each key verifies all tokens that it could have signed."""
        kinds: dict[type[Claims], str] = {
            AccessClaims: "access tokens",
            RefreshClaims: "refresh tokens",
            ResetClaims: "reset tokens",
            VerificationClaims: "verification tokens",
        }
        return [
            KeyUse(key.id, key.algorithm, [words for kind, words in kinds.items() if self._signer(kind) is key])
            for key in self._keys.values()
        ]

    def new_claims(self, kind: type[AnyClaims], user_id: str, now: datetime, ttl: int, **others: str) -> AnyClaims:
        """Make the claims of a token that belongs to no session."""
        common = {"iss": self.issuer, "aud": self.issuer, "sub": user_id, "jti": secrets.token_urlsafe(16)}
        issued_at = int(now.timestamp())
        return kind.model_validate({**common, **others, "iat": issued_at, "exp": issued_at + ttl})

    def sign(self, claims: Claims) -> str:
        key = self._signer(type(claims))
        header = {"typ": claims.typ, "kid": key.id}
        return jws.sign(claims.model_dump(), key.signer, headers=header, algorithm=key.algorithm)

    def verify(self, kind: type[AnyClaims], token: str, now: datetime) -> AnyClaims:
        """Verify a token of that kind.

        Raises:
            ExpiredToken: `exp` is not after `now` (RFC 7519 §4.1.4).
            EarlyToken: the refresh token was issued after `now`.
            BadToken: anything else is wrong with the token.
        """
        claims = self._verified(kind, token) if issubclass(kind, AccessClaims) else self._verify(kind, token)
        # A host whose clock is behind must not move a session on. For other tokens, `iat` does not matter.
        _check_time(claims, now, refuse_early=issubclass(kind, RefreshClaims))
        return claims

    def verify_session_token(self, token: str, now: datetime | None = None) -> SessionClaims:
        """Verify an access or refresh token. Without `now` its age does not matter. Raises BadToken, as `verify`."""
        kind = OF_SESSIONS.get(_read_header(token).typ)
        if kind is None:
            raise BadToken("neither kind of token")
        claims = self._verify(kind, token)
        if now:
            _check_time(claims, now, refuse_early=True)
        return claims

    def _signer(self, kind: type[Claims]) -> _Key:
        return self._access_key if issubclass(kind, AccessClaims) else self._own_key

    def _verify(self, kind: type[AnyClaims], token: str) -> AnyClaims:
        header = _read_header(token)
        key = self._keys.get(header.kid)
        if key is None or header.alg != key.algorithm or header.alg not in kind.algorithms or header.typ != kind.typ:
            raise BadToken("another key, or another kind of token")
        try:
            payload = jws.verify(token, key.verifier, [key.algorithm])
            claims = kind.model_validate(_parse(payload))
        except Exception as error:  # jose raises more than its own errors: security depends on catching them all
            raise BadToken from error
        # PUBLIC_URL may change. Only this service reads a refresh token, and its key and session say enough.
        if not issubclass(kind, RefreshClaims) and (claims.iss != self.issuer or claims.aud != self.issuer):
            raise BadToken("another issuer or audience")
        return claims


def _check_time(claims: Claims, now: datetime, *, refuse_early: bool) -> None:
    if refuse_early and claims.iat > now.timestamp() + CLOCK_SKEW:
        raise EarlyToken
    if claims.exp <= now.timestamp():
        raise ExpiredToken


def _read_header(token: str) -> _Header:
    """Read the header of a token, which must have the canonical form of RFC 7515 §3.1."""
    try:
        if len(token) > MAX_TOKEN_LENGTH or not SEGMENTS.fullmatch(token):
            raise BadToken("not three segments")
        parts = [base64url_decode(segment) for segment in token.encode().split(b".")]
        if b".".join(base64url_encode(part) for part in parts) != token.encode():
            raise BadToken("not the canonical encoding")
        if len(parts[0]) > MAX_HEADER_BYTES or b"[" in parts[0] or parts[0].count(b"{") != 1:
            raise BadToken("not a flat header")
        return _Header.model_validate(_parse(parts[0]))
    except ValueError as error:
        raise BadToken from error


def _parse(text: bytes) -> dict[str, Any]:
    """Parse an object. Duplicate members are an error (RFC 8725 §2.4)."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise ValueError("duplicate members")
        return members

    members: dict[str, Any] = json.loads(text, object_pairs_hook=unique)
    return members


def _from_secret(secret: str) -> _Key:
    key = jwk.construct(secret.encode(), "HS256")
    return _Key(hashlib.sha256(b"kid:" + secret.encode()).hexdigest()[:16], "HS256", key, key)


def key_id(key: PEMKey) -> str:
    """Return the `kid` of a key pair: its thumbprint (RFC 7638)."""
    return _from_pem(key).id


def _from_pem(key: PEMKey) -> _Key:
    signer = jwk.construct(key.pem, key.algorithm)
    verifier = signer.public_key()
    members = {name: str(value) for name, value in verifier.to_dict().items() if name != "alg"}
    thumbprint = hashlib.sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).digest()
    kid = base64url_encode(thumbprint).decode()
    return _Key(kid, key.algorithm, signer, verifier, members | {"kid": kid, "use": "sig", "alg": key.algorithm})
