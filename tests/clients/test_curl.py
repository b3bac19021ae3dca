"""curl, with each of its ways to send a form."""

import json
import shutil
import subprocess
from typing import Any
from uuid import uuid4

import pytest

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

ODD = '@< +&=%41;type=x "quoted" \\ Größe 5€ 🔑'


def curl(*words: str) -> tuple[int, Any]:
    """The status and the JSON that curl shows."""
    command = ["curl", "-q", "-sS", "-w", "\n%{http_code}", *words]
    body, _, status = subprocess.run(command, check=True, capture_output=True, text=True).stdout.rpartition("\n")
    return int(status), json.loads(body or "null")


def fields(way: str, **form: str) -> list[str]:
    """A form's fields as options: `-F a=b -F c=d`."""
    return [word for name, value in form.items() for word in (way, f"{name}={value}")]


@pytest.mark.parametrize("way", ["-F", "-d", "--data-urlencode"])
def test_each_way_to_send_a_form_logs_in(url: str, ada: dict[str, str], way: str) -> None:
    status, tokens = curl(f"{url}/auth/token", *fields(way, **ada))

    assert status == 200
    assert tokens.keys() == {"access_token", "refresh_token", "token_type", "expires_in", "scope"}


@pytest.mark.parametrize("way", ["--form-string", "--data-urlencode"])
def test_an_odd_password_goes_through_as_it_is(url: str, way: str) -> None:
    user = {"username": f"odd-{uuid4().hex}", "password": ODD}
    created, _ = curl(f"{url}/users", "-H", "Content-Type: application/json", "-d", json.dumps(user))

    status, _ = curl(f"{url}/auth/token", *fields(way, **user))
    nearly, _ = curl(f"{url}/auth/token", *fields(way, **user | {"password": ODD.replace("%41", "A")}))

    assert (created, status, nearly) == (201, 200, 401)


@pytest.mark.rfc("6749", "2.3")
@pytest.mark.parametrize("client", ["client:secret", "client:", ":"])
def test_the_client_that_it_says_it_is_does_not_matter(url: str, ada: dict[str, str], client: str) -> None:
    status, _ = curl(f"{url}/auth/token", "-u", client, *fields("-F", **ada))

    assert status == 200


@pytest.mark.parametrize("way", ["-F", "-d"])
def test_curl_refreshes_and_logs_out(url: str, ada: dict[str, str], way: str) -> None:
    _, login = curl(f"{url}/auth/token", *fields(way, **ada))
    grant = fields(way, grant_type="refresh_token", refresh_token=login["refresh_token"])

    refreshed, tokens = curl(f"{url}/auth/token", *grant)
    bearer = ["-H", f"Authorization: Bearer {tokens['access_token']}"]
    listed, tasks = curl(f"{url}/tasks/mine", *bearer)
    revoked, answer = curl(f"{url}/auth/revoke", *fields(way, token=tokens["refresh_token"]))

    assert (refreshed, listed, revoked, answer) == (200, 200, 200, {})
    assert [task["title"] for task in tasks["items"]] == ["Water the plants"]
    assert curl(f"{url}/tasks/mine", *bearer) == (
        401,
        {"detail": "The session was signed out", "code": "invalid_token"},
    )


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        pytest.param(["-F", "username=ada", "-F", "password=wrong"], 401, "invalid_grant", id="wrong password"),
        pytest.param(["-F", "username=ada"], 400, "invalid_request", id="missing field"),
        pytest.param(["-d", "username=a&username=b&password=c"], 400, "invalid_request", id="field sent twice"),
        pytest.param(["-F", "username=ada", "-F", f"password=@{__file__}"], 400, "invalid_request", id="file"),
        pytest.param(["-H", "Content-Type: application/json", "-d", "{}"], 400, "invalid_request", id="JSON"),
        pytest.param(["-F", "grant_type=implicit"], 400, "unsupported_grant_type", id="unknown grant"),
        pytest.param(["-X", "POST"], 400, "invalid_request", id="nothing"),
    ],
)
def test_a_refusal_has_its_status_and_code(url: str, words: list[str], status: int, error: str) -> None:
    answered, body = curl(f"{url}/auth/token", *words)

    assert (answered, body["error"]) == (status, error)
