"""A collection answers with and without the slash: a redirect would lose a body or a header behind a proxy."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.conftest import on_one_database
from tests.support.accounts import EVERYTHING, PASSWORD, create_task, log_in, register, sign_up

pytestmark = on_one_database

Answer = tuple[int, dict[str, str], bytes]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def answers(client: TestClient, url: str, **request: Any) -> dict[str, Answer]:
    """The answer to each method, redirects included."""
    responses = {method: client.request(method, url, follow_redirects=False, **request) for method in METHODS}
    return {method: (got.status_code, dict(got.headers), got.content) for method, got in responses.items()}


@pytest.mark.parametrize("url", ["/tasks", "/users", "/auth/sessions"])
def test_every_method_gets_the_same_answer_with_a_slash(client: TestClient, url: str) -> None:
    login = sign_up(client)
    create_task(client, login, is_public=True)

    for request in {}, {"headers": login.headers}, {"json": {"titel": "Typo"}, "headers": login.headers}:
        without, slashed = answers(client, url, **request), answers(client, f"{url}/", **request)
        assert without == slashed
        assert not {status for status, _, _ in slashed.values()} & {307, 308, 404}


def test_each_list_of_tasks_is_the_same_with_a_slash(client: TestClient) -> None:
    login = sign_up(client)
    create_task(client, login, is_public=True)

    for url in "/tasks/mine", "/tasks/public":
        without, slashed = (client.get(path, headers=login.headers) for path in (url, f"{url}/"))
        assert (without.status_code, without.content) == (slashed.status_code, slashed.content)
        assert len(slashed.json()["items"]) == 1


def test_a_task_is_made_with_its_body_and_headers(client: TestClient) -> None:
    login = sign_up(client)
    headers = {**login.headers, "Idempotency-Key": "a key"}

    made = [client.post(url, json={"title": "Once"}, headers=headers) for url in ("/tasks", "/tasks/")]

    assert [response.status_code for response in made] == [201, 201]
    assert made[0].content == made[1].content
    for url in "/tasks", "/tasks/":
        assert client.get(f"{url}?status=todo", headers=login.headers).json()["items"] == [made[0].json()]
        assert client.get(f"{url}?status=done", headers=login.headers).json()["items"] == []


@pytest.mark.parametrize("url", ["/users", "/users/"])
def test_a_user_is_made_on_either(client: TestClient, url: str) -> None:
    response = client.post(url, json={"username": "ada", "password": PASSWORD})

    assert response.status_code == 201
    assert log_in(client, "ada").scope == EVERYTHING


@pytest.mark.parametrize("url", ["/auth/sessions", "/auth/sessions/"])
def test_sessions_are_listed_and_ended_on_either(client: TestClient, url: str) -> None:
    register(client)
    this, other = log_in(client), log_in(client)

    assert len(client.get(url, headers=this.headers).json()["items"]) == 2
    assert client.delete(url, headers=this.headers).status_code == 204
    assert [session["current"] for session in client.get(url, headers=this.headers).json()["items"]] == [True]
    assert client.get(url, headers=other.headers).status_code == 401
