"""Tasks against a model in plain Python: three owners and an anonymous reader do all that they can, in any order.

Lists are read page by page while others write. Each page must have what the model's list has at that moment, from the
place where the page before ended.
"""

import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from unicodedata import normalize
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from app.tasks.schemas import TaskCreate
from tests.conftest import MovableClock, Serve, Sql
from tests.support.accounts import Login, faults, sign_up
from tests.support.machines import LONG, SHORT

OWNERS = ("ada", "bob", "eve")
MISSING = "01a207a2-3280-7000-8422-653b1e4423a0"
DEFAULTS = TaskCreate(title="A task").model_dump(mode="json", exclude={"title"})
NOT_FOUND = b'{"detail":"Task not found","code":"task_not_found"}'
SAME = {"2026-11-30T13:00:00+01:00": "2026-11-30T12:00:00Z"}  # in another zone

# Likely values stand more than once.
readers = st.sampled_from(["ada", "ada", "ada", "bob", None])
who = st.sampled_from(["owner", "owner", "owner", "another", "nobody"])
due_times = st.sampled_from(["2026-11-30T12:00:00Z", *SAME, "2026-12-01T12:00:00.000001Z", "2026-12-02T12:00:00Z"])
titles = st.sampled_from(["Read", "Write", "Ⅳ: \u0130 \U0001f331"])
others: dict[str, st.SearchStrategy[Any]] = {
    "description": st.sampled_from([None, "", "Note G"]),
    "status": st.sampled_from(["todo", "doing", "done"]),
    "due_at": st.none() | due_times | due_times,
    "is_public": st.booleans(),
}
bodies = st.fixed_dictionaries({"title": titles}, optional=others)
changes_of_any_kind = st.fixed_dictionaries({}, optional={"title": titles, **others})
bad_changes: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"title": None}, {"title": " "}, {"status": "late"}, {"is_public": 1}, {"due_at": "2026-11-30"}, {"owners": "bob"}]
)
keys = st.sampled_from([None, None, "one", "two"])
if_matches = st.sampled_from(["", "", "current", "stale", "weak", "*", "stale and current"])
paths = st.sampled_from(["/tasks/", "/tasks", "/tasks/mine", "/tasks/public"])
sorts = {"sort": st.sampled_from(["created_at", "-created_at", "due_at", "-due_at", "updated_at", "-updated_at"])}
narrow = {"status": st.sampled_from(["todo", "doing"]), "due_before": due_times, "due_after": due_times}
searches = {"q": st.sampled_from(["read", "NOTE", "iv", "g write", "note w", "?"])}
filters: st.SearchStrategy[dict[str, str]] = st.one_of(
    *[st.fixed_dictionaries({}, optional=sorts)] * 2,
    st.fixed_dictionaries({}, optional=sorts | searches),
    st.fixed_dictionaries({}, optional=sorts | narrow | searches),
)
limits = st.sampled_from([1, 1, 2, 3, 100])
walks: st.SearchStrategy["Walk"] = st.runner().flatmap(lambda machine: st.sampled_from(machine.walks))
ids: st.SearchStrategy[str] = st.runner().flatmap(
    lambda machine: st.sampled_from([list(machine.tasks) or [MISSING]] * 4 + [[*machine.deleted, MISSING]]).flatmap(
        st.sampled_from
    )
)


@dataclass(frozen=True, repr=False)
class World:
    client: TestClient
    logins: dict[str, Login]
    clock: MovableClock
    begin_anew: Callable[[], None]
    seen: Counter[str] = field(default_factory=Counter)

    def headers(self, user: str | None) -> dict[str, str]:
        return self.logins[user].headers if user else {}


@pytest.fixture
def world(serve: Serve, clock: MovableClock, sql: Sql) -> World:
    client = serve(access_token_ttl=86_400)
    start = clock.now

    def begin_anew() -> None:
        clock.now = start
        sql("DELETE FROM tasks")

    return World(client, {name: sign_up(client, name) for name in OWNERS}, clock, begin_anew)


@dataclass(eq=False)
class Task:
    """A task as its owner was last answered, with its ETag and those it had before."""

    shown: dict[str, Any]
    etag: str
    old_etags: list[str] = field(default_factory=lambda: ['"999"'])

    @property
    def owner(self) -> str:
        return str(self.shown["owner"])

    def is_visible_to(self, user: str | None) -> bool:
        return self.shown["is_public"] or self.owner == user

    def if_match(self, kind: str) -> dict[str, str]:
        values = {
            "current": self.etag,
            "stale": self.old_etags[-1],
            "weak": f"W/{self.etag}",
            "*": "*",
            "stale and current": f"{self.old_etags[-1]}, {self.etag}",
        }
        return {"If-Match": values[kind]} if kind else {}


@dataclass(eq=False, repr=False)
class Walk:
    """A list that is being read page by page."""

    name: str
    user: str | None
    path: str
    filters: dict[str, str]
    cursor: str | None = None
    position: tuple[bool, int, int] | None = None
    shown: list[str] = field(default_factory=list)
    steady: dict[str, tuple[bool, int, int]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name

    @property
    def owner(self) -> str | None:
        """The owner of the list, or None for everyone's public list."""
        return None if self.path == "/tasks/public" else self.user

    @property
    def context(self) -> tuple[Any, ...]:
        """The list that its cursors work for."""
        same = {name: SAME.get(value, value) for name, value in ({"sort": "-created_at"} | self.filters).items()}
        return self.owner, same


class Tasks(RuleBasedStateMachine):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.client = world.client
        self.tasks: dict[str, Task] = {}
        self.deleted: list[str] = []
        self.keys: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
        self.walks: list[Walk] = []
        world.begin_anew()

    @rule(microseconds=st.sampled_from([0, 1, 1_000, 1_000_000, 600_000_000]))
    def wait(self, microseconds: int) -> None:
        self.world.clock.move(microseconds=microseconds)

    @initialize(made=st.lists(st.tuples(st.sampled_from(OWNERS[:2]), bodies), min_size=4, max_size=8))
    def make_some(self, made: list[tuple[str, dict[str, Any]]]) -> None:
        for user, body in made:
            self.create(user, body, None, 1)

    @rule(user=readers, body=bodies, key=keys, count=st.sampled_from([1, 1, 1, 4]))
    def create(self, user: str | None, body: dict[str, Any], key: str | None, count: int) -> None:
        """So many at once under one key; never two tasks at one moment, whose ids sort by chance and not again so."""
        self.world.clock.move(microseconds=1)
        headers = self.world.headers(user) | ({"Idempotency-Key": key} if key else {})

        answers = self.at_once(count if key else 1, lambda _: self.client.post("/tasks/", json=body, headers=headers))

        for answer in answers:
            if user:
                self.created(answer, user, body, key)
            else:
                assert answer.status_code == 401

    def created(self, response: Response, user: str, body: dict[str, Any], key: str | None) -> None:
        whole = DEFAULTS | in_utc(body)
        id_, first = self.keys.get((user, key or ""), ("", whole))
        if first != whole:
            assert faults(response) == [["header", "Idempotency-Key"]]
            self.saw("create", 422)
            return
        if not id_:
            id_, now = response.json()["id"], spell(self.world.clock.now)
            assert id_ not in self.tasks
            assert id_ not in self.deleted
            shown = response.json() | whole | {"id": id_, "owner": user, "created_at": now, "updated_at": now}
            self.tasks[id_] = Task(shown, response.headers["ETag"])
            if key:
                self.keys[user, key] = id_, whole
        else:
            self.saw("create again", 201)
        assert (response.status_code, response.json()) == (201, self.tasks[id_].shown)
        assert response.headers["ETag"] == self.tasks[id_].etag
        assert response.headers["Location"] == f"/tasks/{id_}"
        self.saw("create", 201)

    @rule(who=who, id_=ids, changes=changes_of_any_kind, kind=if_matches, is_whole=st.booleans())
    def change(self, who: str, id_: str, changes: dict[str, Any], kind: str, is_whole: bool) -> None:
        """With the fields that change alone, or with the whole task as it was read."""
        user = self.user(who, id_)
        sent = self.tasks[id_].shown | changes if is_whole and id_ in self.tasks else changes

        response = self.write("PATCH", user, id_, kind, json=sent)

        if self.may_write("change", response, user, id_, kind, 200):
            self.changed(response, id_, changes)
        self.is_as_the_model_has_it(id_)

    @rule(id_=ids, changes=changes_of_any_kind, count=st.integers(2, 4))
    def change_at_once(self, id_: str, changes: dict[str, Any], count: int) -> None:
        """Of changes that all hold the current ETag, one is made."""
        if task := self.tasks.get(id_):
            user = task.owner
            answers = self.at_once(count, lambda _: self.write("PATCH", user, id_, "current", json=changes))

            statuses = sorted(answer.status_code for answer in answers)
            assert statuses == [200] + [412] * (count - 1)
            self.changed(next(answer for answer in answers if answer.is_success), id_, changes)
            self.is_as_the_model_has_it(id_)

    @rule(id_=ids, changes=bad_changes)
    def change_badly(self, id_: str, changes: dict[str, Any]) -> None:
        response = self.write("PATCH", self.user("owner", id_), id_, "", json=changes)

        assert response.status_code == 422
        self.is_as_the_model_has_it(id_)

    @rule(who=who, id_=ids, kind=if_matches)
    def delete(self, who: str, id_: str, kind: str) -> None:
        user = self.user(who, id_)

        response = self.write("DELETE", user, id_, kind)

        if self.may_write("delete", response, user, id_, kind, 204):
            assert response.content == b""
            del self.tasks[id_]
            self.deleted.append(id_)
            self.keys = {name: kept for name, kept in self.keys.items() if kept[0] != id_}
            self.wrote()
        self.is_as_the_model_has_it(id_)

    @rule(who=who, id_=ids, kind=st.sampled_from(["", "current", "weak", "stale", "stale and current", "*"]))
    def read(self, who: str, id_: str, kind: str) -> None:
        task, user = self.tasks.get(id_), self.user(who, id_)
        condition = task.if_match(kind).get("If-Match") if task else '"1"'
        headers = self.world.headers(user) | ({"If-None-Match": condition} if condition else {})

        response = self.client.get(f"/tasks/{id_}", headers=headers)

        if task is None or not task.is_visible_to(user):
            assert (response.status_code, response.content) == (404, NOT_FOUND)
        elif kind in {"", "stale"}:
            assert (response.status_code, response.json()) == (200, task.shown)
        else:
            assert (response.status_code, response.content) == (304, b"")
        assert response.headers.get("ETag") == (task.etag if task and response.status_code < 400 else None)
        self.saw("read", response.status_code)

    @rule(user=readers, path=paths, filters=filters, limit=limits)
    def read_a_list(self, user: str | None, path: str, filters: dict[str, str], limit: int) -> None:
        """Begin to; of those that are open already, one is read to its end before."""
        if len(self.walks) > 1:
            self.read_on(self.walks[0], limit, True)
        walk = Walk(f"{user}'s {path}", user, path, filters)
        if user is None and path == "/tasks/mine":
            assert self.client.get(path, params=filters).status_code == 401
            return
        walk.steady = self.places(walk)
        self.walks.append(walk)
        self.read_a_page(walk, limit)

    @precondition(lambda self: self.walks)
    @rule(walk=walks, limit=limits, is_to_the_end=st.booleans())
    def read_on(self, walk: Walk, limit: int, is_to_the_end: bool) -> None:
        self.read_a_page(walk, limit)
        while walk.cursor and is_to_the_end:
            self.read_a_page(walk, limit)

    @precondition(lambda self: self.walks)
    @rule(walk=walks, user=readers, path=paths, filters=filters)
    def take_a_cursor_elsewhere(self, walk: Walk, user: str | None, path: str, filters: dict[str, str]) -> None:
        other = Walk("elsewhere", user, path, filters)
        if other.context != walk.context and (user or path != "/tasks/mine"):
            params = filters | {"cursor": str(walk.cursor)}

            response = self.client.get(path, params=params, headers=self.world.headers(user))

            assert faults(response) == [["query", "cursor"]]
            self.saw("cursor", 422)

    def read_a_page(self, walk: Walk, limit: int) -> None:
        params = {**walk.filters, "limit": str(limit), **({"cursor": walk.cursor} if walk.cursor else {})}

        response = self.client.get(walk.path, params=params, headers=self.world.headers(walk.user))

        places = self.places(walk)
        rest = sorted((place, id_) for id_, place in places.items() if not walk.position or place > walk.position)
        page = rest[:limit]
        assert response.status_code == 200, response.text
        assert response.json()["items"] == [self.tasks[id_].shown for _, id_ in page]
        walk.cursor = response.json()["next_cursor"]
        assert (walk.cursor is not None) == (len(rest) > limit)
        link = response.links.get("next", {}).get("url")
        assert (link is not None) == (walk.cursor is not None)
        walk.shown += [id_ for _, id_ in page]
        if walk.cursor:
            walk.position = page[-1][0]
        else:
            self.walks.remove(walk)
            shown = Counter(walk.shown)
            assert {id_: shown[id_] for id_ in walk.steady} == dict.fromkeys(walk.steady, 1)
            self.saw("walk of several pages" if walk.position else "walk of one page", 200)

    def user(self, who: str, id_: str) -> str | None:
        """The task's owner, another user, or none."""
        owner = self.tasks[id_].owner if id_ in self.tasks else "ada"
        return {"owner": owner, "another": "bob" if owner == "ada" else "ada", "nobody": None}[who]

    def at_once(self, count: int, send: Callable[[int], Response]) -> list[Response]:
        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(send, range(count)))

    def write(self, method: str, user: str | None, id_: str, kind: str, **body: Any) -> Response:
        task = self.tasks.get(id_)
        headers = self.world.headers(user) | (task.if_match(kind) if task else {})
        return self.client.request(method, f"/tasks/{id_}", headers=headers, **body)

    def may_write(self, what: str, response: Response, user: str | None, id_: str, kind: str, status: int) -> bool:
        """Check whether it was done or refused as it should be; whether it was to be done."""
        task = self.tasks.get(id_)
        if user is None:
            status = 401
        elif task is None or task.owner != user:
            status = 404
            assert response.content == NOT_FOUND
        elif kind == "stale":
            status = 412
        assert response.status_code == status, response.text
        self.saw(what, status)
        return status < 300

    def changed(self, response: Response, id_: str, changes: dict[str, Any]) -> None:
        task = self.tasks[id_]
        task.shown |= in_utc(changes) | {"updated_at": spell(self.world.clock.now)}
        task.old_etags.append(task.etag)
        task.etag = response.headers["ETag"]
        assert response.json() == task.shown
        assert task.etag not in task.old_etags
        self.wrote()

    def is_as_the_model_has_it(self, id_: str) -> None:
        task = self.tasks.get(id_)
        response = self.client.get(f"/tasks/{id_}", headers=self.world.headers(task.owner if task else "ada"))
        if task is None:
            assert (response.status_code, response.content) == (404, NOT_FOUND)
        else:
            assert (response.json(), response.headers["ETag"]) == (task.shown, task.etag)

    def places(self, walk: Walk) -> dict[str, tuple[bool, int, int]]:
        """The tasks of the list, each with its place in the order: those without a date come last, whichever way."""
        sort = walk.filters.get("sort", "-created_at")
        sign, name = (-1, sort[1:]) if sort.startswith("-") else (1, sort)

        def place(task: dict[str, Any]) -> tuple[bool, int, int]:
            return task[name] is None, sign * microseconds(task[name]), sign * UUID(task["id"]).int

        def meets(task: Task) -> bool:
            due_at, status = microseconds(task.shown["due_at"]), walk.filters.get("status")
            before, after = (microseconds(walk.filters.get(name)) for name in ("due_before", "due_after"))
            return (
                (task.owner == walk.owner if walk.owner else task.shown["is_public"])
                and status in {None, task.shown["status"]}
                and (not before or 0 < due_at < before)
                and (not after or due_at > after)
                and is_found(walk.filters.get("q"), f"{task.shown['title']} {task.shown['description'] or ''}")
            )

        return {id_: place(task.shown) for id_, task in self.tasks.items() if meets(task)}

    def wrote(self) -> None:
        """A task that has left a list, or moved in its order, was not there all along."""
        for walk in self.walks:
            walk.steady = dict(walk.steady.items() & self.places(walk).items())

    def saw(self, what: str, status: int) -> None:
        self.world.seen[f"{what}: {status}"] += 1


def spell(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def in_utc(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: SAME.get(value, value) for name, value in fields.items()}


def is_found(q: str | None, text: str) -> bool:
    *others, last = words(q or "") or [""]
    return {*others} <= {*words(text)} and (not last or any(word.startswith(last) for word in words(text)))


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", normalize("NFKD", text).casefold())


def microseconds(time: str | None) -> int:
    """0 for none."""
    return 0 if time is None else round(datetime.fromisoformat(time).astimezone(UTC).timestamp() * 1e6)


def machine(world: World) -> type[Tasks]:
    class TasksOf(Tasks):
        def __init__(self) -> None:
            super().__init__(world)

    return TasksOf


EXPECTED = {
    *(f"create: {status}" for status in (201, 422)),
    *(f"change: {status}" for status in (200, 401, 404, 412)),
    *(f"delete: {status}" for status in (204, 401, 404, 412)),
    *(f"read: {status}" for status in (200, 304, 404)),
    *("create again: 201", "cursor: 422", "walk of one page: 200", "walk of several pages: 200"),
}


def test_tasks_do_as_their_model_does(world: World) -> None:
    run_state_machine_as_test(machine(world), settings=SHORT)

    assert {"create: 201", "change: 200", "delete: 204", "walk of one page: 200"} <= world.seen.keys()


@pytest.mark.long
def test_tasks_do_as_their_model_does_at_length(world: World) -> None:
    run_state_machine_as_test(machine(world), settings=LONG)

    print(*sorted(world.seen.items()), sep="\n")
    assert world.seen.keys() >= EXPECTED
