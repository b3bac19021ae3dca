"""A pytest kit for those who build on the service. In a conftest.py: `pytest_plugins = ["app.testing"]`.

Each test has a service of its own, on a database of its own that the migrations made, with a clock that stands still
until the test moves it, and passwords that cost nothing to hash. The database is SQLite, or PostgreSQL on the server of
TEST_DATABASE_URL, where databases are made and dropped and no other is touched. No setting comes from the environment
or from a .env file.

It is not an entry point of pytest's: its names are plain, and would be in every suite of the environment.
PYTEST_DONT_REWRITE: a conftest may import from here, which comes before pytest could rewrite.
"""

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Self, cast
from uuid import uuid4

import pytest
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic_settings import PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy import URL, make_url

from app.auth.passwords import Cost
from app.config import Settings
from app.db.connect import connect
from app.db.upgrade import bring_up_to_date
from app.main import create_app
from app.tasks.search import BACKFILL
from app.users.service import create_user

SECRET: Final = "a-key-for-tests-only-0123456789abcdef"  # noqa: S105
PASSWORD: Final = "correct horse battery"  # noqa: S105
CHEAP: Final = Cost(memory=8, passes=1)
DESCRIPTION = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §5.2
PARAMETER = r'([a-z_]+)="([^"\\]*)"'
CHALLENGE = re.compile(f"Bearer {PARAMETER}(, {PARAMETER})*")
OAUTH_KEYS: Final = {"detail", "code", "error", "error_description"}
BEARER_STATUSES: Final = {
    None: 401,
    "invalid_request": 400,
    "invalid_token": 401,
    "insufficient_scope": 403,
    "insufficient_user_authentication": 401,
}

BearerError = Literal["invalid_request", "invalid_token", "insufficient_scope", "insufficient_user_authentication"]
MakeApp = Callable[[Settings], FastAPI]
Serve = Callable[..., TestClient]
LogIn = Callable[..., "Login"]


class GivenSettings(Settings):
    """Settings as they are given: no other source is read, and a name that is none is refused."""

    model_config = SettingsConfigDict(env_file=None, extra="forbid")

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[PydanticBaseSettingsSource, ...]:
        return (sources["init_settings"],)


class MovableClock:
    """The service's clock: it stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        """Move by a timedelta's keywords: `clock.move(minutes=30)`."""
        self.now += timedelta(**by)


@dataclass(frozen=True)
class User:
    """Who has registered."""

    username: str
    password: str


@dataclass(frozen=True)
class Login:
    """What a login brought."""

    access_token: str
    refresh_token: str
    scope: str

    @property
    def headers(self) -> dict[str, str]:
        return bearer(self.access_token)

    @classmethod
    def of(cls, response: Response) -> Self:
        """That of an answer of the token endpoint's."""
        body = _body(response, 200)
        return cls(body["access_token"], body["refresh_token"], body["scope"])


@pytest.fixture
def clock() -> MovableClock:
    """The service's clock: `clock.move(minutes=30)`, and an access token has expired."""
    return MovableClock()


@pytest.fixture
def settings(database_url: str) -> Settings:
    """The settings, all of them the default but the database and the secret: override it for others."""
    return GivenSettings(database_url=database_url, secret_key=SECRET)


@pytest.fixture
def make_app(clock: MovableClock) -> MakeApp:
    """What makes the app of settings: override it where `create_app` is not all of yours."""
    return lambda settings: create_app(settings, clock=clock, password_cost=CHEAP)


@pytest.fixture
def serve(settings: Settings, make_app: MakeApp) -> Iterator[Serve]:
    """Start a service with other settings than the usual: `serve(refresh_grace=0)`. They share one database."""
    with ExitStack() as stack:

        def start(**changes: Any) -> TestClient:
            changed = type(settings).model_validate(settings.model_dump() | changes)
            return stack.enter_context(TestClient(make_app(changed)))

        yield start


@pytest.fixture
def client(serve: Serve) -> TestClient:
    """A client of a service with the usual settings."""
    return serve()


@pytest.fixture
def user(client: TestClient) -> User:
    """A registered user, ada."""
    register(client)
    return User("ada", PASSWORD)


@pytest.fixture
def admin(client: TestClient) -> User:
    """A registered administrator, root."""
    add_user(client, "root", is_admin=True)
    return User("root", PASSWORD)


@pytest.fixture
def login(client: TestClient) -> LogIn:
    """Log a user in: `login(user)`, or for fewer scopes `login(user, scope="tasks:read")`."""
    return lambda user, **fields: log_in(client, user.username, user.password, **fields)


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of the test's own."""
    is_served = os.environ.get("TEST_DATABASE_URL", "").startswith("postgres")
    url: str = request.getfixturevalue("postgres_url" if is_served else "sqlite_url")
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each test's is a copy of."""
    path = tmp_path_factory.mktemp("template") / "tasks.db"
    asyncio.run(migrate(make_url(f"sqlite:///{path}")))
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of the test's own."""
    shutil.copy(sqlite_template, tmp_path / "tasks.db")
    return f"sqlite:///{tmp_path}/tasks.db"


@pytest.fixture(scope="session")
def postgres_server() -> URL:
    """The server of TEST_DATABASE_URL, where every database we touch is one we have made."""
    return make_url(os.environ["TEST_DATABASE_URL"])


@pytest.fixture(scope="session")
def postgres_template(postgres_server: URL) -> Iterator[URL]:
    """What each test's is a copy of."""
    with new_database(postgres_server) as url:
        asyncio.run(migrate(url))
        yield url


@pytest.fixture
def postgres_url(postgres_server: URL, postgres_template: URL) -> Iterator[str]:
    """A migrated PostgreSQL database of the test's own."""
    with new_database(postgres_server, f'TEMPLATE "{postgres_template.database}"') as url:
        yield url.render_as_string(hide_password=False)


def bearer(token: str) -> dict[str, str]:
    """The header that carries it (RFC 6750 §2.1)."""
    return {"Authorization": f"Bearer {token}"}


def register(client: TestClient, username: str = "ada", **fields: Any) -> dict[str, Any]:
    """A new user, as the service shows them."""
    return _body(client.post("/users", json={"username": username, "password": PASSWORD} | fields), 201)


def add_user(client: TestClient, username: str, *, is_admin: bool = False) -> None:
    """Add a user as the command line does, which may give a reserved name and make an administrator."""
    services, portal = cast("FastAPI", client.app).state.services, cast("BlockingPortal", client.portal)
    password_hash = portal.call(services.passwords.hash, PASSWORD, username, None, "")
    add = partial(create_user, is_admin=is_admin)
    portal.call(services.database.write, add, username, password_hash, services.clock())


def log_in(client: TestClient, username: str = "ada", password: str = PASSWORD, **fields: str) -> Login:
    return Login.of(client.post("/auth/token", data={"username": username, "password": password} | fields))


def assert_oauth_error(response: Response, error: str, status: int = 400) -> None:
    """Assert that a form endpoint, such as /auth/token, answered this error of RFC 6749 §5.2.

    The status is 401 for wrong credentials, and 429 for too many of them (`temporarily_unavailable`).
    """
    __tracebackhide__ = True
    body = _object(response)
    description = str(body.get("error_description"))
    rules = {
        f"the status must be {status}": response.status_code == status,
        f"the error must be {error}": body.get("error") == error,
        "the body must be detail, code, error and error_description, all text": body.keys() == OAUTH_KEYS
        and all(isinstance(value, str) for value in body.values()),
        "error_description must keep to RFC 6749's characters": DESCRIPTION.fullmatch(description),
        "Cache-Control must be no-store": response.headers.get("Cache-Control") == "no-store",
        "Pragma must be no-cache": response.headers.get("Pragma") == "no-cache",
    }
    _require(response, rules)


def assert_bearer_error(response: Response, error: BearerError | None) -> None:
    """Assert that an endpoint refused its caller with this error: None where no token came.

    They are those of RFC 6750 §3.1, and `insufficient_user_authentication` of RFC 9470 where the login is too old.
    """
    __tracebackhide__ = True
    status = BEARER_STATUSES[error]
    challenges = response.headers.get_list("WWW-Authenticate")
    named: dict[str, str] = dict(re.findall(PARAMETER, "".join(challenges)))
    rules = {
        f"the status must be {status}": response.status_code == status,
        "the body must have a detail and a code": _object(response).keys() >= {"detail", "code"},
        "there must be one Bearer challenge": len(challenges) == 1 and CHALLENGE.fullmatch(challenges[0]),
        "the challenge must name a realm": "realm" in named,
        f"the challenge's error must be {error}": named.get("error") == error,
        "the challenge must name the scope that lacks": "scope" in named or error != "insufficient_scope",
        "the challenge must name max_age": "max_age" in named or error != "insufficient_user_authentication",
        "Cache-Control must be no-store": response.headers.get("Cache-Control") == "no-store",
    }
    _require(response, rules)


async def migrate(url: URL) -> None:
    """Bring a database to the newest migration."""
    async with connect(url) as database:
        await bring_up_to_date(database, url, BACKFILL)


@contextmanager
def new_database(server: URL, options: str = "") -> Iterator[URL]:
    """A PostgreSQL database that is dropped in the end."""
    url = server.set(database=f"bearer_tasks_test_{uuid4().hex}")
    asyncio.run(_execute(server, f'CREATE DATABASE "{url.database}" {options}'))
    try:
        yield url
    finally:
        asyncio.run(_execute(server, f'DROP DATABASE "{url.database}" WITH (FORCE)'))


async def _execute(url: URL, statement: str) -> None:
    async with connect(url, wait=60) as database:
        await database.autocommit(lambda connection: connection.exec_driver_sql(statement))


def _body(response: Response, status: int) -> dict[str, Any]:
    """The JSON object in an answer that must have this status."""
    __tracebackhide__ = True
    _require(response, {f"the status must be {status}": response.status_code == status})
    return _object(response)


def _object(response: Response) -> dict[str, Any]:
    body = response.json() if response.headers.get("Content-Type") == "application/json" else None
    return body if isinstance(body, dict) else {}


def _require(response: Response, rules: Mapping[str, object]) -> None:
    """Raises AssertionError with the rules that do not hold, and the answer."""
    __tracebackhide__ = True
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        head = "\n".join(f"{name}: {value}" for name, value in response.headers.multi_items())
        raise AssertionError(f"{'; '.join(broken)}\n\n{response.status_code}\n{head}\n\n{response.text}")
