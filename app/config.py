"""Settings: read once from the environment or a .env file, checked, frozen, passed down."""

import re
import sys
from pathlib import Path
from typing import Annotated, Literal, Self

from fastapi import Depends, Request
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

DAY = 86_400
PATH = "/[A-Za-z0-9_~-][A-Za-z0-9._~-]*"
SECRET_BYTES = 32
UNFIT = re.compile(r"change.?(me|this|it)|your.?secret|placeholder|insecure|-----BEGIN|ssh-rsa", re.IGNORECASE)


class Settings(BaseSettings):
    """What .env.example lists; times are in seconds."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", env_ignore_empty=True, frozen=True, hide_input_in_errors=True
    )

    database_url: str = Field("sqlite:///./tasks.db", repr=False)
    secret_key: SecretStr | None = None
    secret_key_previous: SecretStr | None = None
    jwt_private_key_file: Path | None = None
    public_url: str = Field(
        "http://127.0.0.1:8000", pattern=rf"^https?://(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)(:\d{{1,5}})?({PATH})*/?$"
    )
    access_token_ttl: int = Field(1800, ge=1, le=DAY)
    session_ttl: int = Field(30 * DAY, ge=1, le=3650 * DAY)
    refresh_grace: int = Field(10, ge=0, le=60)
    registration: Literal["open", "closed"] = "open"
    root_path: str = Field("", pattern=rf"^({PATH})*/?$")

    @property
    def database(self) -> URL:
        """The parsed URL; `postgres` is spelled `postgresql` here."""
        url = make_url(self.database_url)
        return url.set(drivername="postgresql") if url.drivername == "postgres" else url

    @field_validator("database_url")
    @classmethod
    def _is_a_supported_database(cls, value: str) -> str:
        try:
            url = make_url(value)
        except (ArgumentError, ValueError):
            url = URL.create("unreadable")
        if url.drivername == "sqlite":
            if url.host or url.query or (url.database or ":").startswith((":", "file:")):
                raise ValueError("a SQLite URL needs a file: sqlite:///./tasks.db")
        elif url.drivername not in {"postgresql", "postgres"}:
            raise ValueError("must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME, without a driver's name")
        return value

    @field_validator("secret_key", "secret_key_previous")
    @classmethod
    def _is_hard_to_guess(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_secret(value.get_secret_value())
        return value

    @field_validator("public_url", "root_path")
    @classmethod
    def _ends_without_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @model_validator(mode="after")
    def _has_a_secret_where_none_can_be_kept(self) -> Self:
        if self.secret_key is None and self.database.drivername == "postgresql":
            raise ValueError("SECRET_KEY must be given with PostgreSQL, the same to every process")
        return self


def check_secret(secret: str) -> None:
    """Raises ValueError for a secret that is too short, easy to guess, or that jose takes for another kind of key."""
    if len(secret.encode()) < SECRET_BYTES:
        raise ValueError(
            f"must have at least {SECRET_BYTES} bytes: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    if UNFIT.search(secret) or len(set(secret)) < SECRET_BYTES // 4:
        raise ValueError("must be random text, not a placeholder or a key pair's")


def load_settings() -> Settings:
    """Read the settings, or end the process with exit code 2 and one line that names what is wrong, never its value."""
    try:
        return Settings()
    except ValidationError as error:
        for fault in error.errors(include_input=False, include_url=False):
            name = "".join(str(part).upper() + ": " for part in fault["loc"])
            print(f"error: {name}{fault['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        raise SystemExit(2) from None
    except UnicodeDecodeError:
        print("error: .env: must be UTF-8 text", file=sys.stderr)
        raise SystemExit(2) from None


async def get_settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


AppSettings = Annotated[Settings, Depends(get_settings)]
