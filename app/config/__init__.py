"""The settings. A process reads them once, from the environment or files, and never changes them."""

import re
import sys
from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from email.utils import parseaddr
from inspect import iscoroutinefunction
from ipaddress import ip_network
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL

from app.config.sources import ENV_FILE, FILE_SUFFIX, EnvironmentAndFiles, find_settings, read_env_file
from app.db.url import check_database_url, read_database_url
from app.errors import BadSettings

LogFormat = Literal["json", "console"]

DAY = 86_400
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


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
ImportedFunction = Annotated[Callable[..., Awaitable[None]], BeforeValidator(_import_function)]
Secret = Annotated[SecretStr, AfterValidator(check_secret)]
Link = Annotated[str, AfterValidator(_check_link)]


class Settings(BaseSettings):
    """The settings, which .env.example explains. Times are in seconds."""

    # Without `env_file`: pydantic would read the file first, and its errors are not ours.
    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    database_url: Annotated[str, AfterValidator(check_database_url)] = Field("sqlite:///./tasks.db", repr=False)
    pool_size: int = Field(10, ge=1, le=10_000)
    database_replica_url: Annotated[str, AfterValidator(check_database_url)] | None = Field(None, repr=False)
    secret_key: Secret | None = None
    secret_key_previous: Secret | None = None
    jwt_private_key_file: Path | None = None
    public_url: Annotated[str, AfterValidator(_check_public_url)] = "http://127.0.0.1:8000"
    access_token_ttl: int = Field(1800, ge=1, le=DAY)
    session_ttl: int = Field(30 * DAY, ge=1, le=3650 * DAY)
    session_idle_ttl: int = Field(0, ge=0, le=3650 * DAY)
    refresh_grace: int = Field(10, ge=0, le=60)
    fresh_login: int = Field(300, ge=0, le=DAY)
    login_failures: int = Field(10, ge=1, le=1_000_000)
    login_window: int = Field(900, ge=1, le=DAY)
    registration: Literal["open", "closed"] = "open"
    registration_limit: int = Field(60, ge=0, le=1_000_000)
    tasks_limit: int = Field(100_000, ge=0, le=1_000_000_000)
    smtp_url: Annotated[SecretStr, AfterValidator(_check_smtp_url)] | None = None
    mail_from: Annotated[str, AfterValidator(_check_sender)] | None = None
    mail_hook: ImportedFunction | None = None
    reset_url: Link | None = None
    verify_url: Link | None = None
    trusted_proxies: Annotated[CommaSeparated, AfterValidator(_check_networks)] = ()
    allowed_hosts: Annotated[CommaSeparated, AfterValidator(_check_hosts)] = ()
    cors_origins: Annotated[CommaSeparated, AfterValidator(_check_origins)] = ()
    root_path: Annotated[str, AfterValidator(_check_prefix)] = ""
    drain_seconds: int = Field(0, ge=0, le=3600)
    log_format: LogFormat = Field(default_factory=lambda: "console" if sys.stderr.isatty() else "json")
    log_requests: bool = True
    metrics: bool = False

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[Any, ...]:
        return sources["init_settings"], EnvironmentAndFiles(cls)

    @property
    def database(self) -> URL:
        return read_database_url(self.database_url)

    @property
    def database_replica(self) -> URL | None:
        return read_database_url(self.database_replica_url) if self.database_replica_url else None

    @model_validator(mode="after")
    def _has_what_its_database_needs(self) -> Self:
        kinds = {url.drivername for url in (self.database, self.database_replica) if url}
        if self.secret_key is None and "postgresql" in kinds:
            raise ValueError("SECRET_KEY must be given with PostgreSQL, the same to every process")
        if self.database_replica and "sqlite" in kinds:
            raise ValueError("DATABASE_REPLICA_URL needs PostgreSQL, and so does its DATABASE_URL")
        return self

    @model_validator(mode="after")
    def _has_one_way_to_send_mail(self) -> Self:
        if self.smtp_url and self.mail_hook:
            raise ValueError("SMTP_URL and MAIL_HOOK cannot both be given: choose one")
        if self.smtp_url and not self.mail_from:
            raise ValueError("MAIL_FROM must be given with SMTP_URL: it is the sender of the mails")
        return self


def read_settings() -> Settings:
    """Raises BadSettings."""
    try:
        return Settings()
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
        names = ["".join(str(part).upper() + ": " for part in fault["loc"]) for fault in faults]
        messages = [fault["msg"].removeprefix("Value error, ") for fault in faults]
        raise BadSettings(*map("".join, zip(names, messages, strict=True))) from None


def setting_files() -> list[Path]:
    """Return the files that settings are read from: `.env`, if it is there, and those that `NAME_FILE` names."""
    found = find_settings(Settings.model_fields).values()
    return [*([ENV_FILE] if ENV_FILE.is_file() else []), *(given for given in found if isinstance(given, Path))]


def unknown_names() -> list[str]:
    """Return a message for each name in `.env` that no setting has, with the setting that it resembles."""
    known, messages = [form.upper() for name in Settings.model_fields for form in (name, name + FILE_SUFFIX)], []
    for name in dict.fromkeys(name for name, _ in read_env_file()):
        if name.upper() not in known:
            hints = [f": did you mean {near}?" for near in get_close_matches(name.upper(), known, 1)]
            messages.append("".join([f"{ENV_FILE}: {name} is not a setting", *hints]))
    return messages
