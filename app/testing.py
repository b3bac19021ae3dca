"""A pytest kit for teams that build on the service. A conftest.py loads it: `pytest_plugins = ["app.testing"]`.

Each test has its own service and its own migrated database. The clock stands still until the test moves it. To hash a
password costs nothing. The database is SQLite, or PostgreSQL on the server of TEST_DATABASE_URL, where the kit touches
only databases that it has made. No setting comes from the environment or from a .env file.

The kit is no entry point of pytest: its fixtures have plain names, and every suite of the environment would get them.
PYTEST_DONT_REWRITE: a conftest may import from this module before pytest can rewrite it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any, Final, Literal, NamedTuple, Self, cast

import pytest
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic_settings import SettingsConfigDict
from pyotp import TOTP

from app.auth.passwords import Cost
from app.config import Settings
from app.main import create_app
from app.users.accounts import Administration
from app.users.schemas import NewUser

pytest_plugins = ["app.db.testing", "app.mail.testing"]

SECRET: Final = "a-key-for-tests-only-0123456789abcdef"  # noqa: S105
PASSWORD: Final = "correct horse battery"  # noqa: S105
CHEAP: Final = Cost(memory=8, passes=1)
PARAMETER = r'([a-z_]+)="([^"\\]*)"'
CHALLENGE = re.compile(f"Bearer {PARAMETER}(, {PARAMETER})*")
OTHER_STATUSES: Final = {"invalid_request": 400, "insufficient_scope": 403}

BearerError = Literal["invalid_request", "invalid_token", "insufficient_scope", "insufficient_user_authentication"]
MakeApp = Callable[[Settings], FastAPI]
Serve = Callable[..., TestClient]
LogIn = Callable[..., "Login"]


class GivenSettings(Settings):
    """Settings without any other source. An unknown name is refused."""

    model_config = SettingsConfigDict(extra="forbid")

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[Any, ...]:
        return (sources["init_settings"],)


class MovableClock:
    """A clock that stands still until a test moves it."""

    now = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        """Move by a timedelta's keywords: `clock.move(minutes=30)`."""
        self.now += timedelta(**by)


class User(NamedTuple):
    """A registered user."""

    username: str
    password: str


class Login(NamedTuple):
    """The tokens of a login."""

    access_token: str
    refresh_token: str
    scope: str

    @property
    def headers(self) -> dict[str, str]:
        return bearer(self.access_token)

    @classmethod
    def of(cls, response: Response) -> Self:
        """Read an answer of the token endpoint."""
        body = _body(response, 200)
        return cls(body["access_token"], body["refresh_token"], body["scope"])


@pytest.fixture
def clock() -> MovableClock:
    """The service's clock: `clock.move(minutes=30)`, and an access token has expired."""
    return MovableClock()


@pytest.fixture
def settings(database_url: str) -> Settings:
    """The default settings, with a database and a secret. Override it to change them."""
    return GivenSettings(database_url=database_url, secret_key=SECRET)


@pytest.fixture
def make_app(clock: MovableClock) -> MakeApp:
    """Make the app from settings. Override it to add your routes."""
    return lambda settings: create_app(settings, clock=clock, password_cost=CHEAP)


@pytest.fixture
def serve(request: pytest.FixtureRequest, settings: Settings, make_app: MakeApp) -> Iterator[Serve]:
    """Start a service with other settings on the same database: `serve(refresh_grace=0)`."""
    mailbox = request.getfixturevalue("mailbox") if "mailbox" in request.fixturenames else None
    with ExitStack() as stack:

        def start(**changes: Any) -> TestClient:
            if mailbox is not None:
                changes = {"smtp_url": None, "mail_hook": mailbox.put} | changes
            changed = type(settings).model_validate(settings.model_dump() | changes) if changes else settings
            client = stack.enter_context(TestClient(make_app(changed)))
            if mailbox is not None:
                mailbox.clients.append(client)
            return client

        yield start


@pytest.fixture
def client(serve: Serve) -> TestClient:
    """A client of the service."""
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
    """Log a user in: `login(user)`, or `login(user, scope="tasks:read")` for fewer scopes."""
    return lambda user, **fields: log_in(client, user.username, user.password, **fields)


@pytest.fixture
def totp(client: TestClient, clock: MovableClock, login: LogIn) -> Callable[[User], str]:
    """Set up a user's second factor once, and return the present code: `login(user, otp=totp(user))`."""

    @cache
    def set_up(user: User) -> TOTP:
        headers = login(user).headers
        factor = TOTP(_body(client.post("/users/me/totp", headers=headers), 201)["secret"])
        code = factor.at(clock() - timedelta(seconds=30))  # the present one stays unused
        _body(client.put("/users/me/totp", json={"code": code}, headers=headers), 200)
        return factor

    return lambda user: set_up(user).at(clock())


@pytest.fixture
def token(client: TestClient, login: LogIn) -> Callable[..., str]:
    """Make a personal token: `bearer(token(user, scope="tasks:read"))`. `otp` is for the login that this takes."""

    def make(user: User, otp: str = "", **fields: Any) -> str:
        body = {"name": "test"} | fields
        answer = client.post("/auth/tokens", json=body, headers=login(user, otp=otp).headers)
        return str(_body(answer, 201)["token"])

    return make


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a token (RFC 6750 §2.1)."""
    return {"Authorization": f"Bearer {token}"}


def register(client: TestClient, username: str = "ada", **fields: Any) -> dict[str, Any]:
    """Register a user, and return the answer's body."""
    return _body(client.post("/users", json={"username": username, "password": PASSWORD} | fields), 201)


def add_user(client: TestClient, username: str, *, is_admin: bool = False) -> None:
    """Add a user. The name may be reserved, and the user an administrator."""
    services, portal = cast("FastAPI", client.app).state.services, cast("BlockingPortal", client.portal)
    administration = Administration(services, services.database, services.clock())
    portal.call(partial(administration.add, NewUser(username=username, password=PASSWORD), is_admin=is_admin))


def log_in(client: TestClient, username: str = "ada", password: str = PASSWORD, **fields: str) -> Login:
    return Login.of(client.post("/auth/token", data={"username": username, "password": password} | fields))


def assert_bearer_error(response: Response, error: BearerError | None) -> None:
    """Assert that an endpoint refused its caller with this error of RFC 6750 §3.1 or RFC 9470. None: no token came."""
    __tracebackhide__ = True
    status = OTHER_STATUSES.get(error or "", 401)
    challenges = response.headers.get_list("WWW-Authenticate")
    named: dict[str, str] = dict(re.findall(PARAMETER, "".join(challenges)))
    rules = {
        f"the status must be {status}": response.status_code == status,
        "the body must have a detail and a code": json_object(response).keys() >= {"detail", "code"},
        "there must be one Bearer challenge": len(challenges) == 1 and CHALLENGE.fullmatch(challenges[0]),
        "the challenge must name a realm": "realm" in named,
        f"the challenge's error must be {error}": named.get("error") == error,
        "the challenge must name the scope that lacks": "scope" in named or error != "insufficient_scope",
        "the challenge must name max_age": "max_age" in named or error != "insufficient_user_authentication",
        "Cache-Control must be no-store": response.headers.get("Cache-Control") == "no-store",
    }
    require(response, rules)


def _body(response: Response, status: int) -> dict[str, Any]:
    """Return the JSON object of an answer that must have this status."""
    __tracebackhide__ = True
    require(response, {f"the status must be {status}": response.status_code == status})
    return json_object(response)


def json_object(response: Response) -> dict[str, Any]:
    body = response.json() if response.headers.get("Content-Type") == "application/json" else None
    return body if isinstance(body, dict) else {}


def require(response: Response, rules: Mapping[str, object]) -> None:
    """Raise AssertionError with the broken rules and the answer, if there are any."""
    __tracebackhide__ = True
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        head = "\n".join(f"{name}: {value}" for name, value in response.headers.multi_items())
        raise AssertionError(f"{'; '.join(broken)}\n\n{response.status_code}\n{head}\n\n{response.text}")
