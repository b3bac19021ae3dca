"""JWT_PRIVATE_KEY_FILE: its first key signs access tokens, and every public half is published and verifies.

A rotation logs nobody out. A file that is damaged or holds other keys stops the start without showing its content.
"""

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, PublicFormat
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from app.__main__ import cli
from app.auth.claims import AccessClaims, RefreshClaims
from app.auth.keys import load_tokens
from app.auth.tokens import BadToken, Tokens
from app.config import Settings
from tests.conftest import MovableClock, Serve, on_one_database
from tests.support.accounts import log_in, refreshed, sign_up
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
from tests.support.tokens import ACCESS, ISSUER, NOW, REFRESH, SECRET, encode

pytestmark = on_one_database

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


@pytest.mark.rfc("7517", "4")
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


@pytest.mark.rfc("8725", "3.1")
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


def test_the_switch_to_a_key_pair_and_back_logs_nobody_out(serve: Serve) -> None:
    before = sign_up(serve())

    switched = serve(jwt_private_key_file=written(private(key("ES256"))))

    assert switched.get("/tasks/mine", headers=before.headers).status_code == 200
    after = refreshed(switched, before.refresh_token)
    assert kid_of(after.access_token) == thumbprint(key("ES256"))
    back = serve()
    assert back.get("/tasks/mine", headers=after.headers).status_code == 401
    assert back.get("/tasks/mine", headers=refreshed(back, after.refresh_token).headers).status_code == 200


@pytest.mark.rfc("7517", "4.5")
@pytest.mark.parametrize("half", [private, public], ids=["whole", "public half"])
def test_a_rotation_in_three_steps_logs_nobody_out(
    serve: Serve, clock: MovableClock, half: Callable[[PrivateKey], str]
) -> None:
    old, new = key("RS256"), key("ES256")
    first = sign_up(serve(jwt_private_key_file=written(private(old))))

    client = serve(jwt_private_key_file=written(private(old) + private(new)))
    known = published(client)
    second = log_in(client)
    assert list(known) == [thumbprint(old), thumbprint(new)]
    assert kid_of(second.access_token) == thumbprint(old)

    client = serve(jwt_private_key_file=written(private(new) + half(old)))
    third = log_in(client)
    assert kid_of(third.access_token) == thumbprint(new)
    assert verified(third.access_token, known)["scope"] == third.scope
    assert verified(second.access_token, published(client))["scope"] == second.scope
    for login in first, second, third:
        assert client.get("/tasks/mine", headers=login.headers).status_code == 200

    clock.move(seconds=1800)
    for login in first, second:
        expired = client.get("/tasks/mine", headers=login.headers)
        assert (expired.status_code, expired.json()) == (
            401,
            {"detail": "The access token has expired", "code": "invalid_token"},
        )
    fourth = log_in(client)
    client = serve(jwt_private_key_file=written(private(new)))
    assert list(published(client)) == [thumbprint(new)]
    for login in *(refreshed(client, login.refresh_token) for login in (first, second, third)), fourth:
        assert client.get("/tasks/mine", headers=login.headers).status_code == 200


NEEDED_KEYS = "must hold PEM keys for ES256 (P-256) or RS256 (2048 bits or more)"
NOT_PRIVATE = "must begin with a private key: it signs"
BAD_FILES: dict[str, tuple[Callable[[], str], str]] = {
    "empty": (lambda: "", NOT_PRIVATE),
    "blank": (lambda: "\n", NOT_PRIVATE),
    "garbage": (lambda: "canary" * 99, NOT_PRIVATE),
    "public half only": (lambda: public(key("ES256")), NOT_PRIVATE),
    "public half first": (lambda: public(key("RS256")) + private(key("ES256")), NOT_PRIVATE),
    "no key within": (lambda: "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n", NEEDED_KEYS),
    "cut off": (lambda: private(key("RS256"))[:-40], NEEDED_KEYS),
    "second cut off": (lambda: private(key("ES256")) + public(key("RS256"))[:-40], NEEDED_KEYS),
    "characters lost": (lambda: private(key("RS256"))[:200] + private(key("RS256"))[204:], NEEDED_KEYS),
    "another label": (lambda: private(key("ES256")).replace("PRIVATE", "CANARY PRIVATE"), NEEDED_KEYS),
    "P-384": (lambda: private(ec.generate_private_key(ec.SECP384R1())), NEEDED_KEYS),
    "secp256k1": (lambda: private(ec.generate_private_key(ec.SECP256K1())), NEEDED_KEYS),
    "RSA 1024": (lambda: private(rsa.generate_private_key(65537, 1024)), NEEDED_KEYS),
    "Ed25519": (lambda: private(ed25519.Ed25519PrivateKey.generate()), NEEDED_KEYS),
    "second P-384": (lambda: private(key("ES256")) + public(ec.generate_private_key(ec.SECP384R1())), NEEDED_KEYS),
    "encrypted": (lambda: private(key("ES256"), encryption=BestAvailableEncryption(b"canary")), NEEDED_KEYS),
    "encrypted, as openssl did": (
        lambda: private(key("ES256"), PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"canary")),
        NEEDED_KEYS,
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_without_showing_its_content(name: str) -> None:
    """The error names the file and the fault."""
    text, reason = BAD_FILES[name]
    path = written(text())

    with pytest.raises(ValueError, match="must") as caught:
        load_tokens(Settings(secret_key=SECRET, jwt_private_key_file=path))

    assert str(caught.value) == f"JWT_PRIVATE_KEY_FILE: {path} {reason}"


def test_a_file_that_is_not_text_is_refused() -> None:
    path = Path("keys.pem")
    path.write_bytes(b"canary\xff")
    path.chmod(0o600)

    with pytest.raises(ValueError, match="must") as caught:
        load_tokens(Settings(secret_key=SECRET, jwt_private_key_file=path))

    assert str(caught.value) == f"JWT_PRIVATE_KEY_FILE: keys.pem {NEEDED_KEYS}"


@pytest.mark.parametrize(
    ("path", "why"),
    [("no-such.pem", "No such file or directory"), (".", "Is a directory")],
    ids=["missing", "a folder"],
)
def test_a_file_that_cannot_be_read_is_named_with_its_setting(path: str, why: str) -> None:
    Path(path).resolve().parent.chmod(0o700)
    Path.cwd().chmod(0o700)

    with pytest.raises(ValueError, match="cannot be read") as caught:
        load_tokens(Settings(secret_key=SECRET, jwt_private_key_file=Path(path)))

    assert str(caught.value) == f"JWT_PRIVATE_KEY_FILE: {path} cannot be read: {why}"


@pytest.mark.parametrize("path", ["keys.pem", "no-such.pem"], ids=["damaged", "missing"])
def test_the_start_ends_with_one_line(sqlite_url: str, path: str) -> None:
    written("canary")
    environ = {"DATABASE_URL": sqlite_url, "JWT_PRIVATE_KEY_FILE": path}

    refused = CliRunner().invoke(cli, ["serve"], env=environ)

    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: JWT_PRIVATE_KEY_FILE: ")
    assert (refused.stdout, refused.stderr.count("\n")) == ("", 1)
    assert path in refused.stderr
    assert "canary" not in refused.stderr
