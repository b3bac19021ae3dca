"""/users and /users/{id}: administrators manage everybody's accounts."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from tests.conftest import MovableClock, Sql, on_one_database
from tests.support.accounts import Login, bearer, create_task, faults, log_in, refresh, register, sign_up
from tests.support.cursors import forge

MISSING = "01a207a2-3280-7000-8422-653b1e4423a0"
FIELDS = {"id", "username", "email", "email_verified", "is_active", "is_admin", "totp", "created_at", "updated_at"}


def id_of(client: TestClient, login: Login) -> str:
    return str(client.get("/users/me", headers=login.headers).json()["id"])


def change(client: TestClient, login: Login, user_id: str, **fields: object) -> Response:
    return client.patch(f"/users/{user_id}", json=fields, headers=login.headers)


def names(client: TestClient, login: Login, **parameters: str) -> list[str]:
    """Of every page."""
    found: list[str] = []
    url = str(client.build_request("GET", "/users/", params={"limit": "2"} | parameters).url)
    while url:
        response = client.get(url, headers=login.headers)
        assert response.status_code == 200, response.text
        page = response.json()
        found += [user["username"] for user in page["items"]]
        url = response.links["next"]["url"] if page["next_cursor"] else ""
    return found


@on_one_database
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users/"),
        ("GET", "/users"),
        ("GET", f"/users/{MISSING}"),
        ("PATCH", f"/users/{MISSING}"),
        ("DELETE", f"/users/{MISSING}"),
        ("DELETE", f"/users/{MISSING}/sessions"),
        ("POST", f"/users/{MISSING}/reset-token"),
        ("POST", f"/users/{MISSING}/unlock"),
    ],
)
def test_administration_needs_the_scope_admin(client: TestClient, root: Login, method: str, path: str) -> None:
    ada = sign_up(client)
    narrow = log_in(client, "root", scope="account tasks:read")
    body = {"is_active": True} if method == "PATCH" else None

    assert client.request(method, path, json=body).status_code == 401
    for login in ada, narrow:
        refused = client.request(method, path, headers=login.headers, json=body)
        assert refused.status_code == 403
        assert 'error="insufficient_scope", scope="admin"' in refused.headers["www-authenticate"]
    allowed = client.request(method, path, headers=root.headers, json=body)
    assert allowed.status_code == (404 if MISSING in path else 200)


def test_everyone_is_listed_by_name_page_after_page(client: TestClient, root: Login) -> None:
    for name in "bob", "Ada", "ada.l", "ada-l", "ADAM", "Zoe", "a_a", "eve":
        register(client, name)

    in_order = ["a_a", "Ada", "ada-l", "ada.l", "ADAM", "bob", "eve", "root", "Zoe"]
    assert names(client, root) == sorted(in_order, key=str.lower)
    for prefix in "a", "AD", "ada", "ada.", "bob", "bobb", "z", "_", "":
        assert names(client, root, username=prefix) == [
            name for name in sorted(in_order, key=str.lower) if name.lower().startswith(prefix.lower())
        ]


def test_pages_are_stable_while_users_come_and_go(client: TestClient, root: Login) -> None:
    for name in "bob", "dan", "fay":
        register(client, name)
    first = client.get("/users/", params={"limit": 2}, headers=root.headers).json()
    register(client, "ada")
    register(client, "eve")
    bob = first["items"][0]
    assert client.delete(f"/users/{bob['id']}", headers=root.headers).status_code == 204

    second = client.get("/users/", params={"limit": 9, "cursor": first["next_cursor"]}, headers=root.headers).json()

    assert [user["username"] for user in (*first["items"], *second["items"])] == ["bob", "dan", "eve", "fay", "root"]
    assert second["next_cursor"] is None


def test_a_cursor_is_good_for_its_list_alone(client: TestClient, root: Login) -> None:
    register(client, "bob")
    cursor = client.get("/users/", params={"limit": 1}, headers=root.headers).json()["next_cursor"]
    create_task(client, root)
    create_task(client, root)
    of_tasks = client.get("/tasks/mine", params={"limit": 1}, headers=root.headers).json()["next_cursor"]

    for query in {"username": "b", "cursor": cursor}, {"cursor": of_tasks}, {"cursor": "x"}:
        refused = client.get("/users/", params=query, headers=root.headers)
        assert faults(refused) == [["query", "cursor"]]


@on_one_database
@pytest.mark.parametrize("name", ["\0", "\ud800", 1, None, [], True], ids=ascii)
def test_a_cursor_that_no_name_can_follow_is_refused(client: TestClient, root: Login, name: object) -> None:
    register(client, "bob")
    cursor = client.get("/users/", params={"limit": 1}, headers=root.headers).json()["next_cursor"]

    for forged in forge(cursor, id=name), forge(cursor, key="bob"):
        assert faults(client.get("/users/", params={"cursor": forged}, headers=root.headers)) == [["query", "cursor"]]


@on_one_database
@pytest.mark.parametrize("username", ["a b", "a%", "ä", "a" * 65, "\0"], ids=ascii)
def test_a_search_no_name_can_begin_with_is_refused(client: TestClient, root: Login, username: str) -> None:
    response = client.get("/users/", params={"username": username}, headers=root.headers)

    assert response.status_code == 422
    assert username not in response.text


def test_a_user_is_shown_as_to_themselves(client: TestClient, root: Login) -> None:
    ada = sign_up(client)
    me = client.get("/users/me", headers=ada.headers).json()

    assert client.get(f"/users/{me['id']}", headers=root.headers).json() == me
    assert me.keys() == FIELDS
    [listed] = client.get("/users/", params={"username": "ada"}, headers=root.headers).json()["items"]
    assert listed == me


def test_a_disabled_user_is_out_at_once_until_a_new_login(client: TestClient, root: Login, clock: MovableClock) -> None:
    ada, bob = sign_up(client), sign_up(client, "bob")
    ada_id = id_of(client, ada)
    clock.move(seconds=1)

    disabled = change(client, root, ada_id, is_active=False)

    assert disabled.status_code == 200
    assert disabled.json()["is_active"] is False
    assert disabled.json()["updated_at"] == "2026-11-23T09:00:01Z"
    assert client.get("/tasks/mine", headers=ada.headers).json() == {
        "detail": "The user was disabled",
        "code": "invalid_token",
    }
    assert refresh(client, ada.refresh_token).status_code == 400
    assert client.post("/auth/token", data={"username": "ada", "password": "correct horse battery"}).status_code == 401
    assert client.get("/tasks/mine", headers=bob.headers).status_code == 200

    assert change(client, root, ada_id, is_active=True).json()["is_active"] is True
    assert client.get("/tasks/mine", headers=ada.headers).status_code == 401
    assert refresh(client, ada.refresh_token).status_code == 400
    assert client.get("/tasks/mine", headers=log_in(client).headers).status_code == 200


def test_a_promoted_user_may_administer_after_a_new_login(client: TestClient, root: Login) -> None:
    ada = sign_up(client)
    ada_id = id_of(client, ada)

    assert change(client, root, ada_id, is_admin=True).json()["is_admin"] is True

    promoted = log_in(client)
    assert client.get("/users/", headers=ada.headers).status_code == 403
    assert client.get("/users/", headers=promoted.headers).status_code == 200
    assert change(client, promoted, ada_id, is_admin=False).json()["is_admin"] is False
    ended = client.get("/users/", headers=promoted.headers)
    assert (ended.status_code, ended.json()["detail"]) == (401, "The user is no longer an administrator")


def test_a_demotion_ends_the_sessions_that_hold_admin_for_good(client: TestClient, root: Login, sql: Sql) -> None:
    register(client)
    sql("UPDATE users SET is_admin = TRUE")
    logins = [log_in(client, scope=scope) for scope in ("", "admin", "admin account", "account tasks:read")]
    ada_id = id_of(client, logins[0])

    assert change(client, root, ada_id, is_admin=False).status_code == 200
    assert change(client, root, ada_id, is_admin=True).status_code == 200

    detail = "The user is no longer an administrator"
    for login in logins[:3]:
        refused = client.get("/tasks/public", headers=login.headers)
        assert (refused.status_code, refused.json()["detail"]) == (401, detail)
        assert refresh(client, login.refresh_token).json()["detail"] == detail
    assert client.get("/users/me", headers=logins[3].headers).status_code == 200
    assert refresh(client, logins[3].refresh_token).status_code == 200
    assert client.get("/users/", headers=root.headers).status_code == 200


def test_a_change_of_nothing_changes_nothing(client: TestClient, root: Login, clock: MovableClock) -> None:
    ada = sign_up(client)
    before = client.get("/users/me", headers=ada.headers).json()
    clock.move(minutes=1)

    assert change(client, root, before["id"]).json() == before
    assert client.get("/tasks/mine", headers=ada.headers).status_code == 200


@on_one_database
@pytest.mark.parametrize("fields", [{"is_active": 1}, {"is_admin": "true"}, {"is_active": None}, {"username": "x"}])
def test_a_bad_change_of_a_user_is_refused(client: TestClient, root: Login, fields: dict[str, object]) -> None:
    assert change(client, root, id_of(client, root), **fields).status_code == 422


def test_a_user_is_deleted_with_tasks_and_sessions(client: TestClient, root: Login, sql: Sql) -> None:
    ada = sign_up(client)
    task = create_task(client, ada, is_public=True)

    response = client.delete(f"/users/{id_of(client, ada)}", headers=root.headers)

    assert (response.status_code, response.content) == (204, b"")
    assert client.get("/tasks/mine", headers=ada.headers).status_code == 401
    assert client.get(f"/tasks/{task['id']}").status_code == 404
    assert sql("SELECT username FROM users") == [("root",)]


def test_every_session_of_a_user_ends(client: TestClient, root: Login) -> None:
    first, second, bob = sign_up(client), log_in(client), sign_up(client, "bob")

    response = client.delete(f"/users/{id_of(client, first)}/sessions", headers=root.headers)

    assert (response.status_code, response.content) == (204, b"")
    for login in first, second:
        assert client.get("/tasks/mine", headers=login.headers).json() == {
            "detail": "The session was signed out",
            "code": "invalid_token",
        }
    assert client.get("/tasks/mine", headers=bob.headers).status_code == 200
    assert client.get("/tasks/mine", headers=log_in(client).headers).status_code == 200


def test_the_last_administrator_stays(client: TestClient, root: Login) -> None:
    root_id = id_of(client, root)
    bob = sign_up(client, "bob")
    bob_id = id_of(client, bob)
    change(client, root, bob_id, is_admin=True)
    change(client, root, bob_id, is_active=False)  # a disabled administrator does not count

    refused = [
        change(client, root, root_id, is_admin=False),
        change(client, root, root_id, is_active=False, is_admin=True),
        client.delete(f"/users/{root_id}", headers=root.headers),
        client.delete("/users/me", headers=root.headers),
    ]

    assert [response.status_code for response in refused] == [409] * 4
    assert {response.json()["detail"] for response in refused} == {"The last administrator cannot be removed"}
    assert client.get("/users/me", headers=root.headers).json()["is_admin"] is True
    change(client, root, bob_id, is_active=True)
    assert client.delete("/users/me", headers=root.headers).status_code == 204
    assert names(client, log_in(client, "bob")) == ["bob"]


def test_one_of_administrators_removing_each_other_stays(client: TestClient, root: Login, sql: Sql) -> None:
    logins = {"root": root}
    for name in "ada", "bob", "eve":
        register(client, name)
    sql("UPDATE users SET is_admin = TRUE")
    logins |= {name: log_in(client, name) for name in ("ada", "bob", "eve")}

    def demote(name: str) -> int:
        return change(client, login, ids[name], is_admin=False).status_code

    ids = {name: id_of(client, login) for name, login in logins.items()}
    login = root
    others = [name for name in ids if name != "root"]
    with ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(demote, [*others, "root"]))

    assert set(statuses) <= {200, 401, 409}
    assert len(sql("SELECT id FROM users WHERE is_admin")) >= 1
    assert statuses.count(200) == 4 - len(sql("SELECT id FROM users WHERE is_admin"))


@on_one_database
def test_a_token_in_the_query_is_not_read(client: TestClient, root: Login) -> None:
    assert client.get("/users/", params={"access_token": root.access_token}).status_code == 401
    assert client.get("/users/", headers=bearer("x")).status_code == 401
