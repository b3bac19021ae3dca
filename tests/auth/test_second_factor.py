"""The second factor (RFC 6238): set up, asked for at each login, used once, and removed."""

import json
import logging
import re
from base64 import b64encode
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from app.testing import LogIn, User, assert_bearer_error
from tests.conftest import SECRET, MovableClock, Serve, Sql, on_one_database
from tests.support.accounts import PASSWORD, REALM, Login, add_user, log_in, sign_up
from tests.support.oauth_errors import assert_oauth_error
from tests.support.second_factor import Factor, activate, set_up

REQUIRED = "A one-time code is required"
INVALID = "Invalid one-time code"
OTHER_SECRET, THIRD_SECRET = "another-key-for-tests-0123456789abcdef", "a-third-key-for-tests-0123456789abcdef"


def attempt(client: TestClient, password: str = PASSWORD, **fields: str) -> Response:
    return client.post("/auth/token", data={"username": "ada", "password": password} | fields)


def statuses(client: TestClient, *codes: str) -> list[int]:
    return [attempt(client, otp=code).status_code for code in codes]


def confirm(client: TestClient, login: Login, code: str) -> Response:
    return client.put("/users/me/totp", json={"code": code}, headers=login.headers)


def has_factor(client: TestClient, login: Login) -> bool:
    return bool(client.get("/users/me", headers=login.headers).json()["totp"])


def assert_required(response: Response) -> None:
    assert_oauth_error(response, "mfa_required")
    assert (response.json()["code"], response.json()["detail"]) == ("mfa_required", REQUIRED)


def assert_invalid(response: Response) -> None:
    assert_oauth_error(response, "invalid_grant", 401)
    assert (response.json()["code"], response.json()["detail"]) == ("invalid_one_time_code", INVALID)
    assert response.headers["WWW-Authenticate"] == f'{REALM}, error="invalid_grant"'


def assert_refused(response: Response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["code"]) == (status, code)


@pytest.fixture
def ada(client: TestClient) -> Login:
    return sign_up(client)


@pytest.fixture
def factor(client: TestClient, ada: Login, clock: MovableClock) -> Factor:
    """The second factor of ada, of which no code was used for a login."""
    return activate(client, ada, clock.now)


@pytest.mark.rfc("4226", "4")
def test_a_secret_is_for_an_app_and_not_active_yet(client: TestClient, ada: Login) -> None:
    response = client.post("/users/me/totp", headers=ada.headers)

    secret, uri = response.json()["secret"], urlsplit(response.json()["uri"])
    assert (response.status_code, response.headers["Cache-Control"]) == (201, "no-store")
    assert response.json().keys() == {"secret", "uri"}
    assert re.fullmatch("[A-Z2-7]{32}", secret)
    assert (uri.scheme, uri.netloc, unquote(uri.path)) == ("otpauth", "totp", "/Bearer Tasks:ada")
    assert parse_qs(uri.query) == {"secret": [secret], "issuer": ["Bearer Tasks"]}
    assert not has_factor(client, log_in(client))


def test_a_repeat_makes_another_secret_until_one_is_active(client: TestClient, ada: Login, clock: MovableClock) -> None:
    first, second = (Factor(set_up(client, ada), []) for _ in range(2))

    assert_refused(confirm(client, ada, first.code(clock.now)), 403, "wrong_code")
    assert confirm(client, ada, second.code(clock.now)).status_code == 200
    assert_refused(client.post("/users/me/totp", headers=ada.headers), 409, "totp_active")
    assert_refused(confirm(client, ada, second.code(clock.now, 1)), 409, "totp_active")
    clock.move(seconds=30)
    assert statuses(client, second.code(clock.now)) == [200]


def test_an_activation_shows_ten_codes_and_ends_no_session(
    client: TestClient, ada: Login, clock: MovableClock, sql: Sql
) -> None:
    other = log_in(client)
    code = Factor(set_up(client, ada), []).code(clock.now)

    response = confirm(client, ada, f" {code[:3]} {code[3:]}-")

    codes = response.json()["recovery_codes"]
    assert (response.status_code, response.headers["Cache-Control"]) == (200, "no-store")
    assert response.json().keys() == {"recovery_codes"}
    assert len(set(codes)) == 10
    assert all(re.fullmatch("[a-z2-7]{4}(-[a-z2-7]{4}){5}", code) for code in codes)
    assert has_factor(client, ada)
    assert has_factor(client, other)
    [(secret,)] = sql("SELECT totp_secret FROM users")
    assert secret.startswith("gAAAA")
    assert all(re.fullmatch("[0-9a-f]{64}", stored) for (stored,) in sql("SELECT code_hash FROM recovery_codes"))


def test_no_other_code_activates_the_factor(client: TestClient, ada: Login) -> None:
    assert_refused(confirm(client, ada, "123456"), 409, "totp_not_set_up")
    set_up(client, ada)
    for code in "12345", "1234567", "abcdef", "١٢٣٤٥٦", "é" * 6, "":
        assert_refused(confirm(client, ada, code), 403, "wrong_code")
    assert not has_factor(client, ada)


@pytest.mark.rfc("6238", "5.2")
@pytest.mark.parametrize(("steps", "status"), [(-2, 401), (-1, 200), (0, 200), (1, 200), (2, 401)])
def test_a_code_is_good_a_step_before_and_after_its_own(
    client: TestClient, factor: Factor, clock: MovableClock, steps: int, status: int
) -> None:
    clock.move(minutes=2)

    assert statuses(client, factor.code(clock.now, steps)) == [status]


@pytest.mark.rfc("6238", "5.2")
def test_a_code_works_once_and_no_earlier_one_after_it(
    client: TestClient, ada: Login, factor: Factor, clock: MovableClock
) -> None:
    """The code of the activation does not work at the login either."""
    before, present, later = (factor.code(clock.now, steps) for steps in (-1, 0, 1))

    assert statuses(client, before, present, present, later, present, before, later) == [401, 200, 401, 200] + [401] * 3
    clock.move(minutes=1)
    assert statuses(client, factor.code(clock.now)) == [200]


def test_a_login_without_a_code_is_no_failure(serve: Serve, clock: MovableClock) -> None:
    client = serve(login_failures=2)
    factor = activate(client, sign_up(client), clock.now)

    for _ in range(30):
        assert_required(attempt(client))
        assert_required(attempt(client, otp=""))
    assert statuses(client, factor.code(clock.now)) == [200]


def test_a_wrong_code_is_a_failure_and_the_right_one_forgets_it(serve: Serve, clock: MovableClock) -> None:
    client = serve(login_failures=2)
    factor = activate(client, sign_up(client), clock.now)
    wrong = factor.code(clock.now, 9)

    assert_invalid(attempt(client, otp=wrong))
    assert statuses(client, factor.code(clock.now), wrong, wrong, factor.code(clock.now, 1)) == [200, 401, 401, 429]
    clock.move(minutes=15)
    assert statuses(client, "another-wrong-code", factor.code(clock.now)) == [401, 200]


def test_a_wrong_password_uses_no_code_up_and_tells_of_none(
    client: TestClient, factor: Factor, clock: MovableClock
) -> None:
    code = factor.code(clock.now)
    refusals = [attempt(client, "wrong horse battery", otp=otp) for otp in ("", code, factor.recovery_codes[0])]

    assert {(refusal.status_code, refusal.json()["code"]) for refusal in refusals} == {(401, "invalid_credentials")}
    assert statuses(client, code, factor.recovery_codes[0]) == [200, 200]


def test_a_scope_is_refused_behind_the_code_and_uses_none_up(
    client: TestClient, factor: Factor, clock: MovableClock
) -> None:
    code = factor.code(clock.now)

    assert_required(attempt(client, scope="admin"))
    assert_invalid(attempt(client, scope="admin", otp="000-000"))
    assert_oauth_error(attempt(client, scope="admin", otp=code), "invalid_scope")
    assert statuses(client, code) == [200]


def test_a_recovery_code_works_once_however_it_is_typed(
    client: TestClient, factor: Factor, clock: MovableClock
) -> None:
    first, second, third, *_ = factor.recovery_codes

    assert statuses(client, first, first, second.upper().replace("-", ""), second) == [200, 401, 200, 401]
    assert statuses(client, f" {third.replace('-', ' ')} ", factor.code(clock.now)) == [200, 200]


def test_the_codes_of_another_user_do_not_work(client: TestClient, factor: Factor, clock: MovableClock) -> None:
    others = activate(client, sign_up(client, "bob"), clock.now)

    assert statuses(client, others.recovery_codes[0], others.code(clock.now)) == [401, 401]


@pytest.mark.rfc("6749", "2.3.1")
def test_a_client_secret_is_a_code_where_no_other_is(client: TestClient, factor: Factor, clock: MovableClock) -> None:
    """Swagger UI has no field for a code. It sends the secret in a header or in the form."""
    first, second, third, *_ = factor.recovery_codes
    basic = {"username": "ada", "password": PASSWORD}

    assert attempt(client, client_secret=first).status_code == 200
    assert client.post("/auth/token", data=basic, auth=("", second)).status_code == 200
    escaped = b64encode(f"cli:{third.replace('-', '%20')}".encode()).decode()
    assert client.post("/auth/token", data=basic, headers={"Authorization": f"basic {escaped}"}).status_code == 200
    assert attempt(client, otp=factor.code(clock.now), client_secret="hush").status_code == 200
    assert_invalid(attempt(client, client_secret="hush"))
    assert_invalid(client.post("/auth/token", data=basic, auth=("cli", "hush")))


@pytest.mark.parametrize("header", ["Basic Og==", "Basic !", "Basic é", "Basic /w==", "Basic", "Bearer x", "Basic YQ"])
def test_a_header_without_a_secret_is_no_code(client: TestClient, factor: Factor, header: str) -> None:
    form = {"username": "ada", "password": PASSWORD}

    assert_required(client.post("/auth/token", data=form, headers={b"Authorization": header.encode("latin-1")}))


def test_a_user_without_a_factor_may_send_any_code(client: TestClient, ada: Login) -> None:
    set_up(client, ada)

    assert statuses(client, "123456", "x" * 8000) == [200, 200]


def test_the_owner_removes_the_factor_and_sets_up_another(
    client: TestClient, ada: Login, factor: Factor, clock: MovableClock, sql: Sql
) -> None:
    for _ in range(2):
        assert client.delete("/users/me/totp", headers=ada.headers).status_code == 204
        assert sql("SELECT totp_secret, totp_step FROM users") == [(None, None)]
        assert sql("SELECT code_hash FROM recovery_codes") == []
    assert attempt(client).status_code == 200
    assert_refused(confirm(client, ada, factor.code(clock.now)), 409, "totp_not_set_up")

    another = activate(client, ada, clock.now)
    assert_required(attempt(client))
    codes = (factor.code(clock.now), factor.recovery_codes[0], another.code(clock.now), another.recovery_codes[0])
    assert statuses(client, *codes) == [401, 401, 200, 200]


def test_an_administrator_removes_the_factor_of_a_user(client: TestClient, factor: Factor, ada: Login) -> None:
    add_user(client, "root", is_admin=True)
    root = log_in(client, "root")
    user_id = client.get("/users/me", headers=ada.headers).json()["id"]
    nobody = "01a208f7-1a8a-7be3-842c-3f4269f2551d"

    assert client.get(f"/users/{user_id}", headers=root.headers).json()["totp"] is True
    assert client.delete(f"/users/{user_id}/totp", headers=root.headers).status_code == 204
    assert client.delete(f"/users/{user_id}/totp", headers=root.headers).status_code == 204
    assert client.get(f"/users/{user_id}", headers=root.headers).json()["totp"] is False
    assert_refused(client.delete(f"/users/{nobody}/totp", headers=root.headers), 404, "user_not_found")
    assert attempt(client).status_code == 200
    assert client.get("/tasks/mine", headers=ada.headers).status_code == 200


@pytest.mark.rfc("9470", "3")
@on_one_database
def test_the_factor_is_for_fresh_logins(client: TestClient, ada: Login, clock: MovableClock) -> None:
    token = client.post("/auth/tokens", json={"name": "script", "scope": "account"}, headers=ada.headers).json()[
        "token"
    ]
    clock.move(minutes=5)

    for headers in ada.headers, {"Authorization": f"Bearer {token}"}:
        for method, body in ("POST", {}), ("PUT", {"json": {"code": "123456"}}), ("PUT", {"json": {}}), ("DELETE", {}):
            response = client.request(method, "/users/me/totp", headers=headers, **body)
            assert_bearer_error(response, "insufficient_user_authentication")
    set_up(client, log_in(client))


def test_a_new_password_does_not_remove_the_factor(
    client: TestClient, ada: Login, factor: Factor, clock: MovableClock
) -> None:
    """Neither the change of a password nor a personal token asks for a code."""
    token = client.post("/auth/tokens", json={"name": "script"}, headers=ada.headers).json()["token"]
    change = {"current_password": PASSWORD, "new_password": PASSWORD[::-1]}
    assert client.put("/users/me/password", json=change, headers=ada.headers).is_success
    assert client.get("/tasks/mine", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert_required(attempt(client, PASSWORD[::-1]))

    add_user(client, "root", is_admin=True)
    root = log_in(client, "root")
    [user] = client.get("/users", params={"username": "ada"}, headers=root.headers).json()["items"]
    reset = client.post(f"/users/{user['id']}/reset-token", headers=root.headers).json()["reset_token"]
    fields = {"reset_token": reset, "new_password": PASSWORD}
    assert client.post("/users/reset-password", json=fields).status_code == 204
    assert_required(attempt(client))
    assert statuses(client, factor.code(clock.now)) == [200]


def test_the_secret_outlives_two_changes_of_the_key(
    serve: Serve, client: TestClient, factor: Factor, clock: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A login between them seals it again."""
    second = serve(secret_key=OTHER_SECRET, secret_key_previous=SECRET)
    third = serve(secret_key=THIRD_SECRET, secret_key_previous=OTHER_SECRET)
    code = factor.code(clock.now)

    with caplog.at_level(logging.WARNING, "app.auth"):
        assert_invalid(attempt(third, otp=code))
    assert "users reset-totp" in caplog.text
    assert code not in caplog.text
    assert statuses(third, factor.recovery_codes[0]) == [200]
    assert statuses(second, code) == [200]
    assert statuses(third, code, factor.code(clock.now, 1)) == [401, 200]


def test_a_secret_that_cannot_be_read_is_set_up_again(serve: Serve, ada: Login, clock: MovableClock) -> None:
    later = serve(secret_key=OTHER_SECRET, secret_key_previous=SECRET)
    secret = set_up(later, ada)
    earlier = serve()

    assert_refused(confirm(earlier, ada, Factor(secret, []).code(clock.now)), 409, "totp_not_set_up")
    activate(earlier, ada, clock.now)


@on_one_database
def test_the_record_names_what_happened_to_the_factor(
    client: TestClient, login: LogIn, user: User, clock: MovableClock, sql: Sql
) -> None:
    ada = login(user)
    for _ in range(2):
        factor = activate(client, ada, clock.now)
        assert statuses(client, "wrong", factor.recovery_codes[0], factor.code(clock.now)) == [401, 200, 200]
        for _ in range(2):
            client.delete("/users/me/totp", headers=ada.headers)

    own = "SELECT event, session_id IS NOT NULL, ip FROM account_events WHERE event LIKE '%totp%' OR event LIKE 'rec%'"
    assert sorted(sql(own)) == sorted(
        [(event, True, "testclient") for event in ("recovery_code_used", "totp_disabled", "totp_enabled")] * 2
    )


@on_one_database
def test_each_event_of_the_factor_is_a_line(
    client: TestClient, clock: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    ada = sign_up(client)
    add_user(client, "root", is_admin=True)
    root = log_in(client, "root")
    caplog.set_level(logging.INFO, "app.observe.events")
    caplog.clear()

    factor = activate(client, ada, clock.now)
    attempt(client)
    statuses(client, "wrong", factor.recovery_codes[0])
    client.delete("/users/me/totp", headers=ada.headers)
    activate(client, ada, clock.now)
    user_id = client.get("/users/me", headers=ada.headers).json()["id"]
    client.delete(f"/users/{user_id}/totp", headers=root.headers)

    lines = [json.loads(each.getMessage()) for each in caplog.records if each.name == "app.observe.events"]
    assert [(line["event"], line.get("reason")) for line in lines] == [
        ("totp_enabled", None),
        ("login_refused", "no one-time code"),
        ("login_failed", "wrong one-time code"),
        ("login_succeeded", None),
        ("recovery_code_used", None),
        ("totp_disabled", None),
        ("totp_enabled", None),
        ("totp_disabled", None),
    ]
    assert {line["user_id"] for line in lines[:-1]} == {user_id}
    assert lines[-1]["target_id"] == user_id
