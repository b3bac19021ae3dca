"""HEAD equals GET without the body (RFC 9110 §9.3.2)."""

import pytest
from fastapi.testclient import TestClient

from tests.conftest import on_one_database
from tests.support.accounts import create_task, log_in, sign_up

pytestmark = on_one_database


def assert_equals_get(client: TestClient, url: str, status: int, headers: dict[str, str] | None = None) -> None:
    head, get = client.head(url, headers=headers), client.get(url, headers=headers)

    assert (head.status_code, head.content) == (status, b"")
    assert get.status_code == status
    assert head.headers.multi_items() == get.headers.multi_items()


@pytest.mark.rfc("9110", "9.3.2")
def test_head_has_the_status_and_headers_of_get(client: TestClient) -> None:
    login = sign_up(client)
    task, _ = create_task(client, login, is_public=True), create_task(client, login)
    url = f"/tasks/{task['id']}"
    etag = client.get(url).headers["ETag"]
    cases: list[tuple[str, int, dict[str, str]]] = [
        ("/health/live", 200, {}),
        ("/.well-known/jwks.json", 200, {}),
        ("/docs", 200, {}),
        ("/tasks/", 200, {}),
        ("/tasks/?limit=1", 200, login.headers),
        (url, 200, {}),
        (url, 200, login.headers),
        (url, 304, {"If-None-Match": etag}),
        ("/tasks/mine", 401, {}),
        ("/tasks/", 401, {"Authorization": "Bearer garbage"}),
        ("/users/me", 403, log_in(client, scope="tasks:read").headers),
        ("/tasks/01a208f7-1a8a-7be3-842c-3f4269f2551d", 404, {}),
        ("/nowhere", 404, {}),
        ("/tasks/?limit=0", 422, {}),
    ]

    for path, status, headers in cases:
        assert_equals_get(client, path, status, headers)

    assert 'rel="next"' in client.head("/tasks/?limit=1", headers=login.headers).headers["Link"]
    assert client.head(url).headers["ETag"] == etag


@pytest.mark.parametrize("url", ["/auth/token", "/auth/revoke", "/auth/introspect"])
def test_head_exists_only_with_get(client: TestClient, url: str) -> None:
    assert_equals_get(client, url, 405)

    assert client.head(url).headers["Allow"] == "POST"


def test_head_leaves_a_change_undone(client: TestClient) -> None:
    login = sign_up(client)
    session = client.get("/auth/sessions", headers=login.headers).json()["items"][0]

    assert_equals_get(client, f"/auth/sessions/{session['id']}", 405, login.headers)

    assert client.get("/auth/sessions", headers=login.headers).status_code == 200
