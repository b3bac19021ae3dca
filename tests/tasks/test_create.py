"""POST /tasks/: what a task may be, and that it comes back as it went in."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unicodedata import category

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy.exc import IntegrityError

from app.http.fields import VISIBLE
from app.tasks.models import Task
from app.tasks.schemas import TaskRead
from app.tasks.service import INSERT_TASK, INSERTED
from tests.conftest import MovableClock, Sql, on_one_database
from tests.support.accounts import Login, create_task, faults, log_in, sign_up
from tests.support.hostile import BAD_JSON

EMOJI = "\N{GRINNING FACE}"


def post(client: TestClient, login: Login, body: str | bytes) -> Response:
    """Send a body as it stands, whatever is in it."""
    return client.post("/tasks/", content=body, headers=login.headers | {"Content-Type": "application/json"})


def test_a_task_needs_no_more_than_a_title(client: TestClient) -> None:
    login = sign_up(client)

    response = client.post("/tasks/", json={"title": "Water the plants"}, headers=login.headers)

    task = response.json()
    assert response.status_code == 201
    assert response.headers["Location"] == f"/tasks/{task['id']}"
    assert response.headers["ETag"] == '"1"'
    assert task == task | {
        "title": "Water the plants",
        "description": None,
        "status": "todo",
        "due_at": None,
        "is_public": False,
        "owner": "ada",
        "created_at": "2026-11-23T09:00:00Z",
        "updated_at": "2026-11-23T09:00:00Z",
    }
    assert client.get(response.headers["Location"], headers=login.headers).json() == task


def test_a_task_has_every_field_that_is_given(client: TestClient, clock: MovableClock) -> None:
    login = sign_up(client, "Ada.Lovelace")
    fields: dict[str, Any] = {
        "title": "Write",
        "description": "Note G",
        "status": "doing",
        "due_at": "2026-12-10T12:30:00.000001Z",
        "is_public": True,
    }
    clock.move(microseconds=123456)

    task = create_task(client, login, **fields)

    moment = "2026-11-23T09:00:00.123456Z"
    assert task == task | fields | {"owner": "Ada.Lovelace", "created_at": moment, "updated_at": moment}
    assert client.get(f"/tasks/{task['id']}", headers=login.headers).json() == task


@pytest.fixture
def trigger(sql: Sql, database_url: str) -> Iterator[Callable[[str, str], None]]:
    """Let each INSERT of a task do something else: a statement of SQLite's, or of PostgreSQL's."""
    is_sqlite = database_url.startswith("sqlite")

    def make(on_sqlite: str, on_postgresql: str) -> None:
        if is_sqlite:
            sql(f"CREATE TRIGGER spoil BEFORE INSERT ON tasks BEGIN {on_sqlite}; END")
        else:
            body = f"BEGIN {on_postgresql}; RETURN new; END"
            sql(f"CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
            sql("CREATE TRIGGER spoil BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION spoil()")

    yield make
    sql("DROP TRIGGER IF EXISTS spoil" if is_sqlite else "DROP FUNCTION IF EXISTS spoil CASCADE")


def test_the_answer_is_the_stored_task(client: TestClient, trigger: Callable[[str, str], None]) -> None:
    trigger("SELECT 1", "new.title := 'stored'; new.due_at := '2026-12-01T12:00:00Z'")
    ada = sign_up(client)

    task = create_task(client, ada, "sent", due_at=None)

    assert client.get(f"/tasks/{task['id']}", headers=ada.headers).json() == task


def test_a_constraint_that_nobody_expected_is_no_bad_token(
    client: TestClient, trigger: Callable[[str, str], None]
) -> None:
    trigger("SELECT RAISE(ABORT, 'no')", "RAISE 'no' USING ERRCODE = 'foreign_key_violation'")
    ada = sign_up(client)

    with pytest.raises(IntegrityError):
        client.post("/tasks/", json={"title": "Water"}, headers=ada.headers)


def test_each_column_is_stored_and_each_field_is_shown() -> None:
    columns = set(Task.__table__.columns.keys())

    assert set(INSERTED) == columns - {"version"}
    for statement in INSERT_TASK.values():
        assert {*TaskRead.model_fields, "version"} == set(statement.exported_columns.keys())


def test_ids_are_ordered_by_creation_to_the_microsecond(client: TestClient, clock: MovableClock) -> None:
    login, ids = sign_up(client), []
    for _ in range(5):
        ids.append(create_task(client, login)["id"])
        clock.move(microseconds=1)

    assert ids == sorted(ids)


def test_nobody_creates_a_task_without_a_token(client: TestClient, sql: Sql) -> None:
    response = client.post("/tasks/", json={"title": "Nobody's"})

    assert response.status_code == 401
    assert sql("SELECT count(*) FROM tasks") == [(0,)]


def test_a_token_without_tasks_write_creates_none(client: TestClient, sql: Sql) -> None:
    sign_up(client)
    login = log_in(client, scope="tasks:read account")

    response = client.post("/tasks/", json={"title": "Read only"}, headers=login.headers)

    assert response.status_code == 403
    assert 'error="insufficient_scope", scope="tasks:write"' in response.headers["WWW-Authenticate"]
    assert sql("SELECT count(*) FROM tasks") == [(0,)]


REFUSED: dict[str, tuple[str, str | None]] = {
    "no title": ("{}", "title"),
    "null title": ('{"title": null}', "title"),
    "number for a title": ('{"title": 1}', "title"),
    "empty title": ('{"title": ""}', "title"),
    "blank title": (r'{"title": " \t\n\u00a0\u3000"}', "title"),
    "201 characters": (json.dumps({"title": EMOJI * 201}, ensure_ascii=False), "title"),
    "10,001 characters": (json.dumps({"title": "a", "description": "b" * 10_001}), "description"),
    "unknown status": ('{"title": "a", "status": "Done"}', "status"),
    "null status": ('{"title": "a", "status": null}', "status"),
    "text for is_public": ('{"title": "a", "is_public": "true"}', "is_public"),
    "number for is_public": ('{"title": "a", "is_public": 1}', "is_public"),
    "null is_public": ('{"title": "a", "is_public": null}', "is_public"),
    "unknown field": ('{"title": "a", "secret_field": 1}', None),
    "owner": ('{"title": "a", "owner": "bob"}', None),
}


@on_one_database
def test_a_bad_task_is_refused_by_field_and_not_stored(client: TestClient, sql: Sql) -> None:
    login = sign_up(client)

    answers = {name: post(client, login, body) for name, (body, _) in REFUSED.items()}

    places = {name: [["body", field] if field else ["body"]] for name, (_, field) in REFUSED.items()}
    assert {name: faults(answer) for name, answer in answers.items()} == places
    assert "secret" not in answers["unknown field"].text
    assert sql("SELECT count(*) FROM tasks") == [(0,)]


@on_one_database
def test_a_hostile_task_is_refused_by_field_and_not_stored(client: TestClient, sql: Sql) -> None:
    login = sign_up(client)
    cases = {f"{row}, {name}": bad for row, kinds in BAD_JSON.items() for name, bad in kinds.items()}

    answers = {name: faults(post(client, login, bad.body)) for name, bad in cases.items()}

    assert answers == {name: [["body", bad.field] if bad.field else ["body"]] for name, bad in cases.items()}
    assert sql("SELECT count(*) FROM tasks") == [(0,)]


def test_every_other_text_comes_back_as_it_went_in(client: TestClient) -> None:
    login = sign_up(client)
    texts = [
        EMOJI * 200,
        "  spaces around  ",
        "line\r\nline\ttab\x01\x1b\x7f\x85",
        "e\u0301 is not \u00e9",
        "a\N{ZERO WIDTH SPACE}",
        "\N{RIGHT-TO-LEFT OVERRIDE}abc\N{LINE SEPARATOR}",
        "\ufeffBOM, \ufffe, \uffff, \ufffd",
        "\U0010ffff",
        "'; DROP TABLE tasks; --",
        r"%s %(title)s :title \u0000 \\ \"",
        "</script><script>",
    ]

    tasks = [create_task(client, login, text, description=text) for text in texts]

    assert [(task["title"], task["description"]) for task in tasks] == [(text, text) for text in texts]
    read = [client.get(f"/tasks/{task['id']}", headers=login.headers).json() for task in tasks]
    assert read == tasks


def test_the_longest_task_fits_with_every_character_escaped(client: TestClient) -> None:
    login = sign_up(client)
    body = json.dumps({"title": EMOJI * 200, "description": EMOJI * 10_000})

    response = post(client, login, body)

    assert len(body) > 120_000
    assert response.status_code == 201
    assert response.json()["description"] == EMOJI * 10_000


def test_an_empty_description_is_not_null(client: TestClient) -> None:
    assert create_task(client, sign_up(client), description="")["description"] == ""


def test_times_are_answered_in_utc_to_the_microsecond(client: TestClient) -> None:
    login = sign_up(client)
    expected = {
        "2026-11-23T09:00:00Z": "2026-11-23T09:00:00Z",
        "2026-11-23t09:00:00z": "2026-11-23T09:00:00Z",
        "2026-11-23 09:00:00-00:00": "2026-11-23T09:00:00Z",
        "2026-11-23T00:30:00+14:00": "2026-11-22T10:30:00Z",
        "2026-11-23T23:30:00-12:00": "2026-11-24T11:30:00Z",
        "2026-11-23T09:00:00.000001+05:45": "2026-11-23T03:15:00.000001Z",
        "2026-11-23T09:00:00.5Z": "2026-11-23T09:00:00.500000Z",
        "2026-11-23T09:00:00.1234567Z": "2026-11-23T09:00:00.123456Z",
        "2026-11-23T09:00:00.0000000+02:00": "2026-11-23T07:00:00Z",
        "2026-11-23T09:00:00.999999999999Z": "2026-11-23T09:00:00.999999Z",
        "2028-02-29T23:59:59.999999Z": "2028-02-29T23:59:59.999999Z",
        "1970-01-01T14:00:00+14:00": "1970-01-01T00:00:00Z",
        "9998-12-31T11:59:59.999999-12:00": "9998-12-31T23:59:59.999999Z",
    }

    answered: dict[str, Any] = {time: create_task(client, login, due_at=time) for time in expected}

    assert {time: task["due_at"] for time, task in answered.items()} == expected
    for task in answered.values():
        assert client.get(f"/tasks/{task['id']}", headers=login.headers).json() == task


@on_one_database
def test_a_time_without_a_zone_is_refused(client: TestClient, sql: Sql) -> None:
    login = sign_up(client)
    times: list[object] = [
        "2026-11-23T09:00:00",
        "2026-11-23",
        "2026-11-23T09:00Z",
        "2026-11-23T09:00:001Z",
        "2026-11-23T09:00:00.Z",
        "2026-11-23T09:00:00,5Z",
        "2016-12-31T23:59:60Z",
        "2026-11-23T09:00:00+24:00",
        "2026-11-23T09:00:00+0100",
        "2026-11-23T24:00:00Z",
        "2026-02-29T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-12:00",
        "\u0662026-11-23T09:00:00Z",
        "2026-11-23T09:00:00Z\n",
        "1764504000",
        1764504000,
        1.5,
        True,
        "",
        "tomorrow",
    ]

    answers = {
        repr(time): client.post("/tasks/", json={"title": "Due", "due_at": time}, headers=login.headers)
        for time in times
    }

    assert {time: faults(answer) for time, answer in answers.items()} == {
        time: [["body", "due_at"]] for time in answers
    }
    assert sql("SELECT count(*) FROM tasks") == [(0,)]


def test_a_time_that_no_database_holds_is_refused(client: TestClient) -> None:
    """The answer gives the reason."""
    login = sign_up(client)
    reasons = {
        "2016-12-31T23:59:60Z": "must have a second from 00 to 59: a leap second cannot be stored",
        "2026-11-23T24:00:00Z": "must have an hour from 00 to 23: midnight is 00:00:00 of the next day",
        "2026-11-23T09:00:00": "must be an RFC 3339 time with a zone: 2026-11-23T09:00:00Z",
    }

    for time, reason in reasons.items():
        created = client.post("/tasks/", json={"title": "Due", "due_at": time}, headers=login.headers)
        listed = client.get("/tasks/mine", params={"due_before": time}, headers=login.headers)
        assert [answer.json()["detail"][0]["msg"] for answer in (created, listed)] == [reason, reason]


INVISIBLE = [
    *(
        "\u200b\u200b",
        "\u3164",
        "\u115f",
        "\u1160",
        "\uffa0",
        "\u2800",
        "\ufeff",
        "\u00ad",
        "\u2060",
        "\u180e",
        "\u034f",
    ),
    *(
        "\u200c\u200d",
        "\u202e",
        "\u2066",
        "\ufe0f",
        "\U000e0100",
        "\U000e0020\U000e007f",
        "\x07",
        "\x1b",
        "\x7f",
        "\x9f",
    ),
    *("\u00a0", "\u3000", "\u2028", "\x1c", "\x85", "\u061c", "\ufff9", "\U0001d173", " \u200b\t\u3164\n"),
]


@on_one_database
def test_a_title_has_a_visible_character(client: TestClient) -> None:
    login = sign_up(client)
    task = create_task(client, login)

    for title in INVISIBLE:
        for method, url in ("POST", "/tasks/"), ("PATCH", f"/tasks/{task['id']}"):
            answer = client.request(method, url, json={"title": title}, headers=login.headers)
            assert faults(answer) == [["body", "title"]], ascii(title)
            assert answer.json()["detail"][0]["msg"] == "must have a visible character"
            assert create_task(client, login, f"{title[:99]}a{title[:99]}")


def test_white_space_controls_and_format_characters_are_blank() -> None:
    characters = map(chr, range(sys.maxunicode + 1))
    invisible = [c for c in characters if c.isspace() or category(c) in {"Cc", "Cf", "Zs", "Zl", "Zp"}]

    assert [c for c in invisible if VISIBLE.search(c)] == []


@on_one_database
def test_the_document_says_what_a_visible_character_is(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    patterns = [re.compile(schemas[name]["properties"]["title"]["pattern"]) for name in ("TaskCreate", "TaskUpdate")]
    visible = ["a", " a\x1b", "\u0e19", "\U0001f331", "\u0627", "\ufffd", "\u2588", "1", "\u200b_"]

    for pattern in patterns:
        assert [title for title in visible if not pattern.search(title)] == []
        assert [title for title in INVISIBLE if title.isascii() or title <= "\uffff" if pattern.search(title)] == []


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "k"}], ids=["plain", "key"])
def test_no_task_is_made_in_a_session_that_is_over(client: TestClient, sql: Sql, key: dict[str, str]) -> None:
    ada = sign_up(client)
    client.post("/auth/revoke", data={"token": ada.refresh_token})

    response = client.post("/tasks/", json={"title": "Late"}, headers=ada.headers | key)

    assert response.status_code == 401
    assert response.json()["detail"] == "The session was signed out"
    assert sql("SELECT count(*) FROM tasks") == [(0,)]
