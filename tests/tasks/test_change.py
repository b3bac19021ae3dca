"""PATCH and DELETE /tasks/{id}: one's own only, the given fields only, and no change that another has not seen."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.tasks.schemas import TaskPage, TaskRead
from tests.conftest import MovableClock, on_one_database
from tests.support.accounts import create_task, faults, log_in, sign_up

MISSING = "01a207a2-3280-7000-8422-653b1e4423a0"
FIELDS: dict[str, Any] = {
    "title": "Write",
    "description": "Note G",
    "status": "doing",
    "due_at": "2026-12-10T12:30:00Z",
    "is_public": True,
}


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"title": " Rewrite "}, {"title": " Rewrite "}),
        ({"description": None}, {"description": None}),
        ({"status": "done"}, {"status": "done"}),
        ({"due_at": None}, {"due_at": None}),
        ({"due_at": "2026-12-24T12:00:00.000001+01:00"}, {"due_at": "2026-12-24T11:00:00.000001Z"}),
        ({"is_public": False}, {"is_public": False}),
        ({"title": "All", "description": "", "status": "todo", "due_at": None, "is_public": False},) * 2,
    ],
    ids=["title", "description", "status", "due_at", "due_at elsewhere", "is_public", "all"],
)
def test_the_given_fields_change_and_no_other(
    client: TestClient, clock: MovableClock, changes: dict[str, Any], changed: dict[str, Any]
) -> None:
    login = sign_up(client)
    task = create_task(client, login, **FIELDS)
    clock.move(seconds=1.5)

    response = client.patch(f"/tasks/{task['id']}", json=changes, headers=login.headers)

    assert response.status_code == 200
    assert response.headers["ETag"] == '"2"'
    assert response.json() == task | changed | {"updated_at": "2026-11-23T09:00:01.500000Z"}
    assert client.get(f"/tasks/{task['id']}", headers=login.headers).json() == response.json()


@on_one_database
def test_a_change_that_means_nothing_is_refused_and_not_stored(client: TestClient) -> None:
    login = sign_up(client)
    task = create_task(client, login, **FIELDS)
    refused = {
        '{"title": null}': ["body", "title"],
        '{"title": " "}': ["body", "title"],
        r'{"title": "\ud800"}': ["body", "title"],
        r'{"description": "\u0000"}': ["body", "description"],
        '{"status": null}': ["body", "status"],
        '{"status": "late"}': ["body", "status"],
        '{"due_at": "2026-12-10T12:30:00"}': ["body", "due_at"],
        '{"due_at": 1764504000}': ["body", "due_at"],
        '{"is_public": null}': ["body", "is_public"],
        '{"is_public": 0}': ["body", "is_public"],
        '{"titel": "Rewrite"}': ["body"],
        '{"title": "Rewrite", "owner": "bob"}': ["body", "owner"],
        '{"id": "01a207a2-3280-7000-8422-653b1e4423a0"}': ["body", "id"],
        '{"id": null}': ["body", "id"],
        r'{"owner": "ada\u0000"}': ["body", "owner"],
        r'{"owner": "\ud800"}': ["body", "owner"],
        '{"created_at": "2026-11-23T09:00:00.000001Z"}': ["body", "created_at"],
        '{"updated_at": "2026-11-23T09:00:00"}': ["body", "updated_at"],
        '{"version": 1}': ["body"],
        r'{"\ud800": 1}': ["body"],
        "null": ["body"],
        "[]": ["body"],
        "": ["body"],
    }
    headers = {**login.headers, "Content-Type": "application/json"}

    places = {body: faults(client.patch(f"/tasks/{task['id']}", content=body, headers=headers)) for body in refused}

    assert places == {body: [place] for body, place in refused.items()}
    assert client.get(f"/tasks/{task['id']}", headers=login.headers).json() == task


def test_a_task_may_be_sent_back_whole(client: TestClient, clock: MovableClock) -> None:
    """Its times are the same in any zone and to any digit."""
    login = sign_up(client)
    clock.move(microseconds=1_500)
    task = create_task(client, login, **FIELDS)
    url = f"/tasks/{task['id']}"
    clock.move(seconds=1)

    whole = client.patch(url, json=task | {"title": "Rewrite"}, headers=login.headers)
    times = {"created_at": "2026-11-23T10:00:00.0015+01:00", "updated_at": "2026-11-23T09:00:01.001500999Z"}
    spelled = client.patch(url, json=times | {"status": "done"}, headers=login.headers)

    assert (whole.status_code, spelled.status_code) == (200, 200)
    assert whole.json() == task | {"title": "Rewrite", "updated_at": "2026-11-23T09:00:01.001500Z"}
    assert spelled.json() == whole.json() | {"status": "done"}
    assert client.get("/tasks/mine?q=rewrite+note", headers=login.headers).json()["items"] == [spelled.json()]


def test_a_task_that_has_moved_on_is_not_sent_back(client: TestClient, clock: MovableClock) -> None:
    """`updated_at` is not what the task has now: nobody else's change is undone unseen."""
    login, bob = sign_up(client), sign_up(client, "bob")
    task = create_task(client, login, **FIELDS)
    url = f"/tasks/{task['id']}"
    clock.move(seconds=1)
    changed = client.patch(url, json={"status": "done"}, headers=login.headers)

    assert faults(client.patch(url, json=task, headers=login.headers)) == [["body", "updated_at"]]
    stale = client.patch(url, json=task, headers=login.headers | {"If-Match": '"1"'})
    assert stale.status_code == 412
    for headers in bob.headers, bob.headers | {"If-Match": '"2"'}:
        assert client.patch(url, json=changed.json(), headers=headers).status_code == 404
    assert client.patch(f"/tasks/{MISSING}", json=changed.json(), headers=login.headers).status_code == 404
    assert client.get(url, headers=login.headers).json() == changed.json()


def test_a_deleted_task_is_gone(client: TestClient) -> None:
    login = sign_up(client)
    task, other = create_task(client, login), create_task(client, login)

    response = client.delete(f"/tasks/{task['id']}", headers=login.headers)

    assert (response.status_code, response.content) == (204, b"")
    assert client.get(f"/tasks/{task['id']}", headers=login.headers).status_code == 404
    assert client.delete(f"/tasks/{task['id']}", headers=login.headers).status_code == 404
    assert client.get("/tasks/mine", headers=login.headers).json()["items"] == [other]


def test_anothers_task_public_or_not_is_the_same_as_none(client: TestClient) -> None:
    ada, bob = sign_up(client), sign_up(client, "bob")
    tasks = [create_task(client, ada, is_public=is_public) for is_public in (True, False)]

    for id_ in tasks[0]["id"], tasks[1]["id"], MISSING:
        for headers in bob.headers, bob.headers | {"If-Match": '"1"'}, bob.headers | {"If-Match": '"2"'}:
            changed = client.patch(f"/tasks/{id_}", json={"title": "Bob's"}, headers=headers)
            deleted = client.delete(f"/tasks/{id_}", headers=headers)
            assert [changed.status_code, deleted.status_code] == [404, 404]
            assert changed.content == deleted.content == b'{"detail":"Task not found","code":"task_not_found"}'
    assert [client.get(f"/tasks/{task['id']}", headers=ada.headers).json() for task in tasks] == tasks


@on_one_database
def test_nobody_changes_a_task_without_a_token_or_its_scope(client: TestClient) -> None:
    task = create_task(client, sign_up(client), is_public=True)
    reader = log_in(client, scope="tasks:read account")

    for headers, status in ({}, 401), (reader.headers, 403):
        assert client.patch(f"/tasks/{task['id']}", json={"title": "x"}, headers=headers).status_code == status
        assert client.delete(f"/tasks/{task['id']}", headers=headers).status_code == status
    assert client.get(f"/tasks/{task['id']}").json() == task


def test_a_change_is_made_if_the_etag_is_one_of_if_match(client: TestClient) -> None:
    login = sign_up(client)
    for if_match in '"2"', '"7", "2"', '"x,y" ,"2",', "*", 'W/"2"', 'W/"7", W/"2"', '"2-gzip"', 'W/"2-br"', '"2-zstd"':
        url = f"/tasks/{create_task(client, login)['id']}"
        client.patch(url, json={"status": "doing"}, headers=login.headers)

        changed = client.patch(url, json={"status": "done"}, headers={**login.headers, "If-Match": if_match})
        deleted = client.delete(url, headers={**login.headers, "If-Match": if_match.replace("2", "3")})

        assert (changed.status_code, changed.headers["ETag"]) == (200, '"3"')
        assert deleted.status_code == 204


STALE = {
    "stale": '"1"',
    "not yet": '"3"',
    "weak and stale": 'W/"1"',
    "badly weak": 'w/"2"',
    "weak, but not ours": 'W/"02"',
    "list without it": '"1", "3"',
    "unquoted": "2",
    "half quoted": '"2',
    "empty tag": '""',
    "nothing": "",
    "not the same bytes": '"02"',
    "not a number": '"two"',
    "other digits": '"\u0662"',
    "garbage before": 'x"2"',
    "stale and compressed": '"1-gzip"',
    "no coding": '"2-x"',
    "huge number": '"' + "9" * 5_000 + '"',
    "beyond 64 bits": '"18446744073709551618"',
    "beyond 32 bits": '"4294967298"',
}


@pytest.mark.rfc("9110", "13.1.1")
def test_a_change_is_not_made_if_the_etag_is_none_of_if_match(client: TestClient) -> None:
    login = sign_up(client)
    answers = {}
    for name, if_match in STALE.items():
        headers: dict[str, Any] = {**login.headers, "If-Match": if_match.encode()}
        url = f"/tasks/{create_task(client, login)['id']}"
        before = client.patch(url, json={"status": "doing"}, headers=login.headers)
        changed = client.patch(url, json={"status": "done"}, headers=headers)
        deleted = client.delete(url, headers=headers)
        is_as_before = client.get(url, headers=login.headers).content == before.content
        answers[name] = (changed.status_code, deleted.status_code, is_as_before)

    assert answers == dict.fromkeys(STALE, (412, 412, True))


@on_one_database
@pytest.mark.parametrize("count", [1, 100, 2_000])
def test_any_number_of_stale_etags_is_answered_with_the_reason(client: TestClient, count: int) -> None:
    login = sign_up(client)
    url = f"/tasks/{create_task(client, login)['id']}"
    if_match = ",".join(f'"{version}"' for version in range(2, 2 + count))

    response = client.patch(url, json={"status": "done"}, headers={**login.headers, "If-Match": if_match})

    assert response.status_code == 412
    assert response.json() == {"detail": "The task has changed since the ETag in If-Match", "code": "task_changed"}


def test_one_of_two_writers_with_one_etag_is_refused(client: TestClient) -> None:
    login = sign_up(client)
    url = f"/tasks/{create_task(client, login)['id']}"
    headers = {**login.headers, "If-Match": '"1"'}

    with ThreadPoolExecutor(2) as writers:
        answers = list(writers.map(lambda title: client.patch(url, json={"title": title}, headers=headers), "ab"))

    assert sorted(answer.status_code for answer in answers) == [200, 412]
    [winner] = [answer for answer in answers if answer.status_code == 200]
    assert client.get(url, headers=login.headers).content == winner.content


@pytest.mark.parametrize("microseconds", [0, 120], ids=["whole second", "microseconds"])
def test_every_answer_is_a_task_as_its_schema_writes_it(
    client: TestClient, clock: MovableClock, microseconds: int
) -> None:
    login = sign_up(client)
    clock.move(microseconds=microseconds)
    created = client.post("/tasks/", json=FIELDS | {"title": "\u00e9 \N{GRINNING FACE} </>\x7f"}, headers=login.headers)
    url = created.headers["Location"]
    answers = [created, client.get(url), client.patch(url, json={"due_at": None}, headers=login.headers)]

    for answer in answers:
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.content == TaskRead.model_validate_json(answer.content).model_dump_json().encode()
    for page in client.get("/tasks/mine?limit=1", headers=login.headers), client.get("/tasks/public"):
        assert page.content == TaskPage.model_validate_json(page.content).model_dump_json().encode()
        assert page.json()["items"] == [answers[-1].json()]


def test_a_clock_that_was_set_back_does_not_turn_back_the_task(client: TestClient, clock: MovableClock) -> None:
    ada = sign_up(client)
    task = create_task(client, ada)
    clock.move(seconds=-30)

    changed = client.patch(f"/tasks/{task['id']}", json={"status": "done"}, headers=ada.headers).json()

    assert changed["updated_at"] == task["updated_at"] == task["created_at"]
