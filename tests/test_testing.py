"""The kit as teams use it: in a suite of their own, strict and with warnings as errors."""

from collections.abc import Callable, Mapping, Sequence
from json import dumps

import pytest
from fastapi.testclient import TestClient
from httpx2 import Headers, Response
from pydantic import ValidationError
from sqlalchemy import URL

from app import SLUG
from app.config import Settings
from app.mail.templates import Mail
from app.testing import BearerError, LogIn, MovableClock, Serve, User, assert_bearer_error, bearer, register
from tests.conftest import execute, on_one_database
from tests.support.accounts import refresh, refreshed
from tests.support.oauth_errors import assert_oauth_error
from tests.support.processes import ROOT

STRICT = '[tool.pytest]\nstrict = true\nfilterwarnings = ["error"]'
TWO_STRANGERS = """
    from pathlib import Path

    import pytest
    from app.testing import register

    @pytest.mark.parametrize("number", range(2))
    def test_nobody_is_here_yet(client, settings, number):
        Path(f"database{number}").write_text(settings.database.database)
        assert register(client)["username"] == "ada"
    """


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite that loads the kit, on SQLite."""
    monkeypatch.delenv("TEST_DATABASE_URL", raising=False)
    pytester.makepyprojecttoml(STRICT)
    pytester.makeconftest('pytest_plugins = ["app.testing"]')
    return pytester


def databases(suite: pytest.Pytester) -> set[str]:
    """The databases that TWO_STRANGERS had."""
    return {file.read_text() for file in suite.path.glob("database*")}


def test_each_test_has_a_database_of_its_own(suite: pytest.Pytester) -> None:
    suite.makepyfile(TWO_STRANGERS)

    suite.runpytest_inprocess().assert_outcomes(passed=2)

    assert len(databases(suite)) == 2


def test_each_test_has_its_own_postgresql_database(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, postgres_server: URL
) -> None:
    monkeypatch.setenv("TEST_DATABASE_URL", postgres_server.render_as_string(hide_password=False))
    suite.makepyfile(TWO_STRANGERS)

    suite.runpytest_inprocess().assert_outcomes(passed=2)

    kept = {str(name) for (name,) in execute(postgres_server, "SELECT datname FROM pg_database")}
    assert len(databases(suite)) == 2
    assert postgres_server.database in kept
    assert not databases(suite) & kept


@pytest.mark.long
def test_the_kit_works_in_several_processes(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    suite.makepyfile(TWO_STRANGERS)

    suite.runpytest_inprocess("-n2").assert_outcomes(passed=2)

    assert len(databases(suite)) == 2


def test_neither_the_environment_nor_an_env_file_reaches_it(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "canary")
    monkeypatch.setenv("TEST_DATABASE_URL", f"sqlite:///{suite.path}/canary.db")
    (suite.path / ".env").write_bytes(b"SECRET_KEY=\xff\n")
    suite.makepyfile(
        """
        from app.config import Settings

        def test_the_rest_is_the_default(client, serve, settings, tmp_path):
            assert settings.database_url == f"sqlite:///{tmp_path}/tasks.db"
            for name, field in Settings.model_fields.items():
                default = field.get_default(call_default_factory=True)
                assert getattr(settings, name) == default or name in {"database_url", "secret_key"}
            assert serve(refresh_grace=0).app.state.settings == settings.model_copy(update={"refresh_grace": 0})
        """
    )

    suite.runpytest_inprocess().assert_outcomes(passed=1)

    assert not (suite.path / "canary.db").exists()


def test_settings_and_app_may_be_anothers(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest
        from app.main import create_app

        @pytest.fixture
        def settings(settings):
            return settings.model_copy(update={"access_token_ttl": 60})

        @pytest.fixture
        def make_app(make_app):
            def make(settings):
                app = make_app(settings)
                app.add_api_route("/ttl", lambda: settings.access_token_ttl)
                return app

            return make

        def test_both_are_served(client, serve):
            assert client.get("/ttl").json() == 60
            assert serve(access_token_ttl=61).get("/ttl").json() == 61
        """
    )

    suite.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_conftest_may_import_from_it(suite: pytest.Pytester) -> None:
    suite.makeconftest('from app.testing import CHEAP\n\npytest_plugins = ["app.testing"]')
    suite.makepyfile("def test_it(user): assert user.username == 'ada'")

    suite.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_failure_shows_the_line_the_fault_and_the_answer(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        from app.testing import assert_bearer_error

        def test_a_token_that_was_thought_to_be_bad(client, user, login):
            assert_bearer_error(client.get("/users/me", headers=login(user).headers), "invalid_token")
    """
    )

    result = suite.runpytest_inprocess()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            '>       assert_bearer_error(client.get("/users/me", headers=login(user).headers), "invalid_token")',
            "E       AssertionError: the status must be 401; the body must have a detail and a code; *",
            "E       200",
            'E       {"id":*',
        ]
    )
    result.stdout.no_fnmatch_line("*def require*")


def test_a_token_expires_with_the_clock_and_is_refreshed(
    client: TestClient, user: User, login: LogIn, clock: MovableClock
) -> None:
    tokens = login(user)

    clock.move(minutes=30)

    assert_bearer_error(client.get("/tasks/mine", headers=tokens.headers), "invalid_token")
    successor = refreshed(client, tokens.refresh_token)
    assert client.get("/tasks/mine", headers=successor.headers).status_code == 200


def test_a_login_may_be_for_less(client: TestClient, user: User, login: LogIn) -> None:
    tokens = login(user, scope="tasks:read")

    response = client.post("/tasks/", json={"title": "Water the plants"}, headers=tokens.headers)

    assert_bearer_error(response, "insufficient_scope")


def test_the_mailbox_has_the_mails_of_every_service(mailbox: Sequence[Mail], client: TestClient, serve: Serve) -> None:
    other, without_mail = serve(verify_url="https://example.com/verify"), serve(mail_hook=None)

    nothing = len(mailbox)
    for username, service in ("bob", client), ("eve", other), ("mia", without_mail):
        register(service, username, email=f"{username}@example.com")

    by_name = {mail.username: mail for mail in mailbox}
    assert (nothing, len(mailbox), [*by_name]) == (0, 2, ["bob", "eve"])
    assert by_name["bob"].to == "bob@example.com"
    assert f"https://example.com/verify#{by_name['eve'].token}" in by_name["eve"].text
    assert mailbox[:1] == [mailbox[0]]
    for mail in mailbox:
        assert client.post("/users/verify-email", json={"verification_token": mail.token}).status_code == 204


def test_the_mailbox_has_what_is_sent_after_the_answer(mailbox: Sequence[Mail], client: TestClient) -> None:
    register(client, email="ada@example.com")
    client.post("/users/verify-email", json={"verification_token": mailbox[-1].token})

    client.post("/users/forgot-password", json={"username": "ada"})

    assert [mail.kind for mail in mailbox] == ["verify_email", "reset_password"]
    fields = {"reset_token": mailbox[-1].token, "new_password": "another long one"}
    assert client.post("/users/reset-password", json=fields).status_code == 204
    assert mailbox[-1].kind == "notice"


def test_the_mailbox_takes_the_place_of_a_mail_server(suite: pytest.Pytester) -> None:
    """Without it the service sends no mail, unless the suite's settings say how."""
    suite.makepyfile(
        """
        import pytest
        from app.testing import register

        @pytest.fixture
        def settings(settings):
            server = {"smtp_url": "smtp://127.0.0.1:9", "mail_from": "tasks@example.com"}
            return settings.model_validate(settings.model_dump() | server)

        def test_none_is_configured(client):
            services = client.app.state.services
            assert services.settings.mail_hook is None

        @pytest.mark.usefixtures("mailbox")
        def test_the_mailbox_is_used(client, mailbox):
            register(client, email="ada@example.com")
            assert mailbox[-1].to == "ada@example.com"
        """
    )

    suite.runpytest_inprocess().assert_outcomes(passed=2)


def test_a_code_of_the_second_factor_is_for_one_login(
    client: TestClient, user: User, login: LogIn, clock: MovableClock, totp: Callable[[User], str]
) -> None:
    code = totp(user)
    form = {"username": user.username, "password": user.password}

    without = client.post("/auth/token", data=form)
    tokens = login(user, otp=code)
    again = client.post("/auth/token", data=form | {"otp": totp(user)})
    clock.move(seconds=30)
    login(user, otp=totp(user))

    assert (without.json()["code"], again.json()["code"]) == ("mfa_required", "invalid_one_time_code")
    assert client.get("/users/me", headers=tokens.headers).json()["totp"] is True


def test_each_user_has_a_factor_of_their_own(
    user: User, admin: User, login: LogIn, totp: Callable[[User], str]
) -> None:
    codes = {each: totp(each) for each in (user, admin)}

    assert ["admin" in login(each, otp=code).scope for each, code in codes.items()] == [False, True]


def test_a_personal_token_has_the_scope_and_life_asked_for(
    client: TestClient, user: User, clock: MovableClock, totp: Callable[[User], str], token: Callable[..., str]
) -> None:
    first = bearer(token(user, scope="tasks:read", expires_in=60))
    second = bearer(token(user, otp=totp(user), name="backup"))
    task = {"title": "Water the plants"}

    assert client.get("/tasks/mine", headers=first).status_code == 200
    assert_bearer_error(client.post("/tasks/", json=task, headers=first), "insufficient_scope")
    clock.move(seconds=60)
    assert_bearer_error(client.get("/tasks/mine", headers=first), "invalid_token")
    assert client.post("/tasks/", json=task, headers=second).status_code == 201


@on_one_database
def test_a_setting_that_is_none_is_refused(serve: Serve) -> None:
    with pytest.raises(ValidationError, match="acces_token_ttl"):
        serve(acces_token_ttl=60)


@on_one_database
def test_a_failure_shows_the_whole_oauth_error(client: TestClient, user: User, subtests: pytest.Subtests) -> None:
    wrong = client.post("/auth/token", data={"username": user.username, "password": "wrong horse battery"})
    body = wrong.json()
    shape = "the body must be detail, code, error and error_description, all text"
    faults = [
        ("the status must be 401", altered(wrong, status=400)),
        ("the error must be invalid_grant", altered(wrong, json=body | {"error": "invalid_request"})),
        ("the error must be invalid_grant; the body must be", altered(wrong, json={"detail": body["detail"]})),
        (shape, altered(wrong, json=body | {"error_uri": "https://tasks.example"})),
        (shape, altered(wrong, json=body | {"detail": [body["detail"]]})),
        ("error_description must keep to", altered(wrong, json=body | {"error_description": 'not "valid"'})),
        ("the error must be invalid_grant; the body must be", altered(wrong, json=[body])),
        ("the error must be invalid_grant; the body must be", altered(wrong, {"Content-Type": "text/plain"})),
        ("Cache-Control must be no-store", altered(wrong, {"Cache-Control": "no-cache"})),
        ("Pragma must be no-cache", altered(wrong, {"Pragma": ""})),
    ]

    assert_oauth_error(wrong, "invalid_grant", 401)
    assert_oauth_error(refresh(client, "none"), "invalid_grant")
    for words, fault in faults:
        with subtests.test(words), pytest.raises(AssertionError, match=f"^{words}"):
            assert_oauth_error(fault, "invalid_grant", 401)


@on_one_database
def test_a_refusal_of_an_access_token_is_told_by_its_challenge(
    client: TestClient, user: User, login: LogIn, subtests: pytest.Subtests
) -> None:
    anonymous, bad = client.get("/tasks/mine"), client.get("/tasks/mine", headers=bearer("none"))
    poor = client.get("/tasks/mine", headers=login(user, scope="account").headers)
    repeated = client.get("/tasks/mine", headers=[("Authorization", "Bearer none")] * 2)
    challenge = bad.headers["WWW-Authenticate"]
    of_another_scheme, without_comma = challenge.replace("Bearer", "Basic"), challenge.replace(",", "")
    of_another_code = challenge.replace("invalid_token", "invalid_request")
    without_realm = challenge.replace(f'realm="{SLUG}", ', "")
    without_scope = poor.headers["WWW-Authenticate"].partition(", scope=")[0]
    twice = altered(bad)
    twice.headers = Headers([*bad.headers.multi_items(), ("WWW-Authenticate", challenge)])
    faults: list[tuple[str, BearerError | None, Response]] = [
        ("the status must be 401", "invalid_token", altered(bad, status=403)),
        ("the body must have a detail and a code", "invalid_token", altered(bad, json={})),
        ("there must be one Bearer challenge", "invalid_token", altered(bad, {"WWW-Authenticate": ""})),
        ("there must be one Bearer challenge", "invalid_token", altered(bad, {"WWW-Authenticate": of_another_scheme})),
        ("there must be one Bearer challenge", "invalid_token", altered(bad, {"WWW-Authenticate": without_comma})),
        ("there must be one Bearer challenge", "invalid_token", twice),
        ("the challenge must name a realm", "invalid_token", altered(bad, {"WWW-Authenticate": without_realm})),
        ("the challenge's error must be invalid_token", "invalid_token", anonymous),
        ("the challenge's error must be", "invalid_token", altered(bad, {"WWW-Authenticate": of_another_code})),
        ("the challenge's error must be None", None, bad),
        ("the challenge must name the", "insufficient_scope", altered(poor, {"WWW-Authenticate": without_scope})),
        ("Cache-Control must be no-store", "invalid_token", altered(bad, {"Cache-Control": "no-cache"})),
    ]

    assert_bearer_error(anonymous, None)
    assert_bearer_error(bad, "invalid_token")
    assert_bearer_error(poor, "insufficient_scope")
    assert_bearer_error(repeated, "invalid_request")
    for words, error, fault in faults:
        with subtests.test(words), pytest.raises(AssertionError, match=f"^{words}"):
            assert_bearer_error(fault, error)


def altered(
    answer: Response, headers: Mapping[str, str] = {}, json: object = None, status: int | None = None
) -> Response:
    """Copy the answer with a change."""
    changed = Headers(answer.headers)
    changed.update(headers)
    content = answer.content if json is None else dumps(json).encode()
    changed["Content-Length"] = str(len(content))
    return Response(status or answer.status_code, headers=changed, content=content)
