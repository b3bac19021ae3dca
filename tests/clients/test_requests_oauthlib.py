"""requests-oauthlib as it comes (security.md E1 to E3)."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from oauthlib.oauth2 import BackendApplicationClient, Client, LegacyApplicationClient, OAuth2Error
from requests_oauthlib import OAuth2Session

Connect = Callable[..., Any]


@pytest.fixture(autouse=True)
def _over_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


@pytest.fixture
def token_url(url: str) -> str:
    return f"{url}/auth/token"


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make a session of the password grant, closed in the end."""
    with ExitStack() as stack:

        def session(scope: list[str] | None = None, **options: Any) -> Any:
            client = LegacyApplicationClient("web", scope=scope)
            return stack.enter_context(OAuth2Session(client=client, **options))

        yield session


def titles(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [task["title"] for task in answer.json()["items"]]


@pytest.mark.parametrize(
    "client",
    [
        pytest.param({}, id="HTTP Basic without a secret"),
        pytest.param({"client_secret": "s"}, id="HTTP Basic"),
        pytest.param({"client_secret": "s", "include_client_id": True}, id="form"),
    ],
)
def test_any_client_authentication_logs_in_and_lists_tasks(
    connect: Connect, url: str, token_url: str, ada: dict[str, str], client: dict[str, Any]
) -> None:
    session = connect()

    session.fetch_token(token_url, **ada, **client)

    assert titles(session.get(f"{url}/tasks/mine")) == ["Water the plants"]


@pytest.mark.parametrize(
    ("scope", "change", "error"),
    [
        pytest.param(None, {"password": "wrong horse battery"}, "invalid_grant", id="wrong password"),
        pytest.param(None, {"username": "nobody"}, "invalid_grant", id="unknown user"),
        pytest.param(None, {"password": ""}, "invalid_request", id="missing field"),
        pytest.param(["tasks:all"], {}, "invalid_scope", id="unknown scope"),
        pytest.param(["admin"], {}, "invalid_scope", id="scope of others"),
        pytest.param(
            None,
            {"headers": {"Content-Type": "multipart/form-data; boundary=none"}},
            "invalid_request",
            id="malformed multipart",
        ),
    ],
)
def test_a_refused_login_raises_its_code_and_leaves_no_token(
    connect: Connect, token_url: str, ada: dict[str, str], scope: list[str] | None, change: dict[str, Any], error: str
) -> None:
    session = connect(scope)

    with pytest.raises(OAuth2Error) as caught:
        session.fetch_token(token_url, **ada | change)

    assert caught.value.error == error
    assert caught.value.description
    assert session.token == {}


@pytest.mark.rfc("6749", "5.2")
def test_another_grant_raises_its_code(token_url: str) -> None:
    client: Client = BackendApplicationClient("web")

    with OAuth2Session(client=client) as session, pytest.raises(OAuth2Error) as caught:
        session.fetch_token(token_url)

    assert caught.value.error == "unsupported_grant_type"


def test_the_scope_in_the_answer_has_the_words_asked_for(connect: Connect, token_url: str, ada: dict[str, str]) -> None:
    """oauthlib raises a `Warning` for any other."""
    session = connect(["tasks:write", "tasks:read"])

    session.fetch_token(token_url, **ada)
    session.refresh_token(token_url)

    assert sorted(session.token["scope"]) == ["tasks:read", "tasks:write"]


def test_a_used_refresh_token_raises_and_ends_the_session(
    connect: Connect, url: str, token_url: str, ada: dict[str, str]
) -> None:
    session = connect()
    used = session.fetch_token(token_url, **ada)["refresh_token"]
    session.refresh_token(token_url)

    with pytest.raises(OAuth2Error) as caught:
        session.refresh_token(token_url, refresh_token=used)

    assert caught.value.error == "invalid_grant"
    assert session.get(f"{url}/tasks/mine").status_code == 401


@pytest.mark.rfc("6749", "6")
def test_an_expired_token_refreshes_once_and_is_saved(
    connect: Connect, url: str, token_url: str, ada: dict[str, str]
) -> None:
    saved: list[dict[str, Any]] = []
    login = connect().fetch_token(token_url, **ada)
    session = connect(token=dict(login, expires_at=0.1), auto_refresh_url=token_url, token_updater=saved.append)

    for _ in range(2):
        assert titles(session.get(f"{url}/tasks/mine")) == ["Water the plants"]

    assert len(saved) == 1
    assert saved[0]["refresh_token"] != login["refresh_token"]
    assert connect(token=saved[0]).refresh_token(token_url)["expires_in"] == 30


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_after_it_revokes_either_token_neither_works(
    connect: Connect, url: str, token_url: str, ada: dict[str, str], kind: str
) -> None:
    session = connect()
    token = session.fetch_token(token_url, **ada)[kind]
    revoke_url, headers, body = LegacyApplicationClient("web").prepare_token_revocation_request(
        f"{url}/auth/revoke", token, token_type_hint=kind
    )

    answer = session.post(revoke_url, data=body, headers=headers, withhold_token=True)

    assert answer.status_code == 200
    assert session.get(f"{url}/tasks/mine").status_code == 401
    with pytest.raises(OAuth2Error) as caught:
        session.refresh_token(token_url)
    assert caught.value.error == "invalid_grant"
