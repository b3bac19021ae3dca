"""The types of the settings, which check a value. Their errors say what is right, and do not repeat the value."""

import re
from collections.abc import Awaitable, Callable
from email.utils import parseaddr
from inspect import iscoroutinefunction
from ipaddress import ip_network
from pkgutil import resolve_name
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from app.db.url import check_database_url

PATH_PATTERN = "/[A-Za-z0-9_~-][A-Za-z0-9._~-]*"
SECRET_BYTES = 32
PLACEHOLDER = re.compile(
    r"change.?(me|this|it)|replace.?(me|this|with)|your.{0,12}(secret|key)|super.?secret|placeholder|insecure"
    r"|-----BEGIN|ssh-rsa",
    re.IGNORECASE,
)
PUBLISHED_SECRETS = {
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",  # FastAPI's tutorial
    "a-string-secret-at-least-256-bits-long",  # jwt.io
    "0123456789abcdef0123456789abcdef",
}
HOST_PATTERN = r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)"
ORIGIN = re.compile(rf"\*|https?://{HOST_PATTERN}(:\d{{1,5}})?", re.IGNORECASE)
DEFAULT_PORT = re.compile(r"(http://.*):0*80$|(https://.*):0*443$")


def _split(value: object) -> object:
    return tuple(part for item in value.split(",") if (part := item.strip())) if isinstance(value, str) else value


def _check_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(str(ip_network(part)) for part in value)
    except ValueError:  # its message repeats the value
        raise ValueError("must be IP addresses or networks, separated by commas: 10.0.0.7, 10.1.0.0/16") from None


def _check_hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    if not all(re.fullmatch(HOST_PATTERN, part) for part in value):
        raise ValueError("must be host names without ports, separated by commas: tasks.example.com, [::1]")
    return tuple(part.lower() for part in value)


def _check_origins(value: tuple[str, ...]) -> tuple[str, ...]:
    if not all(ORIGIN.fullmatch(part) for part in value):
        raise ValueError("must be origins without paths, separated by commas: https://tasks.example.com")
    return tuple(map(normalize_origin, value))


def normalize_origin(value: str) -> str:
    """Write an origin as browsers send it (RFC 6454 §6.2)."""
    return DEFAULT_PORT.sub(r"\1\2", value.lower())


def _check_public_url(value: str) -> str:
    if not re.fullmatch(rf"https?://{HOST_PATTERN}(:\d{{1,5}})?({PATH_PATTERN})*/?", value):
        raise ValueError("must be an http or https URL, with no more than a host and a prefix: https://example.com/api")
    return value.rstrip("/")


def _check_prefix(value: str) -> str:
    if not re.fullmatch(rf"({PATH_PATTERN})*/?", value):
        raise ValueError("must be a path: /api")
    return value.rstrip("/")


def check_secret(value: SecretStr) -> SecretStr:
    """Raise ValueError if a secret is short, easy to guess, or another kind of key for jose.

    It must have no white space at its ends: an editor or a shell adds it on one host and not on the next.
    """
    secret = value.get_secret_value()
    if secret != strip_secret(secret):
        raise ValueError("must not begin or end with white space or a byte order mark")
    if len(secret.encode()) < SECRET_BYTES:
        raise ValueError(
            f"must have at least {SECRET_BYTES} bytes: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    if PLACEHOLDER.search(secret) or secret in PUBLISHED_SECRETS or len(set(secret)) < SECRET_BYTES // 4:
        raise ValueError("must be random text, not a placeholder or a key pair's")
    return value


def strip_secret(text: str) -> str:
    """Remove the white space and byte order marks that editors and shells leave around a secret."""
    return re.sub(r"^[\s\ufeff]+|[\s\ufeff]+\Z", "", text)


def _check_smtp_url(value: SecretStr) -> SecretStr:
    """Raise ValueError. The message does not show the password in the URL."""
    try:
        parts = urlsplit(value.get_secret_value())
        is_right = (
            parts.scheme in {"smtp", "smtps"} and parts.hostname and parts.port != 0 and not parts.path.strip("/")
        )
        is_right = is_right and not parts.query and not parts.fragment and (not parts.username) == (not parts.password)
    except ValueError:
        is_right = False
    if not is_right:
        raise ValueError("must be smtp://USER:PASSWORD@HOST:PORT, or smtps:// for TLS from the start")
    return value


def _check_sender(value: str) -> str:
    name, address = parseaddr(value)
    forms = {address, f"{name} <{address}>", f'"{name}" <{address}>'}
    if value.strip() not in forms or not value.isprintable() or not re.fullmatch(r"[^\s@]+@[^\s@]+", address):
        raise ValueError("must be an address: tasks@example.com, or Tasks <tasks@example.com>")
    return value.strip()


def _check_link(value: str) -> str:
    if not re.fullmatch(rf"https?://{HOST_PATTERN}(:\d{{1,5}})?(/[!-~]*)?", value) or "#" in value:
        raise ValueError("must be an http or https URL without #, where a token is added: https://example.com/reset")
    return value


def _import_function(value: object) -> object:
    try:
        function = resolve_name(value) if isinstance(value, str) else value
    except Exception:  # noqa: BLE001 - an import may raise anything
        function = None
    if not iscoroutinefunction(function):
        raise ValueError("must be an async function that can be imported: package.module:function")
    return function


DatabaseURL = Annotated[str, AfterValidator(check_database_url)]
CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Networks = Annotated[CommaSeparated, AfterValidator(_check_networks)]
Hosts = Annotated[CommaSeparated, AfterValidator(_check_hosts)]
Origins = Annotated[CommaSeparated, AfterValidator(_check_origins)]
PublicURL = Annotated[str, AfterValidator(_check_public_url)]
Prefix = Annotated[str, AfterValidator(_check_prefix)]
Secret = Annotated[SecretStr, AfterValidator(check_secret)]
SMTPURL = Annotated[SecretStr, AfterValidator(_check_smtp_url)]
Sender = Annotated[str, AfterValidator(_check_sender)]
Link = Annotated[str, AfterValidator(_check_link)]
ImportedFunction = Annotated[Callable[..., Awaitable[None]], BeforeValidator(_import_function)]
