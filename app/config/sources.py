"""The sources of the settings: the environment, then `.env`. Each may name a file with the value, as `NAME_FILE`.

A file that cannot be read raises BadSettings. Its message shows neither a value nor a path: somebody may have written
the secret in the place of the path.
"""

import os
import stat
from collections.abc import Collection, Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Final

from dotenv.parser import parse_stream
from pydantic_settings import EnvSettingsSource

from app.errors import BadSettings

ENV_FILE: Final = Path(".env")
FILE_SUFFIX: Final = "_file"
MAX_FILE_BYTES: Final = 64 * 1024


class EnvironmentAndFiles(EnvSettingsSource):
    """Values are taken literally: dotenv would replace `${HOME}` in a secret by the home of each process."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        found = find_settings(self.settings_cls.model_fields)
        return {name: _read_value(name, given) if isinstance(given, Path) else given for name, given in found.items()}


def find_settings(names: Collection[str]) -> dict[str, str | Path]:
    """Return the values of the settings that are given, or the files with the values.

    The environment wins over `.env`. An empty text counts as not given. Letter case does not matter.
    """
    found: dict[str, str | Path] = {}
    sources: list[Iterable[tuple[str, str | None]]] = [read_env_file(), os.environ.items()]
    for source in sources:
        texts = {name.lower(): text for name, text in source if text}
        for name in names:
            value = texts.get(name, "")
            path = texts.get(name + FILE_SUFFIX, "") if name + FILE_SUFFIX not in names else ""
            if value and path:
                both = f"{name.upper()} and {name.upper()}_FILE"
                raise BadSettings(f"{both} cannot both be given: choose one")
            if value or path:
                found[name] = Path(path) if path else value
    return found


def set_in_environment(name: str, value: str) -> None:
    """Give a setting another value, for this process and those that it starts."""
    for form in [form for form in os.environ if form.lower() in {name, name + FILE_SUFFIX}]:
        del os.environ[form]
    os.environ[name.upper()] = value


def read_env_file() -> list[tuple[str, str | None]]:
    """Return the names and values of `.env`. A line that dotenv would skip is refused: it may be the secret."""
    try:
        text = ENV_FILE.read_text("utf-8") if ENV_FILE.is_file() else ""
    except PermissionError:
        raise BadSettings(f"{ENV_FILE}: this user may not read it") from None
    except UnicodeDecodeError:
        raise BadSettings(f"{ENV_FILE}: must be UTF-8 text") from None
    lines = list(parse_stream(StringIO(text)))
    for line in lines:
        if line.error:
            raise BadSettings(f"{ENV_FILE}: line {line.original.line} is not NAME=value")
    return [(line.key, line.value) for line in lines if line.key]


def _read_value(name: str, path: Path) -> str:
    """Read the file of a setting. A byte order mark, and the line ends after the value, do not belong to the value."""
    name_of_file = (name + FILE_SUFFIX).upper()
    try:
        there = path.stat()
        # To open a pipe could wait for ever, and one process alone would get its content.
        is_right = stat.S_ISREG(there.st_mode) and there.st_size <= MAX_FILE_BYTES
        text = path.read_text("utf-8-sig").rstrip("\n") if is_right else ""
    except OSError as error:
        raise BadSettings(f"{name_of_file}: the file cannot be read: {error.strerror}") from None
    except ValueError:  # not UTF-8, or a NUL in the path
        text = ""
    if not text or "\0" in text:
        raise BadSettings(f"{name_of_file}: must name a file of UTF-8 text, not empty, with at most 64 KiB")
    return text
