"""Idempotency-Key on POST /tasks/: a retry finds the task that the first try made."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from tests.conftest import MovableClock, Sql
from tests.support.accounts import Login, create_task, faults, sign_up

COUNT = "SELECT count(*) FROM tasks"


def post(client: TestClient, login: Login, key: str | bytes, **fields: Any) -> Response:
    headers: dict[str, Any] = {**login.headers, "Idempotency-Key": key}
    return client.post("/tasks/", json={"title": "Water the plants"} | fields, headers=headers)


def test_a_repeat_of_key_and_body_answers_with_the_same_task(client: TestClient, clock: MovableClock, sql: Sql) -> None:
    login = sign_up(client)
    first = post(client, login, "a key")

    clock.move(minutes=29)
    repeat = post(client, login, "a key")

    assert (repeat.status_code, repeat.content) == (201, first.content)
    for name in "Location", "ETag":
        assert repeat.headers[name] == first.headers[name]
    assert sql(COUNT) == [(1,)]


def test_the_same_body_is_the_same_however_it_is_written(client: TestClient, sql: Sql) -> None:
    login = sign_up(client)
    bodies = [
        '{"title": "Na\u00efve", "due_at": "2026-11-30T12:00:00Z"}',
        '{"due_at":"2026-11-30T13:00:00+01:00","title":"Na\\u00efve"}',
        '{"title": "Na\u00efve", "due_at": "2026-11-30t12:00:00.000000z", "status": "todo", "description": null}',
    ]
    headers = {**login.headers, "Idempotency-Key": "a key", "Content-Type": "application/json"}

    answers = [client.post("/tasks/", content=body, headers=headers) for body in bodies]

    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert len({answer.content for answer in answers}) == 1
    assert sql(COUNT) == [(1,)]


def test_another_body_under_the_same_key_is_refused(client: TestClient, sql: Sql) -> None:
    login = sign_up(client)
    first = post(client, login, "a key", due_at="2026-11-30T12:00:00Z")
    others: list[dict[str, Any]] = [
        {"title": "Water the cat"},
        {"description": ""},
        {"is_public": True},
        {"due_at": "2026-11-30T12:00:00.000001Z"},
        {"due_at": None},
    ]

    places = [faults(post(client, login, "a key", **({"due_at": "2026-11-30T12:00:00Z"} | other))) for other in others]

    assert places == [[["header", "Idempotency-Key"]]] * 5
    assert sql(COUNT) == [(1,)]
    assert client.get(first.headers["Location"], headers=login.headers).content == first.content


def test_a_repeat_after_a_change_answers_with_the_task_as_it_is(client: TestClient) -> None:
    login = sign_up(client)
    first = post(client, login, "a key")
    changed = client.patch(first.headers["Location"], json={"title": "Done"}, headers=login.headers)

    repeat = post(client, login, "a key")

    assert (repeat.status_code, repeat.content) == (201, changed.content)
    assert repeat.headers["ETag"] == changed.headers["ETag"]


def test_keys_are_ones_own_and_differ_by_letter_case(client: TestClient) -> None:
    ada, bob = sign_up(client), sign_up(client, "bob")

    answers = [post(client, ada, "a key"), post(client, ada, "A key"), post(client, bob, "a key", title="Bob's")]

    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert len({answer.json()["id"] for answer in answers}) == 3


def test_a_key_is_free_again_when_its_task_is_deleted(client: TestClient) -> None:
    login = sign_up(client)
    first = post(client, login, "a key")
    client.delete(first.headers["Location"], headers=login.headers)

    again = post(client, login, "a key", title="Another")

    assert again.status_code == 201
    assert again.json()["title"] == "Another"


def test_without_a_key_a_repeat_is_a_second_task(client: TestClient) -> None:
    login = sign_up(client)

    assert create_task(client, login)["id"] != create_task(client, login)["id"]


def test_repeats_at_one_moment_make_one_task(client: TestClient, sql: Sql) -> None:
    login = sign_up(client)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: post(client, login, "a key"), range(8)))

    assert {(answer.status_code, answer.content) for answer in answers} == {(201, answers[0].content)}
    assert sql(COUNT) == [(1,)]


def test_a_key_may_be_any_255_ascii_characters(client: TestClient) -> None:
    login = sign_up(client)
    key = ("\"'%\\;,= ~" * 29)[:255]

    first, repeat = post(client, login, key), post(client, login, key)

    assert first.status_code == 201
    assert repeat.content == first.content


def test_an_odd_key_is_refused(client: TestClient, sql: Sql) -> None:
    login = sign_up(client)
    keys: list[str | bytes] = ["", "x" * 256, "tab\there", "\u00e9".encode(), b"\xff", b"\x7f", b"nul\0"]

    places = {key: faults(post(client, login, key)) for key in keys}

    assert places == {key: [["header", "Idempotency-Key"]] for key in keys}
    assert sql(COUNT) == [(0,)]


@pytest.mark.parametrize(
    "end", ["UPDATE sessions SET ended_at = created_at, end_reason = 'revoked'", "UPDATE users SET is_active = false"]
)
@pytest.mark.parametrize("is_gone", [False, True], ids=["there", "gone"])
def test_a_key_opens_nothing_to_a_session_that_is_over(client: TestClient, sql: Sql, end: str, is_gone: bool) -> None:
    ada = sign_up(client)
    headers = ada.headers | {"Idempotency-Key": "k"}
    assert client.post("/tasks/", json={"title": "Mine"}, headers=headers).status_code == 201
    if is_gone:
        sql("DELETE FROM tasks")
    sql(end)

    response = client.post("/tasks/", json={"title": "Mine"}, headers=headers)

    assert response.status_code == 401
    assert "Mine" not in response.text
    assert sql("SELECT count(*) FROM tasks") == [(0 if is_gone else 1,)]
