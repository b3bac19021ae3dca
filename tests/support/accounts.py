"""People who use the service under test."""

from typing import Any

from fastapi.testclient import TestClient
from httpx2 import Response

from app import SLUG
from app.auth.schemas import SCOPES
from app.testing import PASSWORD, Login, add_user, bearer, log_in, register

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
