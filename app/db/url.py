"""DATABASE_URL: which URLs the service can use."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

SQLITE_HEADER = b"SQLite format 3\0"
UNSUPPORTED = "must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME, without a driver's name"


def check_database_url(value: str) -> str:
    """Return a URL that the service can use. The scheme `postgres` becomes `postgresql`.

    Raises ValueError with the reason, and without the URL, which may have a password.
    """
    try:
        url, port = make_url(value), urlsplit(value).port
    except (ArgumentError, ValueError):
        raise ValueError(UNSUPPORTED) from None
    is_named = "\0" not in unquote(value) and ".." not in (url.host or "")
    is_reachable = port != 0 and str(url.query.get("port", "5432")).isdigit()
    if url.drivername not in {"sqlite", "postgresql", "postgres"} or not (is_named and is_reachable):
        raise ValueError(UNSUPPORTED)
    if url.drivername == "sqlite":
        if url.host or url.query or (url.database or ":").startswith((":", "file:")):
            raise ValueError("a SQLite URL needs a file: sqlite:///./tasks.db")
        _check_file(Path(str(url.database)))
    return value.replace("postgres:", "postgresql:", 1) if url.drivername == "postgres" else value


def _check_file(path: Path) -> None:
    """Raise ValueError for a path that has something else than a SQLite database, or that cannot have one."""
    try:
        with path.open("rb") as file:
            head = file.read(len(SQLITE_HEADER))
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise ValueError("the folder of the SQLite file does not exist") from None
    except OSError:
        raise ValueError("the SQLite file cannot be read") from None
    else:
        if head not in {b"", SQLITE_HEADER}:
            raise ValueError("the file is not a SQLite database")
