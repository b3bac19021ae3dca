"""Sessions against a model in plain Python: whatever is done, in whatever order, the rows and answers are the model's.

The model knows every token that was ever issued, and after each step the table must hold the model's rows: one for each
session, at the model's generation, with the end that the login gave it. So a refusal that changed anything shows at
once, and so does a step that reached another session.
"""

import json
import re
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi.testclient import TestClient
from httpx2 import Response
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, delete, inspect, select, text, update

from app.auth.models import LoginSession, Throttle, User
from app.config import Settings
from app.db.connect import connect
from app.db.database import AnySelect, Database
from app.main import create_app
from tests.conftest import CHEAP, SECRET, MovableClock
from tests.support.accounts import EVERYTHING, PASSWORD, bearer, refresh, register
from tests.support.machines import LONG, SHORT
from tests.support.transport import quicken

NAMES = ("ada", "bob", "eve")
SCOPES = tuple(EVERYTHING.split())
GRACE, ACCESS_TTL, SESSION_TTL = 10, 1800, 30 * 86_400
FRESH = timedelta(seconds=300)
STALE = "insufficient_user_authentication"
TABLES: dict[str, AnySelect] = {
    "users": select(User.id, User.username, User.is_active),
    "sessions": select(LoginSession.id, LoginSession.user_id, LoginSession.generation, LoginSession.scope).add_columns(
        LoginSession.created_at,
        LoginSession.rotated_at,
        LoginSession.expires_at,
        LoginSession.ended_at,
        LoginSession.end_reason,
        LoginSession.has_every_scope,
    ),
    "unused": select(LoginSession.id, LoginSession.unused_generation).where(
        LoginSession.unused_generation.is_not(None)
    ),
}

# Likely values stand more than once.
names = st.sampled_from(["ada", "ada", "bob", "eve"])
UNKNOWN = "x"
"""A scope that does not exist. It is refused before anything else is looked at."""
scopes = st.sampled_from(["", "", "", "tasks:read", "tasks:write tasks:read account", "account", "admin", UNKNOWN])
passwords = st.sampled_from([PASSWORD, "another horse battery", "a third horse battery"])
pairs: st.SearchStrategy["Pair"] = st.runner().flatmap(
    lambda machine: st.sampled_from([machine.live_pairs()] * 3 + [machine.pairs]).flatmap(st.sampled_from)
)
generations_back = st.sampled_from([0, 0, 1, 1, 2, None])
kinds = st.sampled_from(["access", "refresh"])


class Service:
    """A service that can be restarted, and a connection to its database that sees what is committed."""

    def __init__(self, settings: Settings, clock: MovableClock, portal: BlockingPortal, database: Database) -> None:
        self.clock = clock
        self._first_settings, self._first_moment = settings, clock.now
        self.seen: Counter[str] = Counter()
        self._portal = portal
        self._database = database
        self._tables = portal.call(database.read, lambda connection: inspect(connection).get_table_names())
        self._tables = [name for name in self._tables if name != "task_words"]  # it keeps no text to read
        self._app = create_app(settings, clock=clock, password_cost=CHEAP)
        self._running = ExitStack()
        self.restart()

    @property
    def settings(self) -> Settings:
        settings: Settings = self._app.state.settings
        return settings

    @property
    def secrets(self) -> list[str]:
        """The one that signs, and the one before, which verifies."""
        given = (self.settings.secret_key, self.settings.secret_key_previous)
        return [secret.get_secret_value() for secret in given if secret]

    def restart(self, **changes: Any) -> None:
        """Make again all that a process keeps in memory: keys, connections, limits."""
        self.close()
        self._app.state.settings = Settings.model_validate(self.settings.model_dump() | changes)
        self.client = self._running.enter_context(TestClient(self._app))
        quicken(self.client)

    def close(self) -> None:
        self._running.close()

    def look(self) -> tuple[dict[str, list[Any]], str]:
        """Read what is committed: the sessions and users as the model has them, and every row of every table."""

        def read(connection: Connection) -> tuple[dict[str, list[Any]], str]:
            rows = {name: sorted(map(tuple, connection.execute(query))) for name, query in TABLES.items()}
            everything = [connection.execute(text(f"SELECT * FROM {table}")).all() for table in self._tables]
            return rows, repr(everything)

        tables, everything = self._portal.call(partial(self._database.read, read))
        return tables, everything

    def change(self, f: Callable[[Connection], object]) -> None:
        self._portal.call(partial(self._database.write, f))

    def begin_anew(self) -> None:
        self.clock.now = self._first_moment
        if self.settings != self._first_settings:
            self.restart(**self._first_settings.model_dump())
        for table in User, Throttle:
            self.change(lambda connection, table=table: connection.execute(delete(table)))  # type: ignore[misc]


@pytest.fixture
def service(settings: Settings, clock: MovableClock) -> Iterator[Service]:
    limits = {"login_failures": 1_000_000, "registration_limit": 0}
    unlimited = Settings.model_validate(settings.model_dump() | limits)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(connect(settings.database)) as database:
        service = Service(unlimited, clock, portal, database)
        yield service
        service.close()


@dataclass(eq=False)
class Person:
    name: str
    id: str
    password: str
    is_active: bool = True
    is_deleted: bool = False


@dataclass(eq=False)
class Login:
    """A session as the contract has it, and the pairs of tokens that it ever brought."""

    id: str
    person: Person
    scopes: frozenset[str]
    has_every_scope: bool
    created_at: datetime
    rotated_at: datetime
    generation: int = 1
    unused: int | None = None
    ended_at: datetime | None = None
    end_reason: str | None = None
    pairs: list["Pair"] = field(default_factory=list)

    @property
    def expires_at(self) -> datetime:
        return self.created_at + timedelta(seconds=SESSION_TTL)

    @property
    def row(self) -> tuple[Any, ...]:
        head = (self.id, self.person.id, self.generation, spell(self.scopes), self.created_at, self.rotated_at)
        return (*head, self.expires_at, self.ended_at, self.end_reason, self.has_every_scope)


@dataclass(eq=False, repr=False)
class Pair:
    """The tokens of one answer of /auth/token."""

    name: str
    login: Login
    access: str
    refresh: str
    secret: str
    scopes: frozenset[str]
    generation: int
    access_expires_at: float
    refresh_expires_at: float

    def __repr__(self) -> str:
        return self.name


class Sessions(RuleBasedStateMachine):
    def __init__(self, service: Service) -> None:
        super().__init__()
        self.service = service
        self.people: dict[str, Person] = {}
        self.logins: list[Login] = []
        self.lost: list[Login] = []  # these ended in the latest step
        self.rotations = 0
        service.begin_anew()

    @property
    def client(self) -> TestClient:
        return self.service.client

    @property
    def now(self) -> datetime:
        return self.service.clock.now

    @initialize()
    def two_people_come(self) -> None:
        for name in "ada", "bob":
            self.register(name)
            self.log_in(name, "")

    @precondition(lambda self: len(self.people) < len(NAMES))
    @rule(name=names)
    def register(self, name: str) -> None:
        if name in self.people:
            response = self.client.post("/users", json={"username": name, "password": PASSWORD})
            self.saw("register", response, 409)
        else:
            self.people[name] = Person(name, register(self.client, name)["id"], PASSWORD)

    @rule(name=names, scope=scopes)
    def log_in(self, name: str, scope: str) -> None:
        person = self.people.get(name)
        asked = frozenset(scope.split()) or frozenset(SCOPES)
        form = {"username": name, "password": person.password if person else PASSWORD, "scope": scope}

        response = self.client.post("/auth/token", data=form)

        if scope == UNKNOWN:
            self.saw("log in", response, 400, "invalid_scope")
            return
        if person is None or not person.is_active:
            self.saw("log in", response, 401, "invalid_grant")
            return
        if not asked <= frozenset(SCOPES):
            self.saw("log in", response, 400, "invalid_scope")
            return
        self.saw("log in", response, 200)
        login = Login(claims_of(response.json()["access_token"])["sid"], person, asked, not scope, self.now, self.now)
        assert login.id not in {other.id for other in self.logins}
        self.logins.append(login)
        self.issued(response, login, asked)

    @rule(name=names)
    def log_in_with_a_wrong_password(self, name: str) -> None:
        response = self.client.post("/auth/token", data={"username": name, "password": "a wrong horse battery"})

        self.saw("log in", response, 401, "invalid_grant")

    @rule(pair=pairs, back=generations_back, scope=scopes)
    def refresh(self, pair: Pair, back: int | None, scope: str) -> None:
        """Use the current token of the pair's session, or an older one, or whatever the pair has."""
        self.refresh_at_once(chosen(pair, back), scope, 1)

    @rule(pair=pairs, back=generations_back, scope=scopes, count=st.integers(2, 8))
    def refresh_in_parallel(self, pair: Pair, back: int | None, scope: str, count: int) -> None:
        self.refresh_at_once(chosen(pair, back), scope, count)

    def refresh_at_once(self, pair: Pair, scope: str, count: int) -> None:
        with ThreadPoolExecutor(count) as threads:
            answers = list(threads.map(lambda _: refresh(self.client, pair.refresh, scope=scope), range(count)))

        outcomes = [self.refresh_in_model(pair, scope) for _ in answers]
        assert sorted(map(gist, answers)) == sorted(outcome[1:] for outcome in outcomes), outcomes
        self.service.seen.update(f"refresh: {outcome}" for outcome, *_ in outcomes)
        asked = frozenset(scope.split()) or pair.login.scopes
        for answer in answers:
            if answer.is_success:
                self.issued(answer, pair.login, asked)

    def refresh_in_model(self, pair: Pair, scope: str) -> tuple[str, int, str]:
        """Refresh in the model. Return the outcome and the gist of the answer, as the contract's table has it."""
        login = pair.login
        if scope == UNKNOWN:
            return "scope", 400, "invalid_scope"
        if reason := self.why_over(pair):
            return reason, 400, "invalid_grant"
        since = (self.now - login.rotated_at).total_seconds()
        grace = self.service.settings.refresh_grace
        is_unused = grace > 0 and login.unused == login.generation
        is_repeat = pair.generation == login.generation - 1 and (since < grace or is_unused)
        if pair.generation != login.generation and not is_repeat:
            self.end(login, "reuse")
            return "reuse", 400, "invalid_grant"
        if not frozenset(scope.split()) <= login.scopes:
            return "scope", 400, "invalid_scope"
        if not is_repeat:
            login.generation += 1
            login.unused = login.generation if grace else None
            login.rotated_at = self.now
        repeat = "repeat" if since < grace else "late repeat"
        return repeat if is_repeat else "move", 200, ""

    def why_over(self, pair: Pair) -> str | None:
        reasons = {
            "secret dropped": pair.secret not in self.service.secrets,
            "expired": self.now.timestamp() >= pair.refresh_expires_at,
            "user deleted": pair.login.person.is_deleted,
            "user disabled": not pair.login.person.is_active,
            f"ended by {pair.login.end_reason}": pair.login.ended_at is not None,
        }
        return next((reason for reason, is_so in reasons.items() if is_so), None)

    @rule(pair=pairs, kind=kinds, hint=st.sampled_from(["", "access_token", "refresh_token", "saml"]))
    def revoke(self, pair: Pair, kind: str, hint: str) -> None:
        form = {"token": getattr(pair, kind), "token_type_hint": hint}

        response = self.client.post("/auth/revoke", data=form)

        self.saw("revoke", response, 200)
        assert response.json() == {}
        if pair.secret in self.service.secrets:
            self.end(pair.login, "revoked")

    @rule(pair=pairs, other=pairs)
    def delete_one_session(self, pair: Pair, other: Pair) -> None:
        login = other.login

        response = self.client.delete(f"/auth/sessions/{login.id}", headers=bearer(pair.access))

        is_there = login.person is pair.login.person and login.ended_at is None and login.expires_at > self.now
        if self.answers(response, "delete session", pair, "account", 204 if is_there else 404):
            self.end(login, "revoked")

    @rule(pair=pairs)
    def delete_the_other_sessions(self, pair: Pair) -> None:
        response = self.client.delete("/auth/sessions", headers=bearer(pair.access))

        if self.answers(response, "delete sessions", pair, "account", 204):
            self.end_others(pair.login, "revoked")

    @rule(pair=pairs, new=passwords, is_right=st.sampled_from([True, True, False]))
    def change_the_password(self, pair: Pair, new: str, is_right: bool) -> None:
        person = pair.login.person
        body = {"current_password": person.password if is_right else "a wrong horse battery", "new_password": new}

        response = self.client.put("/users/me/password", json=body, headers=bearer(pair.access))

        if self.answers(response, "change password", pair, "account", 200 if is_right else 403):
            person.password, old = new, pair.login
            for login in self.logins_of(person):
                self.end(login, "password_changed")
            sid = claims_of(response.json()["access_token"])["sid"]
            renewed = Login(sid, person, old.scopes, old.has_every_scope, old.created_at, self.now)
            self.logins.append(renewed)
            self.issued(response, renewed, pair.scopes)

    @precondition(lambda self: all(person.is_active for person in self.people.values()))
    @rule(name=names)
    def disable(self, name: str) -> None:
        """In one statement past the service: that ends no session, but while it lasts each is good for nothing."""
        if person := self.people.get(name):
            self.activate(person, False)
            self.lost += self.logins_of(person)

    @precondition(lambda self: not all(person.is_active for person in self.people.values()))
    @rule()
    def enable(self) -> None:
        for person in self.people.values():
            self.activate(person, True)

    def activate(self, person: Person, is_active: bool) -> None:
        change = update(User).where(User.id == person.id).values(is_active=is_active)
        self.service.change(lambda connection: connection.execute(change))
        person.is_active = is_active

    @precondition(lambda self: len(self.people) == len(NAMES))
    @rule(pair=pairs)
    def delete_the_user(self, pair: Pair) -> None:
        """And the name is free for somebody else."""
        person = pair.login.person

        response = self.client.delete("/users/me", headers=bearer(pair.access))

        age = self.now - pair.login.created_at
        if self.answers(response, "delete user", pair, "account", 204 if age < FRESH else 401):
            self.lost += self.logins_of(person)
            person.is_deleted = True
            del self.people[person.name]

    @rule(seconds=st.sampled_from([0, 0.000001, 5, 60, 600]))
    def wait(self, seconds: float) -> None:
        self.service.clock.move(seconds=seconds)

    @rule(pair=pairs, end=st.sampled_from(["grace", "grace", "access", "session"]), is_just_before=st.booleans())
    def wait_for_the_end(self, pair: Pair, end: str, is_just_before: bool) -> None:
        """Of the session's grace, the access token, or the session: the moment of it, or the last one before."""
        moments = {
            "grace": pair.login.rotated_at + timedelta(seconds=GRACE),
            "access": datetime.fromtimestamp(pair.access_expires_at, UTC),
            "session": pair.login.expires_at,
        }
        moment = moments[end] - timedelta(microseconds=1 if is_just_before else 0)
        self.service.clock.now = max(moment, self.now)

    @rule(is_new_key=st.sampled_from([False, False, True]), grace=st.sampled_from([GRACE, GRACE, 0]))
    def restart(self, is_new_key: bool, grace: int) -> None:
        changes: dict[str, Any] = {"refresh_grace": grace}
        if is_new_key:
            self.rotations += 1
            secret = f"{SECRET}-{self.rotations}"
            changes |= {"secret_key": secret, "secret_key_previous": self.service.secrets[0]}
        self.service.restart(**changes)

    @rule(pair=pairs, path_and_scope=st.sampled_from([("/users/me", "account"), ("/tasks/mine", "tasks:read")]))
    def use(self, pair: Pair, path_and_scope: tuple[str, str]) -> None:
        path, scope = path_and_scope

        response = self.client.get(path, headers=bearer(pair.access))

        if self.answers(response, "use", pair, scope, 200) and path == "/users/me":
            assert response.json()["id"] == pair.login.person.id

    @rule(pair=pairs)
    def list_the_sessions(self, pair: Pair) -> None:
        response = self.client.get("/auth/sessions", params={"limit": 100}, headers=bearer(pair.access))

        if self.answers(response, "list sessions", pair, "account", 200):
            live = [x.id for x in self.logins_of(pair.login.person) if x.ended_at is None and x.expires_at > self.now]
            items = response.json()["items"]
            assert sorted(item["id"] for item in items) == sorted(live)
            assert [item["id"] for item in items if item["current"]] == [pair.login.id]

    @rule(pair=pairs, other=pairs, kind=kinds)
    def introspect(self, pair: Pair, other: Pair, kind: str) -> None:
        response = self.client.post(
            "/auth/introspect", data={"token": getattr(other, kind)}, headers=bearer(pair.access)
        )

        is_current = self.why_over(other) is None and other.generation == other.login.generation
        is_good = self.is_good(other) if kind == "access" else is_current
        is_active = is_good and other.login.person is pair.login.person
        if self.answers(response, "introspect", pair, None, 200):
            if is_active:
                self.use_in_model(other)
            self.service.seen[f"introspect: {kind} {is_active}"] += 1
            assert response.json()["active"] is is_active

    @invariant()
    def the_rows_are_the_models_and_hold_no_token(self) -> None:
        tables, everything = self.service.look()

        assert tables["sessions"] == sorted(login.row for login in self.logins if not login.person.is_deleted)
        unused = [(login.id, login.unused) for login in self.logins if login.unused and not login.person.is_deleted]
        assert tables["unused"] == sorted(unused)
        assert tables["users"] == sorted((person.id, person.name, person.is_active) for person in self.people.values())
        tokens = [token for pair in self.pairs for token in (pair.access, pair.refresh)]
        assert [token for token in tokens if token.rpartition(".")[2] in everything] == []

    @invariant()
    def nothing_of_what_was_lost_succeeds(self) -> None:
        """Neither the access nor the refresh tokens, whenever they were issued; and to try changes nothing more."""
        lost, self.lost = self.lost, []
        before = self.service.look() if lost else None
        for login in lost:
            for pair in login.pairs:
                use = self.client.get("/tasks/public", headers=bearer(pair.access))
                assert gist(use) == (401, "invalid_token")
                self.present_in_model(pair)
                assert gist(refresh(self.client, pair.refresh)) == (400, "invalid_grant")
        assert before is None or {**self.service.look()[0], "unused": None} == {**before[0], "unused": None}

    def issued(self, response: Response, login: Login, asked: frozenset[str]) -> None:
        """Keep the pair, whose claims are the model's: nothing outlives the session, or can do more than its login."""
        body, now, ends_at = response.json(), int(self.now.timestamp()), int(login.expires_at.timestamp())
        access, refresh = claims_of(body["access_token"]), claims_of(body["refresh_token"])
        common = {"iss": "http://127.0.0.1:8000", "aud": "http://127.0.0.1:8000", "sub": login.person.id}
        common |= {"sid": login.id}
        expires_at = min(now + ACCESS_TTL, ends_at)
        assert access["jti"].endswith(f".{login.generation}")
        of_access = common | {"jti": access["jti"], "iat": now, "exp": expires_at, "scope": spell(asked)}
        of_refresh = common | {"jti": refresh["jti"], "iat": int(login.rotated_at.timestamp()), "exp": ends_at}
        assert access == of_access
        assert refresh == of_refresh | {"scope": spell(login.scopes), "gen": login.generation}
        assert (body["scope"], body["expires_in"]) == (spell(asked), expires_at - now)

        secret = self.service.secrets[0]
        for pair in login.pairs:
            if pair.generation == login.generation:
                assert claims_of(pair.refresh) == refresh
                assert pair.secret != secret or pair.refresh == body["refresh_token"]
            else:
                assert pair.refresh != body["refresh_token"]
            assert pair.access != body["access_token"]
        tokens = (body["access_token"], body["refresh_token"])
        name = f"{login.person.name}/{self.logins.index(login)}/{login.generation}"
        login.pairs.append(Pair(name, login, *tokens, secret, asked, login.generation, expires_at, ends_at))

    def answers(self, response: Response, what: str, pair: Pair, scope: str | None, status: int) -> bool:
        """Check the answer to a request with the pair's access token; whether it was to succeed."""
        self.present_in_model(pair)
        if not self.is_good(pair):
            self.saw(what, response, 401, "invalid_token")
            return False
        if scope and scope not in pair.scopes:
            self.saw(what, response, 403, "insufficient_scope")
            return False
        self.saw(what, response, status, STALE if status == 401 else "")
        return status < 300

    def present_in_model(self, pair: Pair) -> None:
        """Somebody has sent the access token: whether it was good for anything or not, they have it."""
        if pair.secret in self.service.secrets and self.now.timestamp() < pair.access_expires_at:
            self.use_in_model(pair)

    def use_in_model(self, pair: Pair) -> None:
        login = pair.login
        if self.service.settings.refresh_grace and login.ended_at is None and login.unused == pair.generation:
            login.unused = None

    def saw(self, what: str, response: Response, status: int, error: str = "") -> None:
        assert gist(response) == (status, error), response.text
        self.service.seen[f"{what}: {status}"] += 1

    def is_good(self, pair: Pair) -> bool:
        """Whether the access token is."""
        return self.why_over(pair) is None and self.now.timestamp() < pair.access_expires_at

    @property
    def pairs(self) -> list[Pair]:
        return [pair for login in self.logins for pair in login.pairs]

    def live_pairs(self) -> list[Pair]:
        """Those whose refresh tokens are good, or else all."""
        return [pair for pair in self.pairs if not self.why_over(pair)] or self.pairs

    def logins_of(self, person: Person) -> list[Login]:
        return [login for login in self.logins if login.person is person]

    def end_others(self, kept: Login, reason: str) -> None:
        for login in self.logins_of(kept.person):
            if login is not kept:
                self.end(login, reason)

    def end(self, login: Login, reason: str) -> None:
        if login.ended_at is None and not login.person.is_deleted:
            login.ended_at = self.now
            login.end_reason = reason if login.expires_at > self.now else "expired"
            self.lost.append(login)


def chosen(pair: Pair, back: int | None) -> Pair:
    """The latest pair that is so many generations back in the same session, or the pair itself."""
    if back is None:
        return pair
    wanted = pair.login.generation - back
    return next((other for other in reversed(pair.login.pairs) if other.generation == wanted), pair)


def spell(scopes: frozenset[str]) -> str:
    return " ".join(scope for scope in SCOPES if scope in scopes)


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
    return claims


def gist(response: Response) -> tuple[int, str]:
    """The status, and the error's code from the body (RFC 6749 §5.2) or the challenge (RFC 6750 §3)."""
    if not response.is_error:
        return response.status_code, ""
    challenge = re.search('error="([a-z_]+)"', response.headers.get("WWW-Authenticate", ""))
    return response.status_code, response.json().get("error") or (challenge[1] if challenge else "")


EXPECTED = {
    *(f"refresh: {outcome}" for outcome in ("move", "repeat", "late repeat", "reuse", "scope", "expired")),
    "refresh: secret dropped",
    *(f"refresh: {outcome}" for outcome in ("user deleted", "user disabled", "ended by reuse", "ended by revoked")),
    "refresh: ended by password_changed",
    *(f"log in: {status}" for status in (200, 400, 401)),
    *(f"use: {status}" for status in (200, 401, 403)),
    *(f"delete session: {status}" for status in (204, 401, 403, 404)),
    *(f"delete sessions: {status}" for status in (204, 401, 403)),
    *(f"change password: {status}" for status in (204, 401, 403)),
    *(f"delete user: {status}" for status in (204, 401, 403)),
    *(f"introspect: {kind} {is_active}" for kind in ("access", "refresh") for is_active in (True, False)),
    "revoke: 200",
    "list sessions: 200",
}


def machine(service: Service) -> type[Sessions]:
    class SessionsOf(Sessions):
        def __init__(self) -> None:
            super().__init__(service)

    return SessionsOf


def test_sessions_do_as_their_model_does(service: Service) -> None:
    run_state_machine_as_test(machine(service), settings=SHORT)

    assert {"log in: 200", "refresh: move", "refresh: repeat"} <= service.seen.keys()


@pytest.mark.long
def test_sessions_do_as_their_model_does_at_length(service: Service) -> None:
    run_state_machine_as_test(machine(service), settings=LONG)

    print(*sorted(service.seen.items()), sep="\n")
    assert service.seen.keys() >= EXPECTED
