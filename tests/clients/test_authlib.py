"""Authlib as it comes, on requests and on httpx (security.md E1 to E3)."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.integrations.requests_client import OAuth2Session

from app.clock import utc_now
from tests.support import races
from tests.support.accounts import EVERYTHING, bearer
from tests.support.second_factor import protect

Connect = Callable[..., Any]

# Authlib takes a token for expired a minute before its end: with this it uses one of half a minute.
TO_THE_END = {"leeway": 0}


@pytest.fixture(params=[OAuth2Session, OAuth2Client], ids=["requests", "httpx"])
def make(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Make a client of Authlib's, closed in the end."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(request.param(**options))


@pytest.fixture
def connect(make: Connect, url: str) -> Connect:
    """Make a client that knows the token endpoint."""
    return lambda **options: make(token_endpoint=f"{url}/auth/token", **options)


def titles(answer: Any) -> list[str]:
    """Of tasks: both HTTP libraries' answers read alike."""
    return [task["title"] for task in answer.json()["items"]]


@pytest.mark.parametrize(
    "client",
    [
        pytest.param({}, id="no client"),
        pytest.param({"client_id": "web"}, id="public client"),
        pytest.param({"client_id": "web", "client_secret": "s"}, id="HTTP Basic"),
        pytest.param(
            {"client_id": "web", "client_secret": "s", "token_endpoint_auth_method": "client_secret_post"}, id="form"
        ),
    ],
)
def test_any_client_id_logs_in_and_lists_tasks(
    connect: Connect, url: str, ada: dict[str, str], client: dict[str, str]
) -> None:
    session = connect(**client, **TO_THE_END)

    token = session.fetch_token(**ada)

    assert token["scope"] == EVERYTHING
    assert titles(session.get(f"{url}/tasks/mine")) == ["Water the plants"]


def test_a_code_of_a_second_factor_is_one_more_field(connect: Connect, url: str) -> None:
    user = races.register(url)
    factor = protect(url, races.log_in(url, user)["access_token"])
    session = connect(**TO_THE_END)

    with pytest.raises(OAuthError) as caught:
        session.fetch_token(**user)
    session.fetch_token(**user, otp=factor.code(utc_now()))

    assert caught.value.error == "mfa_required"
    assert session.get(f"{url}/tasks/mine").status_code == 200


def test_a_personal_token_goes_where_an_access_token_goes(connect: Connect, url: str) -> None:
    user = races.register(url)
    headers = bearer(races.log_in(url, user)["access_token"])
    made = httpx2.post(f"{url}/auth/tokens", json={"name": "script"}, headers=headers).raise_for_status().json()
    session = connect(token={"access_token": made["token"], "token_type": "bearer"})

    answer = session.get(f"{url}/tasks/mine")
    about = session.introspect_token(f"{url}/auth/introspect", token=made["token"], auth=session.token_auth).json()
    session.revoke_token(f"{url}/auth/revoke", token=made["token"])

    assert answer.status_code == 200
    assert (about["active"], about["scope"]) == (True, made["scope"])
    assert session.get(f"{url}/tasks/mine").status_code == 401


@pytest.mark.rfc("6749", "5.2")
@pytest.mark.parametrize(
    ("change", "error"),
    [
        pytest.param({"password": "wrong horse battery"}, "invalid_grant", id="wrong password"),
        pytest.param({"username": "nobody"}, "invalid_grant", id="unknown user"),
        pytest.param({"password": ""}, "invalid_request", id="missing field"),
        pytest.param({"grant_type": "client_credentials"}, "unsupported_grant_type", id="unknown grant"),
        pytest.param({"scope": "tasks:all"}, "invalid_scope", id="unknown scope"),
        pytest.param({"scope": "admin"}, "invalid_scope", id="scope of others"),
        pytest.param(
            {"headers": {"Content-Type": "multipart/form-data; boundary=none"}},
            "invalid_request",
            id="malformed multipart",
        ),
    ],
)
def test_a_refused_login_raises_its_code_and_leaves_no_token(
    connect: Connect, ada: dict[str, str], change: dict[str, Any], error: str
) -> None:
    session = connect()

    with pytest.raises(OAuthError) as caught:
        session.fetch_token(**ada | change)

    assert caught.value.error == error
    assert caught.value.description
    assert session.token is None


def test_a_used_refresh_token_raises_and_ends_the_session(connect: Connect, url: str, ada: dict[str, str]) -> None:
    session = connect(**TO_THE_END)
    used = session.fetch_token(**ada)["refresh_token"]
    session.refresh_token()

    with pytest.raises(OAuthError) as caught:
        session.refresh_token(refresh_token=used)

    assert caught.value.error == "invalid_grant"
    assert session.get(f"{url}/tasks/mine").status_code == 401


def test_a_wider_scope_on_refresh_raises_and_keeps_the_token(connect: Connect, ada: dict[str, str]) -> None:
    session = connect(scope="tasks:read")
    session.fetch_token(**ada)

    with pytest.raises(OAuthError) as caught:
        session.refresh_token(scope="tasks:read tasks:write")

    assert caught.value.error == "invalid_scope"
    assert session.refresh_token()["scope"] == "tasks:read"


def test_a_token_about_to_expire_refreshes_and_is_saved(connect: Connect, url: str, ada: dict[str, str]) -> None:
    saved: list[dict[str, Any]] = []
    session = connect(update_token=lambda token, refresh_token: saved.append(dict(token, replaced=refresh_token)))
    login = session.fetch_token(**ada)

    for _ in range(2):
        assert titles(session.get(f"{url}/tasks/mine")) == ["Water the plants"]

    assert [token["replaced"] for token in saved] == [login["refresh_token"], saved[0]["refresh_token"]]
    assert titles(connect(token=saved[1]).get(f"{url}/tasks/mine")) == ["Water the plants"]


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_after_it_revokes_either_token_neither_works(
    connect: Connect, url: str, ada: dict[str, str], kind: str
) -> None:
    session = connect(**TO_THE_END)
    session.fetch_token(**ada)

    answer = session.revoke_token(f"{url}/auth/revoke", token=session.token[kind], token_type_hint=kind)

    assert answer.status_code == 200
    refused = session.get(f"{url}/tasks/mine")
    assert (refused.status_code, refused.json()) == (
        401,
        {"detail": "The session was signed out", "code": "invalid_token"},
    )
    with pytest.raises(OAuthError) as caught:
        connect(token=session.token).get(f"{url}/tasks/mine")
    assert caught.value.error == "invalid_grant"


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_introspection_knows_the_tokens_of_the_user(connect: Connect, url: str, ada: dict[str, str], kind: str) -> None:
    session, other = connect(**TO_THE_END), connect(**TO_THE_END)
    session.fetch_token(**ada)
    token = other.fetch_token(**ada)[kind]

    def introspect() -> Any:
        return session.introspect_token(f"{url}/auth/introspect", token=token, auth=session.token_auth).json()

    before = introspect()
    other.revoke_token(f"{url}/auth/revoke")

    assert before["active"] is True
    assert introspect() == {"active": False}


def test_the_metadata_alone_configures_a_client(make: Connect, url: str, ada: dict[str, str]) -> None:
    metadata = httpx2.get(f"{url}/.well-known/oauth-authorization-server").raise_for_status().json()
    session = make(**metadata)
    login = dict(session.fetch_token(**ada))

    listed = titles(session.get(f"{url}/tasks/mine"))
    session.revoke_token(session.metadata["revocation_endpoint"])

    assert listed == ["Water the plants"]
    assert session.token["refresh_token"] != login["refresh_token"]
    with pytest.raises(OAuthError) as caught:
        session.get(f"{url}/tasks/mine")
    assert caught.value.error == "invalid_grant"
