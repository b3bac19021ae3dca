"""Key pairs for JWT_PRIVATE_KEY_FILE, and what other services make of them."""

from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from fastapi.testclient import TestClient
from joserfc.jwk import ECKey, RSAKey

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Keys = dict[str, dict[str, Any]]


@cache
def key(kind: str) -> PrivateKey:
    return rsa.generate_private_key(65537, 2048) if kind == "RS256" else ec.generate_private_key(ec.SECP256R1())


@cache
def another_key() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def private(
    key: PrivateKey,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption = NoEncryption(),  # noqa: B008
) -> str:
    return key.private_bytes(Encoding.PEM, form, encryption).decode()


def public(key: PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def thumbprint(key: PrivateKey) -> str:
    return _imported(key).thumbprint()


def jwk(key: PrivateKey) -> dict[str, Any]:
    """The public key, as the service publishes it."""
    algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
    return dict(_imported(key).as_dict(private=False)) | {"kid": thumbprint(key), "use": "sig", "alg": algorithm}


def written(text: str) -> Path:
    path = Path("keys.pem").absolute()
    path.write_text(text)
    path.chmod(0o600)
    return path


def published(client: TestClient) -> Keys:
    return {key["kid"]: key for key in client.get("/.well-known/jwks.json").json()["keys"]}


def verified(token: str, keys: Keys) -> dict[str, Any]:
    """The claims as another service reads them, which has nothing but the published keys."""
    members = keys[jwt.get_unverified_header(token)["kid"]]
    options = {"verify_exp": False, "verify_iat": False}
    claims: dict[str, Any] = jwt.decode(
        token,
        jwt.PyJWK(members),
        [members["alg"]],
        options,  # type: ignore[arg-type]
        audience="http://127.0.0.1:8000",
        issuer="http://127.0.0.1:8000",
    )
    return claims


def kid_of(token: str) -> str:
    kid: str = jwt.get_unverified_header(token)["kid"]
    return kid


def _imported(key: PrivateKey) -> RSAKey | ECKey:
    return (RSAKey if isinstance(key, rsa.RSAPrivateKey) else ECKey).import_key(public(key))
