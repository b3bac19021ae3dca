"""POST /auth/introspect (RFC 7662): what a live token is good for, to its owner and to administrators."""

from collections.abc import Callable
from typing import Any

import jwt
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from tests.conftest import MovableClock, Serve, Sql, on_one_database
from tests.support.accounts import EVERYTHING, REALM, Login, add_user, bearer, log_in, refreshed, sign_up
from tests.support.key_pairs import key, private, written

pytestmark = on_one_database

EPOCH = 1_795_424_400  # 2026-11-23T09:00:00Z, where the clock stands
ISSUER = "http://127.0.0.1:8000"

CODES = {
    "invalid_client": {"not_authenticated"},
    "invalid_token": {"invalid_token"},
    "invalid_request": {"field_required", "invalid_request", "repeated_credentials"},
}


def ask(client: TestClient, token: str, asker: Login, **fields: str) -> Response:
    return client.post("/auth/introspect", data={"token": token} | fields, headers=asker.headers)


def assert_answer(response: Response, body: dict[str, Any]) -> None:
    assert response.status_code == 200
    assert response.json() == body, "a new claim: add it to what about() returns"
    assert (response.headers["Cache-Control"], response.headers["Pragma"]) == ("no-store", "no-cache")


def assert_refused(response: Response, status: int, error: str, detail: str, challenge: list[str]) -> None:
    assert response.status_code == status
    body = response.json()
    assert (body.pop("code") in CODES[error], body) == (
        True,
        {"detail": detail, "error": error, "error_description": detail},
    )
    assert response.headers.get_list("WWW-Authenticate") == challenge
    assert (response.headers["Cache-Control"], response.headers["Pragma"]) == ("no-store", "no-cache")


def administrator(client: TestClient, **fields: str) -> Login:
    add_user(client, "root", is_admin=True)
    return log_in(client, "root", **fields)


def jti(token: str) -> str:
    claim: str = jwt.decode(token, options={"verify_signature": False})["jti"]
    return claim


def about(client: TestClient, login: Login) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answers about the access token and the refresh token of a new login."""
    user = client.get("/users/me", headers=login.headers).json()
    common = {"active": True, "username": "ada", "sub": user["id"], "iss": ISSUER, "aud": ISSUER, "iat": EPOCH}
    common["scope"] = EVERYTHING
    access = {"token_type": "bearer", "jti": jti(login.access_token), "exp": EPOCH + 1800}
    return common | access, common | {"jti": jti(login.refresh_token), "exp": EPOCH + 2_592_000}


def test_the_owner_is_told_about_each_kind_of_token(client: TestClient) -> None:
    login = sign_up(client)
    access, refresh = about(client, login)

    assert_answer(ask(client, login.access_token, login), access)
    assert_answer(ask(client, login.refresh_token, login), refresh)
    assert_answer(ask(client, login.access_token, log_in(client, scope="tasks:read")), access)


def test_an_administrator_is_told_about_anyones(client: TestClient) -> None:
    login, root = sign_up(client), administrator(client)
    access, refresh = about(client, login)

    assert_answer(ask(client, login.access_token, root), access)
    assert_answer(ask(client, login.refresh_token, root), refresh)
    assert ask(client, root.access_token, root).json()["scope"] == root.scope == f"{login.scope} admin"


def test_others_are_told_nothing(client: TestClient, sql: Sql) -> None:
    login = sign_up(client)
    others = [sign_up(client, "bob"), administrator(client, scope="tasks:read account")]
    demoted = log_in(client, "root")
    sql("UPDATE users SET is_admin = FALSE")

    for other in *others, demoted:
        for token in login.access_token, login.refresh_token:
            assert_answer(ask(client, token, other), {"active": False})


def test_a_narrower_scope_is_told(client: TestClient) -> None:
    login = sign_up(client)

    narrowed = refreshed(client, login.refresh_token, scope="tasks:read")

    assert ask(client, narrowed.access_token, login).json()["scope"] == "tasks:read"
    assert ask(client, narrowed.refresh_token, login).json()["scope"] == login.scope


def test_a_scope_that_its_user_has_no_more_is_not_told(client: TestClient, sql: Sql) -> None:
    """A service that asks here would let a former administrator in."""
    root = administrator(client)

    sql("UPDATE users SET is_admin = FALSE")

    assert ask(client, root.access_token, root).json()["scope"] == EVERYTHING


def test_a_token_of_a_key_pair_is_told_about_too(serve: Serve) -> None:
    client = serve(jwt_private_key_file=written(private(key("ES256"))))
    login = sign_up(client)
    access, refresh = about(client, login)

    assert_answer(ask(client, login.access_token, login), access)
    assert_answer(ask(client, login.refresh_token, login), refresh)


ENDINGS: dict[str, Callable[..., object]] = {
    "expired": lambda clock, **_: clock.move(days=30),
    "not issued yet": lambda clock, **_: clock.move(minutes=-5),
    "revoked": lambda client, login, **_: client.post("/auth/revoke", data={"token": login.refresh_token}),
    "disabled": lambda sql, **_: sql("UPDATE users SET is_active = FALSE WHERE username = 'ada'"),
    "deleted": lambda client, login, **_: client.delete("/users/me", headers=login.headers),
    "cut short": lambda sql, **_: sql("UPDATE sessions SET expires_at = '2026-11-23T09:00:00.000000Z'"),
}


@pytest.mark.rfc("7662", "2.2")
@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_told_of_a_token_that_is_over(
    client: TestClient, clock: MovableClock, sql: Sql, ending: str
) -> None:
    login = sign_up(client)

    ENDINGS[ending](client=client, clock=clock, sql=sql, login=login)

    root = administrator(client)
    assert_answer(ask(client, login.access_token, root), {"active": False})
    assert_answer(ask(client, login.refresh_token, root), {"active": False})


def test_an_access_token_is_live_for_thirty_minutes(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)

    clock.move(seconds=1799.999)
    later = log_in(client)
    assert ask(client, login.access_token, later).json()["active"] is True

    clock.move(seconds=0.001)
    assert_answer(ask(client, login.access_token, later), {"active": False})
    assert ask(client, login.refresh_token, later).json()["active"] is True


def test_a_replaced_refresh_token_is_not_active(client: TestClient) -> None:
    """The access token that was issued with it stays active."""
    login = sign_up(client)

    successor = refreshed(client, login.refresh_token)

    assert_answer(ask(client, login.refresh_token, login), {"active": False})
    assert ask(client, login.access_token, login).json()["active"] is True
    assert ask(client, successor.refresh_token, login).json()["active"] is True


def test_nothing_is_told_of_text_that_is_no_token_of_ours(client: TestClient, serve: Serve) -> None:
    login = sign_up(client)
    head, payload, signature = login.access_token.split(".")
    elsewhere = log_in(serve(secret_key="some-other-key-of-32-bytes-or-more!"))
    tampered = f"{head}.{log_in(client).access_token.split('.')[1]}.{signature}"

    for token in "garbage", "é", "x" * 5000, f"{head}.{payload}.", tampered, elsewhere.access_token:
        assert_answer(ask(client, token, login), {"active": False})


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "saml2", ""])
def test_a_hint_right_or_wrong_changes_nothing(client: TestClient, hint: str) -> None:
    login = sign_up(client)
    access, refresh = about(client, login)

    assert_answer(ask(client, login.access_token, login, token_type_hint=hint), access)
    assert_answer(ask(client, login.refresh_token, login, token_type_hint=hint), refresh)


def test_a_form_of_parts_is_taken(client: TestClient) -> None:
    login = sign_up(client)

    response = client.post("/auth/introspect", files={"token": (None, login.access_token)}, headers=login.headers)

    assert_answer(response, about(client, login)[0])


def test_introspection_needs_an_access_token(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client)
    form = {"token": login.access_token}

    nobody = client.post("/auth/introspect", data=form)
    wrong = client.post("/auth/introspect", data=form, headers=bearer(login.refresh_token))
    twice = client.post("/auth/introspect", data=form, headers=[*login.headers.items(), *login.headers.items()])
    clock.move(minutes=30)
    late = client.post("/auth/introspect", data=form, headers=login.headers)

    assert_refused(nobody, 401, "invalid_client", "Not authenticated", [REALM])
    for response, error, detail in (
        (wrong, "invalid_token", "The access token is not valid"),
        (late, "invalid_token", "The access token has expired"),
    ):
        challenge = f'{REALM}, error="{error}", error_description="{detail}"'
        assert_refused(response, 401, error, detail, [challenge])
    challenge = f'{REALM}, error="invalid_request"'
    assert_refused(twice, 400, "invalid_request", "Several Authorization headers", [challenge])


@pytest.mark.parametrize(
    ("form", "detail"),
    [
        ("token_type_hint=access_token", "token: Field required"),
        ("token=", "token: Field required"),
        ("token=a&token=b", "token: Field sent more than once"),
    ],
)
def test_a_token_that_is_missing_or_repeated_is_refused(client: TestClient, form: str, detail: str) -> None:
    login = sign_up(client)

    response = client.post(
        "/auth/introspect",
        params={"token": login.access_token},
        content=form,
        headers=login.headers | {"Content-Type": "application/x-www-form-urlencoded"},
    )

    assert_refused(response, 400, "invalid_request", detail, [])
