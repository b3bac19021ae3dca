"""DATABASE_URL: which URLs the service can use."""

from pathlib import Path
from urllib.parse import unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.db.libpq import Servers, parse

SQLITE_HEADER = b"SQLite format 3\0"
UNSUPPORTED = "must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME, without a driver's name"


def check_database_url(value: str) -> str:
    """Return a URL that the service can use. The scheme `postgres` becomes `postgresql`.

    Raises ValueError with the reason, and without the URL, which may have a password.
    """
    url = read_database_url(value)
    if url.drivername == "sqlite":
        if url.host or url.query or (url.database or ":").startswith((":", "file:")):
            raise ValueError("a SQLite URL needs a file: sqlite:///./tasks.db")
        _check_file(Path(str(url.database)))
    return value.replace("postgres:", "postgresql:", 1) if value.startswith("postgres:") else value


def read_database_url(value: str) -> URL:
    """Read a URL as SQLAlchemy does, or as libpq does if it is one of PostgreSQL. Raises ValueError."""
    if value.startswith(("postgres:", "postgresql:")):
        return parse(value)
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        raise ValueError(UNSUPPORTED) from None
    if url.drivername != "sqlite" or "\0" in unquote(value):
        raise ValueError(UNSUPPORTED)
    return url


def dropped_parameters(setting: str, url: URL) -> list[str]:
    """Return a message for each parameter of a PostgreSQL URL that has no effect. The URL is the value of a setting."""
    names = Servers.of(url).dropped if url.drivername == "postgresql" else ()
    hints = {"channel_binding": "; sslmode=verify-full makes sure of the server"}
    message = f"{setting}: {{}} has no effect, because the driver does not know it"
    return [message.format(name) + hints.get(name, "") for name in names]


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
