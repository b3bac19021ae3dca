"""JWT_PRIVATE_KEY_FILE: a file that is damaged or of other keys stops the start, in words that show nothing of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, PrivateFormat
from typer.testing import CliRunner

from app.__main__ import cli
from app.auth.keys import load_tokens
from app.config import Settings
from tests.conftest import SECRET
from tests.support.key_pairs import key, private, public, written

OTHERS = "must hold PEM keys for ES256 (P-256) or RS256 (2048 bits or more)"
NOT_PRIVATE = "must begin with a private key: it signs"

REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "empty": (lambda: "", NOT_PRIVATE),
    "blank": (lambda: "\n", NOT_PRIVATE),
    "garbage": (lambda: "canary" * 99, NOT_PRIVATE),
    "public half only": (lambda: public(key("ES256")), NOT_PRIVATE),
    "public half first": (lambda: public(key("RS256")) + private(key("ES256")), NOT_PRIVATE),
    "no key within": (lambda: "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n", OTHERS),
    "cut off": (lambda: private(key("RS256"))[:-40], OTHERS),
    "second cut off": (lambda: private(key("ES256")) + public(key("RS256"))[:-40], OTHERS),
    "characters lost": (lambda: private(key("RS256"))[:200] + private(key("RS256"))[204:], OTHERS),
    "another label": (lambda: private(key("ES256")).replace("PRIVATE", "CANARY PRIVATE"), OTHERS),
    "P-384": (lambda: private(ec.generate_private_key(ec.SECP384R1())), OTHERS),
    "secp256k1": (lambda: private(ec.generate_private_key(ec.SECP256K1())), OTHERS),
    "RSA 1024": (lambda: private(rsa.generate_private_key(65537, 1024)), OTHERS),
    "Ed25519": (lambda: private(ed25519.Ed25519PrivateKey.generate()), OTHERS),
    "second P-384": (lambda: private(key("ES256")) + public(ec.generate_private_key(ec.SECP384R1())), OTHERS),
    "encrypted": (lambda: private(key("ES256"), encryption=BestAvailableEncryption(b"canary")), OTHERS),
    "encrypted, as openssl did": (
        lambda: private(key("ES256"), PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"canary")),
        OTHERS,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_file_is_refused_without_showing_its_content(name: str) -> None:
    """The error names the file and the fault."""
    text, reason = REFUSED[name]
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

    assert str(caught.value) == f"JWT_PRIVATE_KEY_FILE: keys.pem {OTHERS}"


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
