"""Users with a second factor, and their authenticator apps."""

from datetime import datetime, timedelta
from typing import NamedTuple

import httpx2
from fastapi.testclient import TestClient
from pyotp import TOTP

from app.clock import utc_now
from tests.support.accounts import Login, bearer


class Factor(NamedTuple):
    secret: str
    recovery_codes: list[str]

    def code(self, now: datetime, steps: int = 0) -> str:
        """The code of the authenticator app, or that of some steps of 30 seconds later."""
        return TOTP(self.secret).at(now + timedelta(seconds=30 * steps))


def set_up(client: TestClient, login: Login) -> str:
    """Ask for a secret."""
    response = client.post("/users/me/totp", headers=login.headers)
    assert response.status_code == 201, response.text
    return str(response.json()["secret"])


def activate(client: TestClient, login: Login, now: datetime) -> Factor:
    """Set up a second factor, and activate it with the code of the step before: the present one stays unused."""
    secret = set_up(client, login)
    code = Factor(secret, []).code(now, -1)
    response = client.put("/users/me/totp", json={"code": code}, headers=login.headers)
    assert response.status_code == 200, response.text
    return Factor(secret, response.json()["recovery_codes"])


def protect(url: str, access_token: str) -> Factor:
    """Give a user of a service with a real clock a second factor. Its present code stays unused."""
    headers = bearer(access_token)
    secret = httpx2.post(f"{url}/users/me/totp", headers=headers).raise_for_status().json()["secret"]
    code = {"code": Factor(secret, []).code(utc_now(), -1)}
    activation = httpx2.put(f"{url}/users/me/totp", json=code, headers=headers).raise_for_status()
    return Factor(secret, activation.json()["recovery_codes"])
