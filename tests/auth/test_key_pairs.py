"""JWT_PRIVATE_KEY_FILE: its first key signs access tokens, and of each the public half is published and verifies."""

import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, PublicFormat
from fastapi.testclient import TestClient

from app.auth.claims import AccessClaims, RefreshClaims
from app.auth.keys import load_tokens
from app.auth.tokens import BadToken, Tokens
from app.config import Settings
from tests.auth.test_tokens import ACCESS, ISSUER, NOW, REFRESH, SECRET, encode
from tests.conftest import Serve
from tests.support.accounts import refreshed, sign_up
from tests.support.key_pairs import (
    PrivateKey,
    another_key,
    jwk,
    key,
    kid_of,
    private,
    public,
    published,
    thumbprint,
    verified,
    written,
)

KINDS = ["ES256", "RS256"]
EC_PARAMETERS = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
SHORT_X, SHORT_Y = 379, 43  # private keys whose public half has a coordinate of less than 32 bytes


def der(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def loaded(text: str) -> Tokens:
    return load_tokens(Settings(secret_key=SECRET, public_url=ISSUER, jwt_private_key_file=written(text)))


def by_hmac(header: dict[str, Any], key: bytes) -> str:
    signed = ".".join(encode(json.dumps(part).encode()) for part in (header, ACCESS.model_dump()))
    return f"{signed}.{encode(hmac.digest(key, signed.encode(), hashlib.sha256))}"


@pytest.mark.parametrize("kind", KINDS)
def test_access_tokens_verify_from_the_published_keys_alone(serve: Serve, kind: str) -> None:
    """The key pair signs them; the secret does not."""
    client = serve(jwt_private_key_file=written(private(key(kind))))

    login = sign_up(client)

    header = jwt.get_unverified_header(login.access_token)
    assert header == {"alg": kind, "typ": "at+jwt", "kid": thumbprint(key(kind))}
    user = client.get("/users/me", headers=login.headers).json()
    claims = verified(login.access_token, published(client))
    assert (claims["sub"], claims["scope"]) == (user["id"], login.scope)


def test_refresh_tokens_stay_with_the_secret(serve: Serve) -> None:
    """The same generation is the same bytes in every process."""
    client = serve(jwt_private_key_file=written(private(key("ES256"))))
    login = sign_up(client)

    first, again = refreshed(client, login.refresh_token), refreshed(client, login.refresh_token)

    assert first.refresh_token == again.refresh_token
    assert jwt.get_unverified_header(first.refresh_token)["alg"] == "HS256"
    assert kid_of(first.access_token) == kid_of(again.access_token) == thumbprint(key("ES256"))


def test_published_keys_have_public_members_only(serve: Serve) -> None:
    keys = written(private(key("ES256")) + public(key("RS256")) + private(another_key()))

    response = serve(jwt_private_key_file=keys).get("/.well-known/jwks.json")

    assert response.status_code == 200
    assert response.json() == {"keys": [jwk(key("ES256")), jwk(key("RS256")), jwk(another_key())]}
    assert response.headers["Cache-Control"] == "public, max-age=300"


def test_with_the_secret_alone_no_key_is_published(client: TestClient) -> None:
    response = client.get("/.well-known/jwks.json")

    assert (response.status_code, response.json()) == (200, {"keys": []})
    assert response.headers["Cache-Control"] == "public, max-age=300"


@pytest.mark.parametrize("number", [SHORT_X, SHORT_Y], ids=["x", "y"])
def test_a_coordinate_with_zeros_at_its_front_keeps_them(number: int) -> None:
    """RFC 7518 §6.2.1.2: one key in 128 has such a coordinate, and its thumbprint rests on the full length."""
    short = ec.derive_private_key(number, ec.SECP256R1())

    tokens = loaded(private(short))

    assert tokens.public_keys == [jwk(short)]
    assert [len(tokens.public_keys[0][name]) for name in "xy"] == [43, 43]


def test_a_key_that_stands_there_twice_is_published_once() -> None:
    """`cat private.pem public.pem` makes such a file; a `kid` names one key (RFC 7517 §4.5)."""
    assert loaded(private(key("ES256")) + public(key("ES256"))).public_keys == [jwk(key("ES256"))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_forms_that_openssl_writes_are_read(kind: str) -> None:
    for text in (
        private(key(kind), PrivateFormat.TraditionalOpenSSL),
        EC_PARAMETERS + private(key(kind), PrivateFormat.TraditionalOpenSSL),
        f"Key of tasks.example\n{private(key(kind))}".replace("\n", "\r\n"),
    ):
        assert loaded(text).public_keys == [jwk(key(kind))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_public_key_is_no_secret_of_hmac(kind: str) -> None:
    tokens, members = loaded(private(key(kind))), jwk(key(kind))
    kids = members["kid"], kid_of(tokens.sign(REFRESH))
    numbers = [members[name].encode() for name in ("n", "e", "x", "y") if name in members]
    keys = [public(key(kind)).encode(), public(key(kind)).strip().encode(), der(key(kind)), *numbers, b""]

    for secret in [*keys, json.dumps(members).encode()]:
        for kid in kids:
            for alg in "HS256", kind, "none":
                with pytest.raises(BadToken):
                    tokens.verify(AccessClaims, by_hmac({"alg": alg, "typ": "at+jwt", "kid": kid}, secret), NOW)

    right = by_hmac({"alg": "HS256", "typ": "at+jwt", "kid": kids[1]}, SECRET.encode())
    assert tokens.verify(AccessClaims, right, NOW) == ACCESS


@pytest.mark.parametrize(
    ("signer", "alg"), [("RS256", alg) for alg in ("RS384", "RS512", "PS256", "PS512")] + [("ES256", "RS256")]
)
def test_a_key_is_for_one_algorithm(signer: str, alg: str) -> None:
    tokens = loaded(private(key("RS256")) + private(key("ES256")))
    header = {"typ": "at+jwt", "kid": thumbprint(key(signer))}
    claims = ACCESS.model_dump()

    assert tokens.verify(AccessClaims, jwt.encode(claims, key(signer), signer, header), NOW) == ACCESS
    with pytest.raises(BadToken):
        tokens.verify(AccessClaims, jwt.encode(claims, key("RS256"), alg, header), NOW)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_pair_makes_no_refresh_token(kind: str) -> None:
    tokens, kid = loaded(private(key(kind))), thumbprint(key(kind))

    forged = jwt.encode(REFRESH.model_dump(), key(kind), kind, {"typ": "rt+jwt", "kid": kid})

    with pytest.raises(BadToken):
        tokens.verify(RefreshClaims, forged, NOW)
    with pytest.raises(BadToken):
        tokens.verify_session_token(forged)
