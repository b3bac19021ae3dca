"""Users with a second factor, and their authenticator apps."""

from datetime import datetime, timedelta
from typing import NamedTuple

from fastapi.testclient import TestClient
from pyotp import TOTP

from tests.support.accounts import Login


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
