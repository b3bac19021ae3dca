"""Accounts against a model in plain Python: owners, a thief of old tokens and an administrator, in any order.

After each step every row of every account must be the model's, and the mails must be the model's. A row that the step
had no right to change is compared whole. So a refusal that changed anything shows at once, and so does a step that
reached another account.
"""

import json
from base64 import urlsafe_b64decode
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI
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
from sqlalchemy import Connection, delete, select

from app.auth.account_events import KEPT_FOR
from app.auth.models import AccountEvent, LoginSession, RecoveryCode, Throttle, User
from app.auth.services import Services
from app.mail.templates import Mail, Notice
from tests.conftest import MovableClock, Serve
from tests.support.account_model import (
    ACCESS_TTL,
    IDLE_TTL,
    SESSION_TTL,
    Key,
    Mailed,
    People,
    Person,
    Session,
    mails_of,
)
from tests.support.accounts import EVERYTHING, PASSWORD, Login, add_user, bearer, log_in, refresh
from tests.support.machines import LONG, SHORT
from tests.support.mail_hook import HOOK, mails

NAMES = ("ada", "bob", "eve")
FRESH = timedelta(seconds=300)
STALE = "insufficient_user_authentication"
WRONG = "a wrong horse battery"
MISSING = "01a207a2-3280-7000-8422-653b1e4423a0"
OTHER_TABLES = LoginSession.__table__, RecoveryCode.__table__

# Likely values stand more than once.
names = st.sampled_from(["ada", "ada", "bob", "eve"])
addresses = st.sampled_from([None, "one@example.com", "two@example.com", "two@example.com", "Two@example.com"])
typed_names = st.one_of(names, names, st.sampled_from([" ADA ", "one@example.com", "TWO@example.com", "nobody"]))
mostly = st.sampled_from([True, True, True, True, False])
passwords = st.sampled_from([PASSWORD, "another horse battery", "a third horse battery"])
scopes = st.sampled_from(["", "", "", "", "tasks:read", "account", "admin"])
steps = st.sampled_from([0, 0, 0, -1, 1, -2, 2])
code_kinds = st.sampled_from(["", "now", "now", "now", "before", "after", "too late", "too early", "latest", "wrong"])
other_kinds = st.sampled_from(["recovery", "recovery", "used recovery", "of another"])
code_kinds = st.one_of(code_kinds, code_kinds, other_kinds)
STEPS = {"now": 0, "before": -1, "after": 1, "too late": -2, "too early": 2}


def one_of(*lists: str) -> st.SearchStrategy[Any]:
    """One of these lists of the machine's, and one of what it has. The last list is never empty."""

    def choose(machine: "Accounts") -> st.SearchStrategy[Any]:
        named = [getattr(machine, name) for name in lists]
        return st.sampled_from([found for found in named if found]).flatmap(st.sampled_from)

    return st.runner().flatmap(choose)


keys: st.SearchStrategy[Key] = one_of("fresh_keys", "fresh_keys", "live_keys", "live_keys", "keys")
verifications: st.SearchStrategy[Mailed] = one_of("live_verifications", "live_verifications", "verifications")
resets: st.SearchStrategy[Mailed] = one_of("live_resets", "live_resets", "live_resets", "resets")
waits = st.sampled_from([1, *[30] * 6, 60, 60, 60, 300, 3600, 86_400, IDLE_TTL, SESSION_TTL])


@dataclass
class World:
    """The service, and what is committed in its database."""

    client: TestClient
    clock: MovableClock
    root: Login = field(init=False)
    root_since: datetime = field(init=False)
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._start = self.clock.now
        self._services: Services = cast("FastAPI", self.client.app).state.services
        self._portal = cast("BlockingPortal", self.client.portal)

    def begin_anew(self) -> None:
        self.clock.now = self._start
        for table in User, Throttle:
            self._portal.call(self._services.database.write, lambda connection, t=table: connection.execute(delete(t)))
        add_user(self.client, "root", is_admin=True)
        self.log_root_in()
        mails(self.client)

    def log_root_in(self) -> None:
        self.root, self.root_since = log_in(self.client, "root"), self.clock.now

    @property
    def root_headers(self) -> dict[str, str]:
        if self.clock.now - self.root_since > timedelta(hours=12):
            self.log_root_in()
        return self.root.headers

    def look(self) -> dict[str, list[dict[str, Any]]]:
        """Read what is committed once the outbox is empty."""

        def read(connection: Connection) -> dict[str, list[dict[str, Any]]]:
            tables = User, LoginSession, RecoveryCode, AccountEvent
            return {
                table.__tablename__: [dict(row) for row in connection.execute(select(table.__table__)).mappings()]
                for table in tables
            }

        async def drain_and_read() -> dict[str, list[dict[str, Any]]]:
            assert self._services.mail
            await self._services.mail.drained()
            return await self._services.database.read(read)

        return self._portal.call(drain_and_read)


@pytest.fixture
def world(serve: Serve, clock: MovableClock) -> World:
    limits = {"registration_limit": 0, "login_failures": 1_000_000}
    ends = {"access_token_ttl": ACCESS_TTL, "session_ttl": SESSION_TTL, "session_idle_ttl": IDLE_TTL}
    return World(serve(mail_hook=HOOK, refresh_grace=0, **limits, **ends), clock)


class Accounts(RuleBasedStateMachine):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.client = world.client
        self.people = People()
        self.keys: list[Key] = []
        self.verifications: list[Mailed] = []
        self.resets: list[Mailed] = []
        self.touched: set[str] = set()
        self.lost: list[Session] = []  # these ended in the latest step
        world.begin_anew()
        self.before = world.look()

    @property
    def now(self) -> datetime:
        return self.world.clock.now

    @initialize(has_factor=st.booleans())
    def two_people_come(self, has_factor: bool) -> None:
        for name, address in ("ada", "one@example.com"), ("bob", "two@example.com"):
            self.register(name, address)
            self.the_rows_and_mails_are_the_models()
            self.log_in(name, True, "", "")
        self.verify(self.verifications[0])
        if has_factor:
            self.turn_the_factor_on(self.keys[0], "before")

    # Anybody

    @rule(name=names, address=addresses)
    def register(self, name: str, address: str | None) -> None:
        body = {"username": name, "password": PASSWORD} | ({"email": address} if address else {})

        response = self.send("POST", "/users", json=body)

        if name in self.people.by_name:
            self.saw("register", response, 409, "username_taken")
            return
        self.saw("register", response, 201)
        person = Person(name, response.json()["id"], PASSWORD, address)
        self.people.by_name[name] = person
        self.touched.add(person.id)
        if address:
            self.people.mails.append(("verify_email", address, name, None))

    @rule(name=names)
    def log_in_well(self, name: str) -> None:
        self.log_in(name, True, "now", "")

    @rule(name=names)
    def log_in_by_the_address(self, name: str) -> None:
        """Verified or not."""
        person = self.people.by_name.get(name)
        if person and person.email:
            self.log_in(person.email.upper(), True, "now", "")

    @precondition(lambda self: self.guarded)
    @rule(name=one_of("guarded"), kind=code_kinds, scope=st.sampled_from(["", "", "", "admin"]))
    def log_in_with_a_code(self, name: str, kind: str, scope: str) -> None:
        self.log_in(name, True, kind, scope)

    @precondition(lambda self: self.guarded)
    @rule(name=one_of("guarded"), kind=st.sampled_from(["now", "latest", "recovery", "used recovery"]))
    def log_in_with_a_code_again(self, name: str, kind: str) -> None:
        """A code that has worked is used up."""
        self.log_in(name, True, kind, "")
        self.log_in(name, True, {"recovery": "used recovery"}.get(kind, "latest"), "")

    @rule(typed=typed_names, is_right=mostly, kind=code_kinds, scope=scopes)
    def log_in(self, typed: str, is_right: bool, kind: str, scope: str) -> None:
        person = self.people.find(typed)
        code = self.code(person, kind)
        password = person.password if person and is_right else WRONG
        form = {"username": typed, "password": password, "scope": scope, "otp": as_typed(code)}

        response = self.send("POST", "/auth/token", data=form)

        if person is None or not is_right or not person.is_active:
            self.saw("log in", response, 401, "invalid_credentials")
            if person:
                reason = "wrong password" if person.is_active else "disabled user"
                person.record("login_failed", self.now, reason=reason)
            return
        was = person.step, [*person.recovery_codes], [*person.used_codes]
        used = None
        if person.step is not None:
            if not code:
                self.saw("log in", response, 400, "mfa_required")
                person.record("login_refused", self.now, reason="no one-time code")
                return
            used = person.use(code, self.now)
            if used is None:
                self.saw(f"log in with {kind}", response, 401, "invalid_one_time_code")
                person.record("login_failed", self.now, reason="wrong one-time code")
                return
        asked = frozenset((scope or EVERYTHING).split())
        if "admin" in asked:
            self.saw("log in", response, 400, "invalid_scope")
            person.record("login_refused", self.now, reason="scope")
            person.step, person.recovery_codes, person.used_codes = was  # the code is not used up
            return
        self.saw(f"log in with {used}", response, 200)
        self.touched.add(person.id)
        expires_at = self.now + timedelta(seconds=SESSION_TTL)
        session = Session(session_of(response), person, "login", asked, self.now, self.now, expires_at)
        person.sessions.append(session)
        self.issued(response, session, asked)
        person.record("login_succeeded", self.now, session)
        if used == "recovery code":
            person.record("recovery_code_used", self.now, session)
            self.people.notify(person, Notice.RECOVERY_CODE_USED)

    @rule(typed=typed_names)
    def forget_the_password(self, typed: str) -> None:
        response = self.send("POST", "/users/forgot-password", json={"username": typed})

        self.saw("forgot", response, 202)
        person = self.people.find(typed)
        network = ("forgotten", timedelta(hours=1), 30)
        limits = [network, *mails_of(f"reset {person.id if person else typed.strip().lower()}")]
        if self.people.count(self.now, limits) and person and person.is_verified and person.email and person.is_active:
            self.world.seen["forgot: mailed"] += 1
            self.touched.add(person.id)
            person.record("password_reset_requested", self.now)
            self.people.mails.append(("reset_password", person.email, person.name, None))

    @precondition(lambda self: self.resets)
    @rule(token=resets, new=passwords)
    def reset_the_password(self, token: Mailed, new: str) -> None:
        person = token.person

        response = self.send("POST", "/users/reset-password", json={"reset_token": token.text, "new_password": new})

        if not self.is_good_reset(token):
            self.saw("reset", response, 400, "invalid_reset_token")
            return
        self.saw("reset", response, 204)
        self.touched.add(person.id)
        person.password, person.reset = new, None
        person.changes += 1
        person.record("password_reset", self.now)
        self.end(person.sessions, "password_changed")
        self.people.notify(person, Notice.PASSWORD_CHANGED)

    @precondition(lambda self: self.verifications)
    @rule(token=verifications)
    def verify(self, token: Mailed) -> None:
        person = token.person

        response = self.send("POST", "/users/verify-email", json={"verification_token": token.text})

        is_expired = self.now.timestamp() >= token.expires_at
        if is_expired or person.is_deleted or not person.is_active or person.email != token.address:
            self.saw("verify", response, 400, "invalid_verification_token")
        elif person.is_verified:
            self.saw("verify again", response, 204)
        elif self.people.verified(person.email or ""):
            self.saw("verify", response, 409, "email_taken")
        else:
            self.saw("verify", response, 204)
            self.touched.add(person.id)
            person.is_verified = True
            person.changes += 1
            person.record("email_verified", self.now)

    # With a token

    @rule(key=keys, back=st.sampled_from([0, 0, 0, 1, 2]), scope=st.sampled_from(["", "", "tasks:read", "account"]))
    def refresh(self, key: Key, back: int, scope: str) -> None:
        """Every refresh token works once here: REFRESH_GRACE is 0."""
        session, person = key.session, key.session.person
        if session.kind == "personal":
            return
        generation = session.generation - back
        key = next((other for other in session.keys if other.generation == generation), key)
        asked = frozenset(scope.split())
        self.world.clock.move(microseconds=1)

        response = refresh(self.client, key.refresh, scope=scope)

        is_expired = self.now.timestamp() >= int(session.expires_at.timestamp())
        is_over = is_expired or not session.is_live(self.now)
        if is_over or not person.is_active or person.is_deleted:
            self.saw("refresh", response, 400, "invalid_grant")
        elif key.generation != session.generation:
            self.saw("refresh", response, 400, "token_reused")
            self.touched.add(person.id)
            self.end([session], "reuse")
            self.people.notify(person, Notice.TOKEN_REUSED)
        elif not asked <= session.scopes:
            self.saw("refresh", response, 400, "invalid_scope")
        else:
            self.saw("refresh", response, 200)
            self.touched.add(person.id)
            session.generation += 1
            session.rotated_at = self.now
            self.issued(response, session, asked or session.scopes)

    @rule(key=keys, path_and_scope=st.sampled_from([("/users/me", "account"), ("/tasks/mine", "tasks:read")]))
    def use(self, key: Key, path_and_scope: tuple[str, str]) -> None:
        path, scope = path_and_scope

        response = self.send("GET", path, key)

        if self.answers(response, f"use {key.session.kind}", key, scope, 200) and path == "/users/me":
            person, profile = key.session.person, response.json()
            shown = [profile[name] for name in ("id", "username", "email", "email_verified", "is_active", "totp")]
            state = [person.email, person.is_verified, True, person.step is not None]
            assert shown == [person.id, person.name, *state]

    @rule(key=keys)
    def list_the_sessions(self, key: Key) -> None:
        response = self.send("GET", "/auth/sessions?limit=100", key)

        if self.answers(response, "list sessions", key, "account", 200):
            self.shows_live(response, key.session.person, "login")

    @rule(key=keys)
    def list_the_tokens(self, key: Key) -> None:
        response = self.send("GET", "/auth/tokens?limit=100", key)

        if self.answers(response, "list tokens", key, "account", 200):
            self.shows_live(response, key.session.person, "personal")

    def shows_live(self, response: Response, person: Person, kind: str) -> None:
        live = [session for session in person.sessions if session.kind == kind and session.is_live(self.now)]
        uses_shown = [(item["id"], item["last_used_at"]) for item in response.json()["items"]]
        shown = [(id_, used and moment(used)) for id_, used in uses_shown]
        uses = {session.id: session.rotated_at for session in live}
        if kind == "personal":
            uses = {session.id: session.rotated_at for session in live if session.rotated_at != session.created_at}
        assert sorted(shown) == sorted((session.id, uses.get(session.id)) for session in live)

    @rule(key=keys, scope=st.sampled_from([None, None, "account", "tasks:read account"]), days=st.sampled_from([1, 40]))
    def make_a_token(self, key: Key, scope: str | None, days: int) -> None:
        body = {"name": "A script", "expires_in": days * 86_400} | ({"scope": scope} if scope else {})
        asked = frozenset((scope or "tasks:read tasks:write").split())

        response = self.send("POST", "/auth/tokens", key, json=body)

        lacks = not asked <= key.scopes
        status, code = (403, "insufficient_scope") if lacks else (201, "")
        if self.answers(response, "make token", key, "account", status, code, is_fresh=True):
            person, made = key.session.person, response.json()
            self.touched.add(person.id)
            expires_at = self.now + timedelta(days=days)
            session = Session(made["id"], person, "personal", asked, self.now, self.now, expires_at)
            person.sessions.append(session)
            session.keys = [Key(session, made["token"], asked, int(expires_at.timestamp()))]
            self.keys += session.keys
            person.record("token_created", self.now, session)
            self.people.notify(person, Notice.TOKEN_CREATED)

    @rule(key=keys, other=keys)
    def delete_one(self, key: Key, other: Key) -> None:
        """Delete a session or a personal token."""
        session = other.session
        word = "session" if session.kind == "login" else "token"

        response = self.send("DELETE", f"/auth/{word}s/{session.id}", key)

        is_there = session.person is key.session.person and session.is_live(self.now)
        status, code = (204, "") if is_there else (404, f"{word}_not_found")
        if self.answers(response, f"delete {session.kind}", key, "account", status, code):
            self.touched.add(session.person.id)
            self.end([session], "revoked")

    @rule(key=keys)
    def delete_the_other_sessions(self, key: Key) -> None:
        response = self.send("DELETE", "/auth/sessions", key)

        if self.answers(response, "delete sessions", key, "account", 204):
            person = key.session.person
            self.touched.add(person.id)
            others = [other for other in person.sessions if other is not key.session and other.kind == "login"]
            self.end(others, "revoked")

    @rule(key=keys)
    def revoke(self, key: Key) -> None:
        response = self.send("POST", "/auth/revoke", data={"token": key.text})

        self.saw("revoke", response, 200)
        if not key.session.person.is_deleted:
            self.touched.add(key.session.person.id)
            self.end([key.session], "revoked")

    @rule(key=keys, is_right=mostly, new=passwords)
    def change_the_password(self, key: Key, is_right: bool, new: str) -> None:
        session, person = key.session, key.session.person
        body = {"current_password": person.password if is_right else WRONG, "new_password": new}

        response = self.send("PUT", "/users/me/password", key, json=body)

        status, code = (200, "") if is_right else (403, "wrong_password")
        if session.kind == "personal":
            status, code = 401, STALE
        if self.answers(response, "change password", key, "account", status, code):
            self.touched.add(person.id)
            person.password = new
            person.changes += 1
            renewed = Session(
                session_of(response), person, "login", session.scopes, session.created_at, self.now, session.expires_at
            )
            self.end([other for other in person.sessions if other.kind == "login"], "password_changed")
            person.sessions.append(renewed)
            self.issued(response, renewed, key.scopes)
            person.record("password_changed", self.now, renewed)
            self.people.notify(person, Notice.PASSWORD_CHANGED)
        elif code == "wrong_password" and response.status_code == 403 and "account" in key.scopes:
            person.record("password_change_failed", self.now, session, "wrong password")

    @rule(key=keys, address=addresses)
    def change_the_address(self, key: Key, address: str | None) -> None:
        person = key.session.person

        response = self.send("PATCH", "/users/me", key, json={"email": address})

        is_other = address != person.email
        if self.answers(response, "change address", key, "account", 200, is_fresh=is_other) and is_other:
            self.touched.add(person.id)
            self.people.notify(person, Notice.EMAIL_CHANGED)
            person.email, person.is_verified = address, False
            person.changes += 1
            person.record("email_changed", self.now, key.session)

    @rule(key=keys)
    def ask_for_a_verification(self, key: Key) -> None:
        person = key.session.person

        response = self.send("POST", "/users/me/verify-email", key)

        if not self.would_do(key, "account"):
            self.answers(response, "ask for verification", key, "account", 202)
        elif not person.email or person.is_verified:
            self.answers(response, "ask for verification", key, "account", 409, "nothing_to_verify")
        elif self.people.count(self.now, mails_of(f"verification {person.id}")):
            self.answers(response, "ask for verification", key, "account", 202)
            self.people.mails.append(("verify_email", person.email, person.name, None))
        else:
            self.answers(response, "ask for verification", key, "account", 429, "too_many_attempts")

    @rule(key=keys)
    def set_up_the_factor(self, key: Key) -> None:
        person = key.session.person

        response = self.send("POST", "/users/me/totp", key)

        status, code = (201, "") if person.step is None else (409, "totp_active")
        if self.answers(response, "set up", key, "account", status, code, is_fresh=True):
            self.touched.add(person.id)
            person.secret = response.json()["secret"]

    @rule(key=keys, kind=code_kinds)
    def activate_the_factor(self, key: Key, kind: str) -> None:
        person = key.session.person
        code = self.code(person, kind)

        response = self.send("PUT", "/users/me/totp", key, json={"code": as_typed(code)})

        step = person.step_of(code, self.now)
        status, code = (200, "") if step else (403, "wrong_code")
        if person.secret is None:
            status, code = 409, "totp_not_set_up"
        if person.step is not None:
            status, code = 409, "totp_active"
        if self.answers(response, "activate", key, "account", status, code, is_fresh=True):
            self.touched.add(person.id)
            person.step, person.recovery_codes = step, response.json()["recovery_codes"]
            person.changes += 1
            person.record("totp_enabled", self.now, key.session)
            self.people.notify(person, Notice.TOTP_ENABLED)

    @precondition(lambda self: self.fresh_keys)
    @rule(key=one_of("fresh_keys"), kind=st.sampled_from(["now", "before"]))
    def turn_the_factor_on(self, key: Key, kind: str) -> None:
        self.set_up_the_factor(key)
        self.activate_the_factor(key, kind)

    @precondition(lambda self: any(person.step for person in self.people))
    @rule(key=keys)
    def remove_the_factor(self, key: Key) -> None:
        person = key.session.person

        response = self.send("DELETE", "/users/me/totp", key)

        if self.answers(response, "remove factor", key, "account", 204, is_fresh=True):
            self.touched.add(person.id)
            if person.remove_factor():
                person.record("totp_disabled", self.now, key.session)
                self.people.notify(person, Notice.TOTP_DISABLED)

    @precondition(lambda self: len(self.people.by_name) == len(NAMES))
    @rule(key=keys)
    def delete_the_account(self, key: Key) -> None:
        response = self.send("DELETE", "/users/me", key)

        if self.answers(response, "delete account", key, "account", 204, is_fresh=True):
            self.remove(key.session.person)

    @rule(key=keys)
    def read_the_record(self, key: Key) -> None:
        response = self.send("GET", "/users/me/events?limit=100", key)

        if self.answers(response, "read record", key, "account", 200):
            items = response.json()["items"]
            times = [moment(item["at"]) for item in items]
            assert times == sorted(times, reverse=True)
            shown = [(item["event"], item["session_id"], item["reason"], moment(item["at"])) for item in items]
            kept = [event for event in key.session.person.events if event[-1] > self.now - KEPT_FOR]
            latest = sorted(kept, key=lambda event: event[-1])[-100:]
            assert sorted(map(repr, shown)) == sorted(map(repr, latest))

    # The administrator

    @rule(name=names, is_active=st.sampled_from([True, True, False]))
    def disable_or_enable(self, name: str, is_active: bool) -> None:
        person = self.administer("PATCH", name, "", 200, json={"is_active": is_active})
        if person:
            person.changes += 1
            if person.is_active != is_active:
                person.record("user_changed", self.now, reason="enabled" if is_active else "disabled")
            if not is_active:
                self.end(person.sessions, "disabled")
            person.is_active = is_active

    @rule(name=names)
    def reset_the_factor(self, name: str) -> None:
        person = self.administer("DELETE", name, "/totp", 204)
        if person and person.remove_factor():
            person.record("totp_disabled", self.now)
            self.people.notify(person, Notice.TOTP_DISABLED)

    @rule(name=names)
    def end_the_sessions(self, name: str) -> None:
        if person := self.administer("DELETE", name, "/sessions", 204):
            self.end(person.sessions, "revoked")

    @precondition(lambda self: len(self.people.by_name) == len(NAMES))
    @rule(name=names)
    def delete_the_user(self, name: str) -> None:
        if person := self.administer("DELETE", name, "", 204):
            self.remove(person)

    @rule(name=names)
    def issue_a_reset_token(self, name: str) -> None:
        person = self.people.by_name.get(name)
        address = person.email if person and person.is_verified else None

        response = self.send("POST", f"/users/{person.id if person else MISSING}/reset-token", as_root=True)

        if person is None or not person.is_active:
            missing, disabled = (404, "user_not_found"), (409, "user_disabled")
            self.saw("issue reset", response, *(disabled if person else missing))
            return
        self.touched.add(person.id)
        person.record("reset_token_issued", self.now)
        if address:
            self.saw("issue reset", response, 202)
            assert "reset_token" not in response.json()
            self.people.mails.append(("reset_password", address, name, None))
        else:
            self.saw("issue reset", response, 201)
            self.got_reset(person, response.json()["reset_token"], None)

    def administer(self, method: str, name: str, path: str, status: int, **body: Any) -> Person | None:
        person = self.people.by_name.get(name)

        response = self.send(method, f"/users/{person.id if person else MISSING}{path}", as_root=True, **body)

        what = f"administrator: {method} {path}"
        if person is None:
            self.saw(what, response, 404, "user_not_found")
        else:
            self.saw(what, response, status)
            self.touched.add(person.id)
        return person

    @rule(seconds=waits)
    def wait(self, seconds: int) -> None:
        self.world.clock.move(seconds=seconds)

    # Rules that hold after each step

    @invariant()
    def the_rows_and_mails_are_the_models(self) -> None:
        after = self.world.look()
        root = {row["id"] for row in after["users"] if row["username"] == "root"}
        gone = {person.id for person in self.people.gone}
        was, is_ = rows_by_user(self.before, root | gone), rows_by_user(after, root | gone)
        untouched = (was.keys() | is_.keys()) - self.touched
        assert {id_: is_.get(id_) for id_ in untouched} == {id_: was.get(id_) for id_ in untouched}
        self.before, self.touched = after, set()

        people = list(self.people.by_name.values())
        codes = Counter(row["user_id"] for row in after["recovery_codes"])
        users = [
            (
                *(row[name] for name in ("id", "username", "email", "email_verified", "is_active")),
                *(row["totp_secret"] is not None, row["totp_step"], codes[row["id"]]),
            )
            for row in after["users"]
            if row["id"] not in root and row["deleted_at"] is None
        ]
        assert sorted(users) == sorted(person.row for person in people)
        for person in people:
            rows = [row for row in after["sessions"] if row["user_id"] == person.id]
            columns = ("created_at", "rotated_at", "expires_at", "ended_at", "end_reason")
            sessions = [
                (row["id"], row["kind"], row["generation"], frozenset(row["scope"].split()), *map(row.get, columns))
                for row in rows
            ]
            by_id = {session.id: session.row for session in person.sessions}
            assert {row[0]: row for row in sessions} == by_id
            events = [
                (row["event"], row["session_id"], row["reason"], row["at"])
                for row in after["account_events"]
                if row["user_id"] == person.id
            ]
            assert sorted(map(repr, events)) == sorted(map(repr, person.events))
        self.mails_are_the_models()

    def mails_are_the_models(self) -> None:
        sent, expected = mails(), self.people.mails
        self.people.mails = []
        assert Counter(map(gist, sent)) == Counter(expected)
        for mail in sent:
            person = self.people.by_name[mail.username]
            if mail.kind == "verify_email":
                token = Mailed(person, str(mail.token), mail.to, 0, int(self.now.timestamp()) + 86_400)
                self.verifications.append(token)
            elif mail.kind == "reset_password":
                self.got_reset(person, str(mail.token), mail.to)

    @invariant()
    def nothing_of_what_was_lost_succeeds(self) -> None:
        lost, self.lost = self.lost, []
        for session in lost:
            for key in session.keys:
                assert self.client.get("/tasks/public", headers=bearer(key.text)).status_code == 401
                if key.refresh:
                    assert refresh(self.client, key.refresh).status_code == 400
        if lost:
            self.the_rows_and_mails_are_the_models()

    # Help for the rules

    def send(self, method: str, path: str, key: Key | None = None, *, as_root: bool = False, **body: Any) -> Response:
        """Send a request, no two at one moment. A personal token is noted as used."""
        self.world.clock.move(microseconds=1)
        headers = self.world.root_headers if as_root else {}
        if key:
            headers = bearer(key.text)
            if key.session.kind == "personal" and key.is_known(self.now):
                key.session.note_use(self.now)
        return self.client.request(method, path, headers=headers, **body)

    def answers(
        self,
        response: Response,
        what: str,
        key: Key,
        scope: str,
        status: int,
        code: str = "",
        *,
        is_fresh: bool = False,
    ) -> bool:
        """Check the answer to a request with the key; whether it was to succeed."""
        session = key.session
        if not key.is_good(self.now) or session.person.is_deleted:
            status, code = 401, "invalid_token"
        elif scope not in key.scopes:
            status, code = 403, "insufficient_scope"
        elif is_fresh and not self.is_fresh(session):
            status, code = 401, STALE
        self.saw(what, response, status, code)
        return status < 300

    def would_do(self, key: Key, scope: str) -> bool:
        return key.is_good(self.now) and not key.session.person.is_deleted and scope in key.scopes

    def saw(self, what: str, response: Response, status: int, code: str = "") -> None:
        found = response.json().get("code", "") if response.is_error else ""
        assert (response.status_code, found) == (status, code), (what, response.text)
        self.world.seen[f"{what}: {status} {code}".strip()] += 1

    def issued(self, response: Response, session: Session, asked: frozenset[str]) -> None:
        body, now, ends_at = response.json(), int(self.now.timestamp()), int(session.expires_at.timestamp())
        expires_at = min(now + ACCESS_TTL, ends_at)
        access, renewal = claims_of(body["access_token"]), claims_of(body["refresh_token"])
        assert (access["sub"], access["sid"], access["exp"]) == (session.person.id, session.id, expires_at)
        assert (renewal["sub"], renewal["sid"], renewal["exp"]) == (session.person.id, session.id, ends_at)
        assert frozenset(body["scope"].split()) == frozenset(access["scope"].split()) == asked
        key = Key(session, body["access_token"], asked, expires_at, body["refresh_token"], session.generation)
        session.keys.append(key)
        self.keys.append(key)

    def code(self, person: Person | None, kind: str) -> str:
        """A code for a login as this person. Some kinds are right."""
        person = person or next(iter(self.people.by_name.values()))
        if kind in STEPS:
            return person.code(self.now, STEPS[kind])
        others = [other for other in self.people if other is not person]
        choices = {
            "latest": [person.latest_code()],
            "wrong": [f"{(int(person.code(self.now, 0)) + 1) % 1_000_000:06}"],
            "recovery": person.recovery_codes,
            "used recovery": person.used_codes,
            "of another": [code for other in others for code in [*other.recovery_codes, other.code(self.now, 0)]],
        }
        return next(iter(choices.get(kind, [])), "")

    def end(self, sessions: list[Session], reason: str) -> None:
        """End those that are not ended, and record those that were live."""
        events = {"login": "session_revoked", "personal": "token_revoked"}
        for session in sessions:
            if session.ended_at is None:
                if session.is_live(self.now):
                    event = "token_reused" if reason == "reuse" else events[session.kind]
                    session.person.record(event, self.now, session, reason)
                session.end_reason = reason if session.is_live(self.now) else "expired"
                session.ended_at = self.now
                self.lost.append(session)

    def remove(self, person: Person) -> None:
        self.touched.add(person.id)
        del self.people.by_name[person.name]
        person.is_deleted = True
        self.people.gone.append(person)
        self.lost += person.sessions

    def got_reset(self, person: Person, text: str, address: str | None) -> None:
        person.reset = Mailed(person, text, address, person.changes, int(self.now.timestamp()) + 3600)
        self.resets.append(person.reset)

    def is_good_reset(self, token: Mailed) -> bool:
        person = token.person
        is_latest = person.reset is token and person.changes == token.changes
        return is_latest and person.is_active and not person.is_deleted and self.now.timestamp() < token.expires_at

    @property
    def guarded(self) -> list[str]:
        """The names of those whose second factor is on."""
        return [name for name, person in self.people.by_name.items() if person.step is not None]

    @property
    def live_keys(self) -> list[Key]:
        good = [key for key in self.keys if key.is_good(self.now) and not key.session.person.is_deleted]
        return [key for key in good if key is key.session.keys[-1]]

    @property
    def fresh_keys(self) -> list[Key]:
        return [key for key in self.live_keys if "account" in key.scopes and self.is_fresh(key.session)]

    def is_fresh(self, session: Session) -> bool:
        return session.kind == "login" and self.now - session.created_at < FRESH

    @property
    def live_verifications(self) -> list[Mailed]:
        return [token for token in self.verifications if token.address == token.person.email]

    @property
    def live_resets(self) -> list[Mailed]:
        return [token for token in self.resets if self.is_good_reset(token)]


def rows_by_user(tables: dict[str, list[dict[str, Any]]], others: set[str]) -> dict[str, str]:
    """Write out all that the tables have of each user. When personal tokens were used, the model says."""
    texts: dict[str, list[str]] = {}
    for name in "users", "sessions", "recovery_codes":
        for row in tables[name]:
            user_id = row["id" if name == "users" else "user_id"]
            texts.setdefault(user_id, []).append(f"{name}: { {k: v for k, v in row.items() if k != 'rotated_at'} }")
    return {user_id: "\n".join(sorted(rows)) for user_id, rows in texts.items() if user_id not in others}


def gist(mail: Mail) -> tuple[str, str, str, Notice | None]:
    what = next((notice for notice in Notice if notice.value in mail.text), None)
    return mail.kind, mail.to, mail.username, what


def as_typed(code: str) -> str:
    """Spaces, hyphens and letter case in a code do not matter."""
    return f" {code[:3]} {code[3:].upper().replace('-', ' ')}" if code else ""


def session_of(response: Response) -> str:
    return str(claims_of(response.json().get("access_token", "..")).get("sid")) if response.is_success else ""


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
    return claims


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def machine(world: World) -> type[Accounts]:
    class AccountsOf(Accounts):
        def __init__(self) -> None:
            super().__init__(world)

    return AccountsOf


CODES_REFUSED = "latest", "now", "of another", "too early", "too late", "used recovery", "wrong"
EXPECTED = {
    *(f"log in with {what}: 200" for what in ("None", "one-time code", "recovery code")),
    *(f"log in with {kind}: 401 invalid_one_time_code" for kind in CODES_REFUSED),
    *("log in: 400 invalid_scope", "log in: 400 mfa_required", "log in: 401 invalid_credentials"),
    *("refresh: 200", "refresh: 400 invalid_grant", "refresh: 400 token_reused", "revoke: 200"),
    *("register: 201", "register: 409 username_taken", "forgot: 202", "forgot: mailed"),
    *("verify: 204", "verify again: 204", "verify: 400 invalid_verification_token", "verify: 409 email_taken"),
    *("ask for verification: 202", "ask for verification: 429 too_many_attempts"),
    *("reset: 204", "reset: 400 invalid_reset_token", "issue reset: 201", "issue reset: 202"),
    *(f"issue reset: {refusal}" for refusal in ("404 user_not_found", "409 user_disabled")),
    *("activate: 200", "activate: 403 wrong_code", "activate: 409 totp_active", "activate: 409 totp_not_set_up"),
    *("set up: 201", "set up: 409 totp_active", "remove factor: 204", "delete account: 204"),
    *("change password: 200", "change password: 403 wrong_password", f"change password: 401 {STALE}"),
    *("make token: 201", f"make token: 401 {STALE}", f"change address: 401 {STALE}", "change address: 200"),
    *("delete login: 204", "delete login: 404 session_not_found", "delete sessions: 204"),
    *("delete personal: 204", "delete personal: 404 token_not_found"),
    *(f"use {kind}: {end}" for kind in ("login", "personal") for end in ("200", "401 invalid_token")),
    *("list sessions: 200", "list tokens: 200", "read record: 200"),
    *(f"administrator: {what}: 204" for what in ("DELETE ", "DELETE /sessions", "DELETE /totp")),
    "administrator: PATCH : 200",
}


def test_accounts_do_as_their_model_does(world: World) -> None:
    run_state_machine_as_test(machine(world), settings=SHORT)

    assert {"log in with None: 200", "verify: 204", "use login: 200"} <= world.seen.keys()


@pytest.mark.long
def test_accounts_do_as_their_model_does_at_length(world: World) -> None:
    run_state_machine_as_test(machine(world), settings=LONG)

    print(*sorted(world.seen.items()), sep="\n")
    assert world.seen.keys() >= EXPECTED
