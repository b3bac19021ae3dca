"""Scopes: the words, what a session has of them, and what a later version adds."""

import jwt
import pytest
from fastapi.testclient import TestClient

from app.auth.schemas import SCOPES
from tests.conftest import MovableClock, Sql
from tests.support.accounts import (
    EVERY_SCOPE,
    EVERYTHING,
    Login,
    add_user,
    log_in,
    refresh,
    refreshed,
    register,
    sign_up,
)

LATER = "later:scope"


def add_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the service is a later version, which knows one more scope."""
    monkeypatch.setitem(SCOPES, LATER, "What a later version can do.")


def claims_of(token: str) -> dict[str, str]:
    claims: dict[str, str] = jwt.decode(token, options={"verify_signature": False})
    return claims


def introspected(client: TestClient, token: str, login: Login) -> str:
    answer = client.post("/auth/introspect", data={"token": token}, headers=login.headers).json()
    return str(answer["scope"])


def test_the_words() -> None:
    assert list(SCOPES) == ["tasks:read", "tasks:write", "account", "admin"]
    assert EVERYTHING == "tasks:read tasks:write account"


def test_a_session_of_everything_has_later_scopes(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    login = sign_up(client)
    add_scope(monkeypatch)

    successor = refreshed(client, login.refresh_token)

    assert login.scope == EVERYTHING
    assert successor.scope == claims_of(successor.access_token)["scope"] == f"{EVERYTHING} {LATER}"
    assert refreshed(client, successor.refresh_token, scope=LATER).scope == LATER
    assert introspected(client, login.access_token, login) == EVERYTHING


def test_the_words_of_the_login_stay_for_older_processes(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, sql: Sql
) -> None:
    """A process of the version before must understand both."""
    login = sign_up(client)
    add_scope(monkeypatch)

    successor = refreshed(client, login.refresh_token)

    assert claims_of(successor.refresh_token)["scope"] == EVERYTHING
    assert sql("SELECT scope FROM sessions") == [(EVERYTHING,)]
    assert introspected(client, successor.refresh_token, successor) == f"{EVERYTHING} {LATER}"


def test_a_repeat_is_the_same_refresh_token_in_both_versions(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, clock: MovableClock
) -> None:
    login = sign_up(client)
    before = refreshed(client, login.refresh_token)
    add_scope(monkeypatch)
    clock.move(seconds=5)

    after = refreshed(client, login.refresh_token)

    assert after.refresh_token == before.refresh_token
    assert (before.scope, after.scope) == (EVERYTHING, f"{EVERYTHING} {LATER}")


@pytest.mark.parametrize("scope", [EVERYTHING, "tasks:read"])
def test_a_session_of_named_scopes_has_no_later_ones(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    register(client)
    login = log_in(client, scope=scope)
    add_scope(monkeypatch)

    refused = refresh(client, login.refresh_token, scope=LATER)

    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")
    assert refreshed(client, login.refresh_token).scope == scope


def test_a_session_from_before_the_column_has_what_it_names(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, sql: Sql
) -> None:
    login = sign_up(client)
    sql("UPDATE sessions SET has_every_scope = FALSE")
    add_scope(monkeypatch)

    assert refreshed(client, login.refresh_token).scope == EVERYTHING


def test_everything_includes_admin_only_if_the_login_did(client: TestClient, sql: Sql) -> None:
    """A promotion holds from the next login."""
    login = sign_up(client)
    sql("UPDATE users SET is_admin = TRUE")

    refused = refresh(client, login.refresh_token, scope="admin")

    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")
    assert refreshed(client, login.refresh_token).scope == EVERYTHING
    assert log_in(client).scope == EVERY_SCOPE


def test_a_demotion_ends_a_session_of_everything_that_had_admin(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "root", "ada":
        add_user(client, name, is_admin=True)
    root, ada = log_in(client, "root"), log_in(client)
    ada_id = claims_of(ada.access_token)["sub"]
    add_scope(monkeypatch)
    ada = refreshed(client, ada.refresh_token)
    assert set(ada.scope.split()) == set(SCOPES)

    assert client.patch(f"/users/{ada_id}", json={"is_admin": False}, headers=root.headers).status_code == 200

    assert client.get("/users/me", headers=ada.headers).status_code == 401
    assert refresh(client, ada.refresh_token).json()["detail"] == "The user is no longer an administrator"


def test_a_former_administrator_has_the_later_scopes_of_others(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, sql: Sql
) -> None:
    """The refresh looks at the user."""
    add_user(client, "ada", is_admin=True)
    login = log_in(client)
    sql("UPDATE users SET is_admin = FALSE")
    add_scope(monkeypatch)

    assert refreshed(client, login.refresh_token).scope == f"{EVERYTHING} {LATER}"


def test_an_unknown_scope_of_a_session_uses_nothing_up(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, clock: MovableClock
) -> None:
    """During an upgrade, a process of the version before may get the refresh."""
    register(client)
    with monkeypatch.context() as patch:
        add_scope(patch)
        login = log_in(client, scope=LATER)

    refused = refresh(client, login.refresh_token)
    clock.move(minutes=1)

    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")
    add_scope(monkeypatch)
    assert refreshed(client, login.refresh_token).scope == LATER
