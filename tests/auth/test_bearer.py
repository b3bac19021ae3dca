"""RFC 6750 on every operation: who calls without a token, with a bad one, or without the scope."""

from collections.abc import Iterator
from typing import Any, cast

import httpx2
import pytest
from anyio.from_thread import BlockingPortal
from fastapi.testclient import TestClient
from httpx2 import Response

from tests.conftest import MovableClock, Serve, Sql, on_one_database
from tests.support.accounts import (
    PASSWORD,
    REALM,
    Login,
    bearer,
    create_task,
    log_in,
    refresh,
    refreshed,
    register,
    sign_up,
)

pytestmark = on_one_database

Operation = tuple[str, str]

NOT_VALID = "The access token is not valid"
ID = "01a208f7-1a8a-7be3-842c-3f4269f2551d"

OPEN: set[Operation] = {
    ("post", "/auth/token"),
    ("post", "/auth/revoke"),
    ("post", "/auth/introspect"),  # asks for a token, and answers as the form endpoints do
    ("get", "/.well-known/oauth-authorization-server"),
    ("get", "/.well-known/jwks.json"),
    ("post", "/users"),
    ("post", "/users/reset-password"),
    ("post", "/users/verify-email"),
    ("post", "/users/forgot-password"),
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("get", "/metrics"),
}
OPTIONAL: set[Operation] = {("get", "/tasks"), ("get", "/tasks/public"), ("get", "/tasks/{}")}
SCOPES: dict[Operation, str] = {
    ("get", "/tasks"): "tasks:read",
    ("get", "/tasks/mine"): "tasks:read",
    ("get", "/tasks/public"): "tasks:read",
    ("get", "/tasks/{}"): "tasks:read",
    ("post", "/tasks"): "tasks:write",
    ("patch", "/tasks/{}"): "tasks:write",
    ("delete", "/tasks/{}"): "tasks:write",
    ("get", "/auth/sessions"): "account",
    ("delete", "/auth/sessions"): "account",
    ("delete", "/auth/sessions/{}"): "account",
    ("get", "/auth/tokens"): "account",
    ("post", "/auth/tokens"): "account",
    ("delete", "/auth/tokens/{}"): "account",
    ("get", "/users/me"): "account",
    ("patch", "/users/me"): "account",
    ("delete", "/users/me"): "account",
    ("put", "/users/me/password"): "account",
    ("get", "/users/me/events"): "account",
    ("get", "/users/me/export"): "account",
    ("post", "/users/me/totp"): "account",
    ("put", "/users/me/totp"): "account",
    ("delete", "/users/me/totp"): "account",
    ("post", "/users/me/verify-email"): "account",
    ("get", "/users"): "admin",
    ("get", "/users/{}"): "admin",
    ("patch", "/users/{}"): "admin",
    ("delete", "/users/{}"): "admin",
    ("delete", "/users/{}/sessions"): "admin",
    ("delete", "/users/{}/totp"): "admin",
    ("post", "/users/{}/reset-token"): "admin",
    ("post", "/users/{}/unlock"): "admin",
}


def operations(client: TestClient) -> Iterator[tuple[str, str, str]]:
    """Every operation of SCOPES as a method, a path with its parameters unnamed, and a URL.

    A list has two URLs, as it answers with a slash at its end too.
    """
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        unnamed = "/".join("{}" if part.startswith("{") else part for part in path.split("/"))
        for method, operation in methods.items():
            if (method, unnamed) not in OPEN:
                is_list = any(parameter["name"] == "cursor" for parameter in operation.get("parameters", ()))
                for url in (unnamed, f"{unnamed}/") if is_list else (unnamed.format(ID),):
                    yield method, unnamed, url


def assert_not_authenticated(response: Response) -> None:
    assert (response.status_code, response.json()) == (
        401,
        {"detail": "Not authenticated", "code": "not_authenticated"},
    )
    assert response.headers.get_list("WWW-Authenticate") == [REALM]


def assert_invalid_token(response: Response, detail: str = NOT_VALID) -> None:
    assert (response.status_code, response.json()) == (401, {"detail": detail, "code": "invalid_token"})
    challenge = f'{REALM}, error="invalid_token", error_description="{detail}"'
    assert response.headers.get_list("WWW-Authenticate") == [challenge]


def assert_refused(client: TestClient, token: str, detail: str = NOT_VALID) -> None:
    """On a strict route, and on an optional one: who came with a token must not see the public view."""
    assert_invalid_token(client.get("/tasks/mine", headers=bearer(token)), detail)
    assert_invalid_token(client.get("/tasks/", headers=bearer(token)), detail)


def test_the_realm() -> None:
    assert REALM == 'Bearer realm="bearer-tasks"'


def test_the_tables_have_every_operation(client: TestClient) -> None:
    missing = {(method, path) for method, path, _ in operations(client)} - SCOPES.keys()

    assert not missing, (
        f"tests/auth/test_bearer.py lacks {sorted(missing)}: add each to SCOPES with the scope that it asks for, "
        "and to OPTIONAL if it answers without a token too; or to OPEN if it takes no token"
    )


@pytest.mark.rfc("6750", "3.1")
def test_every_operation_but_the_open_ones_asks_for_a_token(client: TestClient, subtests: pytest.Subtests) -> None:
    for method, path, url in operations(client):
        if (method, path) not in OPTIONAL:
            with subtests.test(f"{method} {url}"):
                assert_not_authenticated(client.request(method, url))


@pytest.mark.rfc("6750", "3")
def test_every_operation_refuses_a_bad_token(client: TestClient, subtests: pytest.Subtests) -> None:
    for method, _, url in operations(client):
        with subtests.test(f"{method} {url}"):
            assert_invalid_token(client.request(method, url, headers=bearer("x.y.z")))


@pytest.mark.rfc("6750", "3.1")
def test_every_operation_asks_for_its_scope(client: TestClient, subtests: pytest.Subtests) -> None:
    register(client)
    everything = log_in(client).scope.split()
    everything_but = {
        needed: log_in(client, scope=" ".join(scope for scope in everything if scope != needed))
        for needed in sorted(set(SCOPES.values()))
    }

    for method, path, url in operations(client):
        needed = SCOPES.get((method, path))
        if needed:
            with subtests.test(f"{method} {url}"):
                response = client.request(method, url, headers=everything_but[needed].headers)

                assert response.status_code == 403
                assert response.json() == {
                    "detail": f"The access token lacks the scope {needed}",
                    "code": "insufficient_scope",
                }
                challenge = f'{REALM}, error="insufficient_scope", scope="{needed}"'
                assert response.headers.get_list("WWW-Authenticate") == [challenge]


@pytest.mark.rfc("6750", "2.1")
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_the_scheme_is_known_in_any_letter_case(client: TestClient, scheme: str) -> None:
    login = sign_up(client)

    response = client.get("/tasks/mine", headers={"Authorization": scheme + login.access_token})

    assert response.status_code == 200


def test_white_space_unknown_to_http_is_part_of_the_token(client: TestClient) -> None:
    """Python strips NEL and no-break spaces too. TestClient sends them as UTF-8 only."""
    token = sign_up(client).access_token.encode()
    portal, transport = cast("BlockingPortal", client.portal), httpx2.ASGITransport(client.app)

    async def get(url: str, header: bytes) -> Response:
        async with httpx2.AsyncClient(transport=transport, base_url=client.base_url) as raw:
            return await raw.get(url, headers={b"Authorization": header})

    assert portal.call(get, "/tasks/mine", b"Bearer " + token).status_code == 200
    for header in b"Bearer " + token + b"\x85", b"Bearer \xa0" + token:
        for url in "/tasks/mine", "/tasks/":
            assert_invalid_token(portal.call(get, url, header))


@pytest.mark.rfc("6750", "3.1")
def test_two_authorization_headers_are_a_malformed_request(client: TestClient) -> None:
    """RFC 6750 §3.1: a proxy and we could each read another one."""
    good = f"Bearer {sign_up(client).access_token}"

    for url in "/tasks/mine", "/tasks/":
        for first, second in (good, good), (good, "Bearer x.y.z"), ("Basic Og==", good), (good, ""):
            response = client.get(url, headers=[("Authorization", first), ("Authorization", second)])

            assert (response.status_code, response.json()) == (
                400,
                {"detail": "Several Authorization headers", "code": "repeated_credentials"},
            )
            assert response.headers.get_list("WWW-Authenticate") == [f'{REALM}, error="invalid_request"']


@pytest.mark.rfc("6750", "2.2")
@pytest.mark.rfc("6750", "2.3")
@pytest.mark.rfc("9700", "4.3")
def test_a_token_elsewhere_is_no_token(client: TestClient, subtests: pytest.Subtests) -> None:
    login = sign_up(client)
    public = create_task(client, login, is_public=True)
    create_task(client, login)
    token = {"access_token": login.access_token}
    elsewhere: dict[str, dict[str, Any]] = {
        "nowhere": {},
        "query": {"params": token},
        "form": {"data": token},
        "cookie": {"headers": {"Cookie": f"access_token={login.access_token}"}},
        "another scheme": {"headers": {"Authorization": f"Token {login.access_token}"}},
        "basic": {"headers": {"Authorization": "Basic YWRhOmNvcnJlY3QgaG9yc2UgYmF0dGVyeQ=="}},
        "no scheme": {"headers": {"Authorization": login.access_token}},
        "empty header": {"headers": {"Authorization": ""}},
    }

    for name, request in elsewhere.items():
        with subtests.test(name):
            assert_not_authenticated(client.request("GET", "/tasks/mine", **request))
            anonymous = client.request("GET", "/tasks/", **request)
            if name == "query":  # there is no such parameter
                assert anonymous.status_code == 422
            else:
                assert anonymous.json()["items"] == [public]
    assert_not_authenticated(client.post("/tasks/", data=token))


@pytest.mark.rfc("6750", "3.1")
def test_a_token_that_is_none_of_ours_is_not_valid(client: TestClient, serve: Serve, subtests: pytest.Subtests) -> None:
    login = sign_up(client)
    head, payload, signature = login.access_token.split(".")
    wrong = {
        "empty": "",
        "garbage": "garbage",
        "not ASCII": "é.é.é",
        "two": f"{login.access_token} {login.access_token}",
        "too long": f"{head}.{payload}.{'A' * 5000}",
        "refresh token": login.refresh_token,
        "another payload": f"{head}.{log_in(client).access_token.split('.')[1]}.{signature}",
        "no signature": f"{head}.{payload}.",
        "another key": log_in(serve(secret_key="some-other-key-of-32-bytes-or-more!")).access_token,
        "another issuer": log_in(serve(public_url="https://tasks.example.org")).access_token,
    }

    for name, token in wrong.items():
        with subtests.test(name):
            for url in "/tasks/mine", "/tasks/":
                assert_invalid_token(client.get(url, headers={b"Authorization": f"Bearer {token}".encode()}))


def test_a_token_is_good_for_thirty_minutes(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)

    clock.move(seconds=1799.999)
    assert client.get("/tasks/mine", headers=login.headers).status_code == 200

    clock.move(seconds=0.001)
    assert_refused(client, login.access_token, "The access token has expired")


def test_a_refresh_leaves_the_earlier_token_good(client: TestClient) -> None:
    login = sign_up(client)

    refreshed(client, login.refresh_token)

    assert client.get("/tasks/mine", headers=login.headers).status_code == 200


@pytest.mark.rfc("7009", "2")
def test_a_revoked_session_takes_its_tokens_along(client: TestClient) -> None:
    login = sign_up(client)
    later = refreshed(client, login.refresh_token)

    client.post("/auth/revoke", data={"token": login.refresh_token})

    assert_refused(client, login.access_token, "The session was signed out")
    assert_refused(client, later.access_token, "The session was signed out")


def test_a_reused_refresh_token_takes_the_tokens_along(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)
    later = refreshed(client, login.refresh_token)
    client.get("/tasks/mine", headers=later.headers)
    clock.move(minutes=1)

    refresh(client, login.refresh_token)

    assert_refused(client, later.access_token, "The session was ended because a replaced refresh token was used again")


def test_an_earlier_end_in_the_database_ends_the_tokens(client: TestClient, sql: Sql) -> None:
    """The row decides how long a session lives, not the token."""
    login = sign_up(client)

    sql("UPDATE sessions SET expires_at = '2026-11-23T09:00:00.000000Z'")

    assert_refused(client, login.access_token, "The session has expired")


def test_a_changed_password_ends_the_other_sessions_at_once(client: TestClient) -> None:
    login, other, bob = sign_up(client), log_in(client), sign_up(client, "bob")
    change = {"current_password": PASSWORD, "new_password": "a better horse"}

    renewed = Login.of(client.put("/users/me/password", json=change, headers=login.headers))

    assert_refused(client, other.access_token, "The password was changed")
    assert client.get("/tasks/mine", headers=renewed.headers).status_code == 200
    assert client.get("/tasks/mine", headers=bob.headers).status_code == 200


def test_a_disabled_user_is_refused_at_once_and_let_in_again(client: TestClient, sql: Sql) -> None:
    login = sign_up(client)

    sql("UPDATE users SET is_active = FALSE")
    assert_refused(client, login.access_token, "The user is disabled")

    sql("UPDATE users SET is_active = TRUE")
    assert client.get("/tasks/mine", headers=login.headers).status_code == 200


@pytest.mark.rfc("7519", "4.1.2")
def test_a_deleted_user_is_refused_and_a_namesake_is_not(client: TestClient) -> None:
    login = sign_up(client)
    assert client.delete("/users/me", headers=login.headers).status_code == 204

    sign_up(client)

    assert_refused(client, login.access_token)
