"""The README's lines for OAuth clients, run as they stand."""

from typing import Any

import pytest

from tests.support.readme import blocks


def run(library: str, url: str) -> dict[str, Any]:
    """Run the block that imports the library, against this service. Return the names that it leaves."""
    (lines,) = (block for block in blocks("python", "With an OAuth client") if f"from {library}" in block)
    names: dict[str, Any] = {}
    exec(lines.replace("http://127.0.0.1:8000", url), names)
    return names


def test_the_authlib_lines_log_in_list_tasks_and_refresh(url: str, ada: dict[str, str]) -> None:
    """Authlib refreshes without a call."""
    left = run("authlib", url)

    with left["client"] as client:
        before = client.token["refresh_token"]
        again = client.get(f"{url}/tasks/mine").json()

        assert [task["title"] for task in left["tasks"]] == ["Water the plants"]
        assert again["items"] == left["tasks"]
        assert client.token["refresh_token"] != before


def test_the_oauthlib_lines_log_in_list_tasks_and_refresh(
    url: str, ada: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """requests-oauthlib refreshes without a call."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    left = run("requests_oauthlib", url)

    with left["client"] as client:
        before = client.token["refresh_token"]
        client.token = dict(client.token, expires_at=0.1)
        again = client.get(f"{url}/tasks/mine").json()

        assert [task["title"] for task in left["tasks"]] == ["Water the plants"]
        assert again["items"] == left["tasks"]
        assert client.token["refresh_token"] != before
