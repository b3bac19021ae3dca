"""The settings. A process reads them once, from the environment or files, and never changes them."""

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL

from app.config.sources import ENV_FILE, FILE_SUFFIX, EnvironmentAndFiles, find_settings, read_env_file
from app.config.values import (
    SMTPURL,
    DatabaseURL,
    Hosts,
    ImportedFunction,
    Link,
    Networks,
    Origins,
    Prefix,
    PublicURL,
    Secret,
    Sender,
)
from app.db.url import read_database_url
from app.errors import BadSettings

LogFormat = Literal["json", "console"]

DAY = 86_400


class Settings(BaseSettings):
    """The settings, which .env.example explains. Times are in seconds."""

    # Without `env_file`: pydantic would read the file first, and its errors are not ours.
    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    database_url: DatabaseURL = Field("sqlite:///./tasks.db", repr=False)
    pool_size: int = Field(10, ge=1, le=10_000)
    database_replica_url: DatabaseURL | None = Field(None, repr=False)
    secret_key: Secret | None = None
    secret_key_previous: Secret | None = None
    jwt_private_key_file: Path | None = None
    public_url: PublicURL = "http://127.0.0.1:8000"
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
    smtp_url: SMTPURL | None = None
    mail_from: Sender | None = None
    mail_hook: ImportedFunction | None = None
    reset_url: Link | None = None
    verify_url: Link | None = None
    trusted_proxies: Networks = ()
    allowed_hosts: Hosts = ()
    cors_origins: Origins = ()
    root_path: Prefix = ""
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
