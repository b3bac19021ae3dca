"""People who use the service under test."""

from datetime import timedelta
from typing import Any

from fastapi.testclient import TestClient
from httpx2 import Response

from app import SLUG
from app.auth.schemas import SCOPES
from app.db.types import new_id
from app.testing import PASSWORD, Login, add_user, bearer, log_in, register
from tests.conftest import MovableClock, Sql

__all__ = ["PASSWORD", "Login", "add_user", "bearer", "log_in", "register"]

EVERYTHING = " ".join(scope for scope in SCOPES if scope != "admin")
"""The scopes of an ordinary user's login. tests/auth/test_scopes.py has the words."""

EVERY_SCOPE = " ".join(SCOPES)
"""The scopes of an administrator's login."""

REALM = f'Bearer realm="{SLUG}"'
"""The beginning of each challenge. tests/auth/test_bearer.py has the words."""


def refresh(client: TestClient, refresh_token: str, **fields: str) -> Response:
    """Ask for it, whatever comes."""
    return client.post("/auth/token", data={"grant_type": "refresh_token", "refresh_token": refresh_token} | fields)


def refreshed(client: TestClient, refresh_token: str, **fields: str) -> Login:
    return Login.of(refresh(client, refresh_token, **fields))


def sign_up(client: TestClient, username: str = "ada") -> Login:
    """Register, and log in."""
    register(client, username)
    return log_in(client, username)


def create_task(client: TestClient, login: Login, title: str = "Water the plants", **fields: Any) -> dict[str, Any]:
    response = client.post("/tasks/", json={"title": title} | fields, headers=login.headers)
    assert response.status_code == 201, response.text
    task: dict[str, Any] = response.json()
    return task


def faults(response: Response) -> list[list[str]]:
    """The places that a 422 names. It tells no more than these three keys: an `input` would be an echo."""
    assert response.status_code == 422, response.text
    detail = response.json()["detail"]
    assert all(fault.keys() == {"type", "loc", "msg"} for fault in detail)
    return [fault["loc"] for fault in detail]


def add_sessions(sql: Sql, clock: MovableClock, count: int) -> list[str]:
    """Add sessions to the only account, as logins would have made them, the latest a moment ago; their ids."""
    [(user_id,)] = sql("SELECT id FROM users")
    moments = [clock.now - timedelta(milliseconds=count - n) for n in range(count)]
    times = [f"'{moment:%Y-%m-%dT%H:%M:%S.%fZ}'" for moment in moments]
    ids = [new_id(moment) for moment in moments]
    rest = "'2027-01-01T00:00:00.000000Z', '', ''"
    rows = [f"('{id_}', '{user_id}', '', {time}, {time}, {rest})" for id_, time in zip(ids, times, strict=True)]
    columns = "id, user_id, scope, created_at, rotated_at, expires_at, user_agent, ip"
    sql(f"INSERT INTO sessions ({columns}) VALUES {', '.join(rows)}")
    return ids
