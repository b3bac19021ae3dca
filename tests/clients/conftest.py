"""One service, as people run it, for the clients that people use."""

import gc
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.conftest import SECRET
from tests.support.accounts import PASSWORD, bearer
from tests.support.processes import free_port, serving


@pytest.fixture(scope="package")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service whose access tokens live for half a minute, and whose refresh tokens are good once and no more."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings: dict[str, Any] = {
        "database_url": f"sqlite:///{tmp_path_factory.mktemp('clients')}/tasks.db",
        "secret_key": SECRET,
        "public_url": url,
        "access_token_ttl": 30,
        "refresh_grace": 0,
    }
    with serving(port=port, **settings):
        yield url
        gc.collect()  # requests-oauthlib's errors hold connections, whose end the service would wait for


@pytest.fixture(scope="package")
def ada(url: str) -> dict[str, str]:
    """A user's credentials; one task is hers. Each test logs in for itself."""
    user = {"username": "ada", "password": PASSWORD}
    httpx2.post(f"{url}/users", json=user).raise_for_status()
    token = httpx2.post(f"{url}/auth/token", data=user).raise_for_status().json()["access_token"]
    httpx2.post(f"{url}/tasks/", json={"title": "Water the plants"}, headers=bearer(token)).raise_for_status()
    return user
