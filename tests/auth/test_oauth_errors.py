"""Every error of the form endpoints is one that an OAuth client understands, and never repeats what was sent.

Clients look for the key `error` alone: without it, Authlib stores the error as if it were the token.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any, cast

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response

from app.auth.passwords import QUEUE_LENGTH
from app.config import Settings
from app.main import create_app
from tests.conftest import CHEAP, MovableClock, Serve, Sql, on_one_database
from tests.support.accounts import EVERYTHING, PASSWORD, log_in, register, sign_up
from tests.support.oauth_errors import assert_oauth_error

pytestmark = on_one_database

PATHS = ["/auth/token", "/auth/revoke"]
CANARY = "Canary7"
FIELDS = {"username": "ada", "password": CANARY, "token": CANARY}
BOUNDARY = "------------------------d74496d66958873e"  # curl's shape: cut within its dashes, a body looks whole


def assert_silent_error(response: Response, status: int, error: str) -> None:
    assert_oauth_error(response, error, status)
    assert CANARY.lower() not in (response.text + str(response.headers)).lower()


def urlencoded(content: bytes, parameters: str = "") -> dict[str, Any]:
    return {"content": content, "headers": {"Content-Type": "application/x-www-form-urlencoded" + parameters}}


def multipart(fields: dict[str, bytes], charset: str = "utf-8") -> dict[str, Any]:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"
        for name, value in fields.items()
    ]
    content = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
    return {
        "content": content,
        "headers": {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}; charset={charset}"},
    }


def chunks() -> Iterator[bytes]:
    """A body without a Content-Length."""
    yield b"token=" + CANARY.encode()
    for _ in range(3):
        yield b"x" * 50_000


MANY = FIELDS | {f"{CANARY}{number}": "1" for number in range(20)}
LONG = FIELDS | {"client_id": CANARY * 2000}

FORMS: dict[str, dict[str, Any]] = {
    "no body": {},
    "json": {"json": FIELDS},
    "plain text": {"content": CANARY, "headers": {"Content-Type": "text/plain"}},
    "no content type": {"content": CANARY},
    "file": {"files": {name: (CANARY, value) for name, value in FIELDS.items()}},
    "text as file": multipart({'x"; filename="Canary7': b"ada"}),
    "escaped no UTF-8": urlencoded(b"username=%FF&password=Canary7&token=%FF"),
    "raw no UTF-8": urlencoded(b"username=\xff&password=Canary7&token=\xff"),
    "multipart no UTF-8": multipart({"username": b"\xff", "password": b"Canary7", "token": b"\xff"}),
    "surrogate": urlencoded(b"username=%ED%A0%80&password=Canary7&token=%ED%A0%80"),
    "NUL": {"data": FIELDS | {"username": "a\0", "token": "a\0"}},
    "multipart NUL": multipart({"username": b"a\0", "password": b"Canary7", "token": b"a\0"}),
    "Latin-1": urlencoded(b"username=\xe9&password=x&token=\xe9", "; charset=Canary7"),
    "UTF-8 that says it is not": urlencoded("username=é&password=x&token=é".encode(), "; charset=Canary7"),
    "escaped Latin-1": urlencoded(b"username=%E9&password=x&token=%E9", "; charset=Canary7"),
    "escaped UTF-8 that says it is not": urlencoded(b"username=%C3%A9&password=x&token=%C3%A9", "; charset="),
    "escaped name": urlencoded(b"username=x&password=x&token=x&%C3%A9=x", "; charset=Canary7"),
    "multipart Latin-1": multipart({"username": b"\xe9", "password": b"x", "token": b"\xe9"}, "Canary7"),
    "multipart UTF-8 that says it is not": multipart({"username": "é".encode(), "token": "é".encode()}, "Canary7"),
    "many fields": {"data": MANY},
    "multipart many fields": {"files": {name: (None, value) for name, value in MANY.items()}},
    "long field": {"data": LONG},
    "multipart long field": {"files": {name: (None, value) for name, value in LONG.items()}},
    "unknown field repeated": urlencoded(b"username=ada&password=x&token=x&Canary7=1&Canary7=2"),
    "no boundary": {"content": CANARY + "--", "headers": {"Content-Type": "multipart/form-data"}},
    "another boundary": {"content": CANARY + "--", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
}


@pytest.mark.rfc("6749", "5.2")
@pytest.mark.rfc("6749", "B")
def test_a_bad_form_is_an_invalid_request(client: TestClient, subtests: pytest.Subtests) -> None:
    details = set()

    for path, (name, form) in product(PATHS, FORMS.items()):
        with subtests.test(name, path=path):
            response = client.post(path, params={"x": CANARY}, **form)

            assert_silent_error(response, 400, "invalid_request")
            details.add(response.json()["detail"])

    assert details == {
        "The body must be a whole form, urlencoded or multipart",
        "The form must be UTF-8 text without NUL",
        "A form that is not all ASCII must be UTF-8: its Content-Type has another charset",
        "The form must have a few short text fields only",
        "a field: Field sent more than once",
    }


@pytest.mark.parametrize(
    "charset", ["ISO-8859-1", "us-ascii", "windows-1252", "", "utf-7", "utf-16", "none", '"x\\"y"']
)
def test_a_charset_makes_no_difference_to_an_ascii_form(client: TestClient, charset: str) -> None:
    """Apache HttpCore, among others, says ISO-8859-1 of every form. UTF-7 would have other text in the same bytes."""
    register(client)
    fields = {"username": b"ada", "password": PASSWORD.encode(), "scope": b"account", "client_id": b"+AAA-"}
    form = b"username=%61da&password=correct+horse%20battery&scope=account&client_id=+AAA-"

    for request in urlencoded(form, f"; charset={charset}"), multipart(fields, charset):
        response = client.post("/auth/token", **request)

        assert (response.status_code, response.json().get("scope")) == (200, "account")


def test_a_form_that_was_cut_off_is_refused_wherever_the_cut_is(client: TestClient) -> None:
    """Parsers drop the part that is not whole: a login for one scope would become one for all of them."""
    register(client)
    form = multipart({"username": b"ada", "password": PASSWORD.encode(), "scope": b"tasks:read"})
    whole = form["content"].removesuffix(b"\r\n")
    cuts = range(whole.index(b"scope"), len(whole))

    answers = [client.post("/auth/token", **form | {"content": whole[:cut]}) for cut in cuts]

    assert [whole[:cut][-30:] for cut, answer in zip(cuts, answers, strict=True) if answer.status_code != 400] == []
    for answer in answers:
        assert_silent_error(answer, 400, "invalid_request")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "form",
    [
        pytest.param(urlencoded(b"token=" + CANARY.encode() + b"x" * 131_072), id="declared"),
        pytest.param(urlencoded(b"") | {"content": chunks}, id="chunked"),
    ],
)
def test_a_large_body_is_an_invalid_request(client: TestClient, path: str, form: dict[str, Any]) -> None:
    content = form["content"]

    response = client.post(path, **form | {"content": content() if callable(content) else content})

    assert_silent_error(response, 413, "invalid_request")


@pytest.mark.rfc("6749", "3.2")
@pytest.mark.parametrize("path", PATHS)
def test_only_post_is_allowed(client: TestClient, path: str) -> None:
    answers = [client.request(method, path, params={"x": CANARY}) for method in ("GET", "PUT", "PATCH", "DELETE")]
    head = client.head(path)

    for answer in answers:
        assert_silent_error(answer, 405, "invalid_request")
        assert answer.headers["Allow"] == "POST"
    assert (head.status_code, head.content, head.headers["Allow"]) == (405, b"", "POST")


@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        pytest.param({"username": CANARY}, 401, "invalid_grant", id="username"),
        pytest.param({"password": f'{CANARY}"\\é\N{COLLISION SYMBOL}'}, 401, "invalid_grant", id="password"),
        pytest.param({"grant_type": f'{CANARY}"\\é'}, 400, "unsupported_grant_type", id="grant_type"),
        pytest.param({"scope": f'{CANARY}"\\é'}, 400, "invalid_scope", id="scope"),
        pytest.param(
            {"grant_type": "refresh_token", "refresh_token": f"{CANARY}.é.x"}, 400, "invalid_grant", id="token"
        ),
    ],
)
def test_a_refusal_does_not_repeat_what_was_sent(
    client: TestClient, fields: dict[str, str], status: int, error: str
) -> None:
    register(client)

    response = client.post("/auth/token", data={"username": "ada", "password": PASSWORD} | fields)

    assert_silent_error(response, status, error)


@pytest.mark.parametrize("path", ["/api/auth/token", "/auth/token", "/api/auth/revoke"])
def test_errors_are_the_same_behind_a_prefix(serve: Serve, path: str) -> None:
    assert_silent_error(serve(root_path="/api").post(path, json=FIELDS), 400, "invalid_request")


def test_a_full_hashing_queue_asks_to_try_later(client: TestClient) -> None:
    register(client)
    jobs = cast(FastAPI, client.app).state.services.passwords._queue.jobs  # noqa: SLF001 - more logins than that at once are a load test
    jobs.update(range(QUEUE_LENGTH))

    response = client.post("/auth/token", data={"username": "ada", "password": PASSWORD})

    assert_silent_error(response, 503, "temporarily_unavailable")
    assert response.json()["detail"] == "Too many passwords are being hashed"
    assert response.headers["Retry-After"] == "1"
    jobs.clear()
    assert log_in(client).scope == EVERYTHING


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_a_fault_of_our_own_is_a_server_error(settings: Settings, clock: MovableClock, prefix: str) -> None:
    app = create_app(settings.model_copy(update={"root_path": prefix}), clock=clock, password_cost=CHEAP)

    with TestClient(app, raise_server_exceptions=False) as client:
        login = sign_up(client)
        app.state.services = replace(app.state.services, tokens=None)
        response = client.post(
            f"{prefix}/auth/token", data={"grant_type": "refresh_token", "refresh_token": login.refresh_token}
        )

    assert_silent_error(response, 500, "server_error")


def test_a_session_that_a_newer_version_has_ended_is_over(client: TestClient, sql: Sql) -> None:
    login = sign_up(client)
    sql("UPDATE sessions SET ended_at = created_at, end_reason = 'unknown'")

    refused = client.post("/auth/token", data={"grant_type": "refresh_token", "refresh_token": login.refresh_token})

    assert_silent_error(refused, 400, "invalid_grant")
    assert refused.json()["detail"] == "The session is over"
    assert client.get("/users/me", headers=login.headers).status_code == 401
