"""Where the signing secret comes from, and where it is kept when nobody gives one."""

import os
import secrets
from pathlib import Path

from app.config import Settings, check_secret


def signing_secrets(settings: Settings) -> list[str]:
    """The secret that signs, then those that only verify.

    Raises:
        ValueError, OSError: the file that keeps the secret is damaged, or cannot be read or made.
    """
    given = [secret.get_secret_value() for secret in (settings.secret_key, settings.secret_key_previous) if secret]
    return given if settings.secret_key else [_kept_secret(secret_file(settings)), *given]


def secret_file(settings: Settings) -> Path:
    """Beside the SQLite file."""
    return Path(f"{settings.database.database}.secret")


def _kept_secret(path: Path) -> str:
    """Read the secret, made by whoever comes first: a hard link appears whole or not at all, and only once."""
    if not path.exists():
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(descriptor)
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    secret = path.read_text()
    try:
        check_secret(secret)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it {error}") from error
    return secret
