"""People who use the service under test."""

from dataclasses import dataclass
from typing import Any

from fastapi.testclient import TestClient
from httpx2 import Response

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Login:
    """What a login brought."""

    access_token: str
    refresh_token: str
    scope: str

    @property
    def headers(self) -> dict[str, str]:
        return bearer(self.access_token)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def register(client: TestClient, username: str = "ada", **fields: Any) -> dict[str, Any]:
    response = client.post("/users", json={"username": username, "password": PASSWORD} | fields)
    assert response.status_code == 201, response.text
    user: dict[str, Any] = response.json()
    return user


def log_in(client: TestClient, username: str = "ada", password: str = PASSWORD, **fields: str) -> Login:
    response = client.post("/auth/token", data={"username": username, "password": password} | fields)
    assert response.status_code == 200, response.text
    return _login(response.json())


def refresh(client: TestClient, refresh_token: str, **fields: str) -> Response:
    """Ask for it, whatever comes."""
    return client.post("/auth/token", data={"grant_type": "refresh_token", "refresh_token": refresh_token} | fields)


def refreshed(client: TestClient, refresh_token: str, **fields: str) -> Login:
    response = refresh(client, refresh_token, **fields)
    assert response.status_code == 200, response.text
    return _login(response.json())


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


def _login(body: dict[str, Any]) -> Login:
    return Login(body["access_token"], body["refresh_token"], body["scope"])
