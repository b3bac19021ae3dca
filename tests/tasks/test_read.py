"""GET /tasks/{id}: one's own and public tasks, once for each version."""

from typing import Any

from fastapi.testclient import TestClient

from tests.support.accounts import create_task, faults, sign_up

MISSING = "01a207a2-3280-7000-8422-653b1e4423a0"


def test_ones_own_task_is_read_with_its_etag(client: TestClient) -> None:
    login = sign_up(client)
    task = create_task(client, login)

    response = client.get(f"/tasks/{task['id']}", headers=login.headers)

    assert response.status_code == 200
    assert response.headers["ETag"] == '"1"'
    assert response.json() == task


def test_a_public_task_is_read_by_anyone(client: TestClient) -> None:
    ada, bob = sign_up(client), sign_up(client, "bob")
    task = create_task(client, ada, is_public=True)

    assert client.get(f"/tasks/{task['id']}").json() == task
    assert client.get(f"/tasks/{task['id']}", headers=bob.headers).json() == task


def test_anothers_private_task_is_the_same_as_none(client: TestClient) -> None:
    ada, bob = sign_up(client), sign_up(client, "bob")
    task = create_task(client, ada)

    for headers in {}, bob.headers, {"If-None-Match": "*"}:
        answers = [client.get(f"/tasks/{id_}", headers=headers) for id_ in (task["id"], MISSING)]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert [answer.content for answer in answers] == [b'{"detail":"Task not found","code":"task_not_found"}'] * 2
        assert answers[0].headers == answers[1].headers


def test_only_the_one_spelling_of_an_id_is_an_id(client: TestClient) -> None:
    id_ = create_task(client, sign_up(client), is_public=True)["id"]
    spellings = [
        id_.upper(),
        id_.replace("-", ""),
        f"{{{id_}}}",
        f"urn:uuid:{id_}",
        f"{id_}%0A",
        f"%20{id_}",
        f"{id_}%00",
        "1",
        "%FF",
        "%F0%9D%9F%8E" + id_[1:],
    ]

    places = {spelling: faults(client.get(f"/tasks/{spelling}")) for spelling in spellings}

    assert places == {spelling: [["path", "task_id"]] for spelling in spellings}


def test_a_version_that_the_client_has_is_not_sent_again(client: TestClient) -> None:
    """Weak tags count here: RFC 9110 §13.1.2 asks for the weak comparison."""
    login = sign_up(client)
    task = create_task(client, login)

    for tags in '"1"', 'W/"1"', '"7", "1"', '"a,b" ,W/"1",', "*":
        response = client.get(f"/tasks/{task['id']}", headers={**login.headers, "If-None-Match": tags})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["ETag"] == '"1"'


def test_a_list_of_tags_may_come_in_two_headers(client: TestClient) -> None:
    """RFC 9110 §5.3: it is the same as one header with a comma between."""
    login = sign_up(client)
    task = create_task(client, login)
    headers = [*login.headers.items(), ("If-None-Match", '"7"'), ("If-None-Match", '"1"')]

    assert client.get(f"/tasks/{task['id']}", headers=headers).status_code == 304


def test_any_other_version_is_sent(client: TestClient) -> None:
    login = sign_up(client)
    task = create_task(client, login)
    tags = ['"2"', '"7", W/"11"', '"01"', "1", '"', '""', "", '"' + "9" * 5_000 + '"', "\u0661"]

    answers = {}
    for tag in tags:
        headers: dict[str, Any] = {**login.headers, "If-None-Match": tag.encode()}
        answers[tag] = client.get(f"/tasks/{task['id']}", headers=headers)

    assert {tag: answer.status_code for tag, answer in answers.items()} == dict.fromkeys(tags, 200)
    assert all(answer.json() == task for answer in answers.values())


def test_a_task_that_has_changed_is_sent(client: TestClient) -> None:
    login = sign_up(client)
    task = create_task(client, login)
    client.patch(f"/tasks/{task['id']}", json={"status": "done"}, headers=login.headers)

    response = client.get(f"/tasks/{task['id']}", headers={**login.headers, "If-None-Match": '"1"'})

    assert response.status_code == 200
    assert response.headers["ETag"] == '"2"'
    assert response.json() == task | {"status": "done"}
