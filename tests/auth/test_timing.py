"""Neither the steps nor the time of a refusal tells why: who has an account, or what became of a session."""

import json
import logging
import random
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httpx2
import pytest
from argon2 import low_level
from argon2.exceptions import VerifyMismatchError
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event

from app.__main__ import cli
from app.auth.passwords import Cost, Passwords, Verdict
from app.clock import utc_now
from app.config import Settings
from app.main import create_app
from tests.conftest import CHEAP, SECRET, MovableClock, Serve, Sql
from tests.support.accounts import PASSWORD, bearer, refresh, register, sign_up
from tests.support.hashing import CORRUPT
from tests.support.processes import services
from tests.support.races import log_in
from tests.support.second_factor import Factor, activate

WRONG: Final = {
    "wrong": "wrong horse battery",
    "over 128 characters": "x" * 129,
    "over 128 in NFC": "\U0001d160" * 100,
    "over 4,096": "x" * 4097,
}
ANY: Final = WRONG | {"right": PASSWORD}
FATES: Final = {
    "signed out": "UPDATE sessions SET ended_at = rotated_at, end_reason = 'revoked'",
    "password changed": "UPDATE sessions SET ended_at = rotated_at, end_reason = 'password_changed'",
    "ended by reuse": "UPDATE sessions SET ended_at = rotated_at, end_reason = 'reuse'",
    "expired": "UPDATE sessions SET expires_at = rotated_at",
    "gone": "DELETE FROM sessions",
    "user disabled": "UPDATE users SET is_active = FALSE",
    "user deleted": "DELETE FROM users",
}

PAIRS: Final = 2_000
CONTROL_PAIRS: Final = 300
WARM_UP: Final = 50
USERS: Final = 50
RUNS: Final = 3
RESAMPLES: Final = 1_000
LIKE_A_COIN: Final = (0.45, 0.55)

Trace = Callable[..., list[str]]
Pair = tuple[float, float]


class Steps(logging.Handler):
    """The steps of the service, in order: transactions, statements, hashes with their cost, and log lines."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[str] = []
        self._verify, self._hash = low_level.verify_secret, low_level.hash_secret

    def emit(self, record: logging.LogRecord) -> None:
        self.taken.append(f"log {record.levelname} {json.loads(record.getMessage())['event']}")

    def verify_secret(self, stored: bytes, secret: bytes, kind: low_level.Type) -> Any:
        """A hash that is corrupt costs nothing, and is no step."""
        try:
            is_right = self._verify(stored, secret, kind)
        except VerifyMismatchError:
            self._add_hash(stored)
            raise
        self._add_hash(stored)
        return is_right

    def hash_secret(self, **arguments: Any) -> bytes:
        made = self._hash(**arguments)
        self._add_hash(made)
        return made

    def _add_hash(self, made: bytes) -> None:
        self.taken.append("hash " + made.decode().rsplit("$", 2)[0])


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trace]:
    """The steps that the service takes while `trace(f, …)` runs `f(…)`."""
    steps = Steps()
    listeners = {
        "begin": lambda *_: steps.taken.append("begin"),
        "commit": lambda *_: steps.taken.append("commit"),
        "rollback": lambda *_: steps.taken.append("rollback"),
        "after_cursor_execute": lambda *arguments: steps.taken.append(f"sql {arguments[2]}"),
    }

    def run(f: Callable[..., object], *arguments: object) -> list[str]:
        steps.taken.clear()
        f(*arguments)
        return steps.taken.copy()

    logger = logging.getLogger("app")
    monkeypatch.setattr(low_level, "verify_secret", steps.verify_secret)
    monkeypatch.setattr(low_level, "hash_secret", steps.hash_secret)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(steps)
    for name, listener in listeners.items():
        event.listen(Engine, name, listener)
    yield run
    for name, listener in listeners.items():
        event.remove(Engine, name, listener)
    logger.removeHandler(steps)
    logger.setLevel(level)


def kinds(steps: list[str], kind: str) -> list[str]:
    return [step for step in steps if step.split()[0] == kind]


def fail_to_log_in(client: TestClient, username: str, password: str) -> None:
    response = client.post("/auth/token", data={"username": username, "password": password})
    assert response.status_code == 401


def fail_to_refresh(client: TestClient, token: str) -> None:
    assert refresh(client, token).status_code == 400


def test_every_refused_login_takes_the_same_steps(serve: Serve, sql: Sql, trace: Trace, clock: MovableClock) -> None:
    client = serve(login_failures=1_000_000)
    for username in "ada", "disabled", "corrupt":
        register(client, username)
    activate(client, sign_up(client, "protected"), clock.now)
    sql("UPDATE users SET is_active = FALSE WHERE username = 'disabled'")
    fail_to_log_in(client, "nobody", PASSWORD)

    taken = {("ada", name): trace(fail_to_log_in, client, "ada", password) for name, password in WRONG.items()}
    taken |= {("protected", name): trace(fail_to_log_in, client, "protected", WRONG[name]) for name in WRONG}
    for username in "nobody", "disabled":
        taken |= {(username, name): trace(fail_to_log_in, client, username, ANY[name]) for name in ANY}
    for kind, stored in CORRUPT.items():
        sql(f"UPDATE users SET password_hash = '{stored}' WHERE username = 'corrupt'")
        taken |= {(kind, name): trace(fail_to_log_in, client, "corrupt", ANY[name]) for name in ("right", "over 4,096")}

    steps = taken["ada", "wrong"]
    assert {case: others for case, others in taken.items() if others != steps} == {}
    assert kinds(steps, "hash") == ["hash $argon2id$v=19$m=8,t=1,p=1"]
    assert kinds(steps, "log") == ["log INFO login_failed", "log INFO request"]
    assert kinds(steps, "commit") == ["commit"] * 2  # the counters, and the record
    assert len(kinds(steps, "sql")) >= 4


def test_a_code_costs_no_other_hash_than_a_wrong_password(
    client: TestClient, trace: Trace, clock: MovableClock
) -> None:
    """A right password with no code, with a wrong one and with a right one, and a wrong password."""
    factor = activate(client, sign_up(client), clock.now)
    forms = [
        {"password": PASSWORD},
        {"password": PASSWORD, "otp": "000000"},
        {"password": PASSWORD, "otp": factor.recovery_codes[0]},
        {"password": "wrong horse battery"},
        {"password": "wrong horse battery", "otp": factor.code(clock.now)},
    ]

    answers: list[int] = []
    taken = [
        trace(lambda form=form: answers.append(client.post("/auth/token", data={"username": "ada"} | form).status_code))
        for form in forms
    ]

    assert answers == [400, 401, 200, 401, 401]
    assert [kinds(steps, "hash") for steps in taken] == [["hash $argon2id$v=19$m=8,t=1,p=1"]] * len(forms)
    assert taken[-1] == taken[-2]


def test_every_throttled_login_takes_the_same_steps(serve: Serve, sql: Sql, trace: Trace, clock: MovableClock) -> None:
    """The account has had no session there. To look for one costs the same for a name that nobody has."""
    client = serve(login_failures=1)
    user_id = register(client)["id"]
    fail_to_log_in(client, "ada", "wrong horse battery")
    for name in "nobody", user_id:
        fail_to_log_in(client, name, PASSWORD)
    sql("UPDATE throttle SET hits = 1000")
    taken = {}
    for name in "ada", "nobody", user_id, "ADA ":
        clock.move(seconds=1)
        form = {"username": name, "password": PASSWORD}
        taken[name] = trace(lambda form=form: client.post("/auth/token", data=form))

    steps = taken["ada"]
    assert {case: others for case, others in taken.items() if others != steps} == {}
    assert len(kinds(steps, "sql")) == 3
    assert kinds(steps, "hash") == kinds(steps, "commit") == []


@pytest.mark.parametrize("cost", [CHEAP, Cost(16, 2, 2), Cost()], ids=["cheap", "dearer", "default"])
def test_nobodys_password_costs_what_a_new_users_does(sqlite_url: str, trace: Trace, cost: Cost) -> None:
    settings = Settings(database_url=sqlite_url, secret_key=SECRET)
    with TestClient(create_app(settings, password_cost=cost)) as client:
        hashes = [
            kinds(trace(register, client), "hash"),
            kinds(trace(fail_to_log_in, client, "ada", "wrong horse battery"), "hash"),
            kinds(trace(fail_to_log_in, client, "nobody", "wrong horse battery"), "hash"),
        ]

    assert hashes == [[f"hash $argon2id$v=19$m={cost.memory},t={cost.passes},p={cost.lanes}"]] * 3


def test_every_refused_refresh_takes_the_same_steps(
    client: TestClient, sql: Sql, trace: Trace, database_url: str
) -> None:
    """The steps do not show how the session ended."""
    taken = {}
    for fate, statement in FATES.items():
        token = sign_up(client).refresh_token
        sql(statement)
        taken[fate] = trace(fail_to_refresh, client, token)
        sql("DELETE FROM users")

    steps = taken["gone"]
    assert {fate: others for fate, others in taken.items() if others != steps} == {}
    assert kinds(steps, "log") == ["log INFO refresh_refused", "log INFO request"]
    transactions = 2 if database_url.startswith("sqlite") else 1  # on PostgreSQL a read is no transaction
    assert kinds(steps, "commit") == ["commit"] * transactions


def test_a_foreign_refresh_token_reads_no_session(client: TestClient, clock: MovableClock, trace: Trace) -> None:
    login = sign_up(client)
    taken = {
        "garbage": trace(fail_to_refresh, client, "x"),
        "signature changed": trace(fail_to_refresh, client, login.refresh_token[:-9] + "A" * 9),
        "access token": trace(fail_to_refresh, client, login.access_token),
    }
    clock.move(days=30)
    taken["expired"] = trace(fail_to_refresh, client, login.refresh_token)

    steps = taken["garbage"]
    assert {reason: others for reason, others in taken.items() if others != steps} == {}
    assert kinds(steps, "log") == ["log INFO refresh_refused", "log INFO request"]
    assert all("throttle" in step or step == "sql BEGIN IMMEDIATE" for step in kinds(steps, "sql"))


@contextmanager
def service(database_url: str, *words: str) -> Iterator[str]:
    """A process that never throttles, with some users, half of them with a second factor; its URL."""
    settings = {"database_url": database_url, "secret_key": SECRET, "registration_limit": 0}
    with services(1, *words, login_failures=1_000_000, **settings) as (url,):
        for n in range(USERS):
            member, protected = (
                {"username": f"{name}-{n:02}", "password": PASSWORD} for name in ("member", "protected")
            )
            for user in member, protected:
                httpx2.post(f"{url}/users", json=user).raise_for_status()
            headers = bearer(log_in(url, protected)["access_token"])
            secret = httpx2.post(f"{url}/users/me/totp", headers=headers).raise_for_status().json()["secret"]
            code = {"code": Factor(secret, []).code(utc_now())}
            httpx2.put(f"{url}/users/me/totp", json=code, headers=headers).raise_for_status()
        yield url


def measure(url: str, pairs: int, other: str = "nobody") -> list[Pair]:
    """Seconds that a wrong password takes, of a user and of another name: one after the other, in random order."""
    measured = []
    with closing(HTTPConnection(urlsplit(url).netloc)) as connection:
        for n in range(WARM_UP + pairs):
            names = [f"member-{n % USERS:02}", f"{other}-{n % USERS:02}"]
            seconds = {name: seconds_of_a_refusal(connection, name) for name in random.sample(names, 2)}
            measured.append((seconds[names[0]], seconds[names[1]]))
    return measured[WARM_UP:]


def seconds_of_a_refusal(connection: HTTPConnection, username: str) -> float:
    form = urlencode({"username": username, "password": "wrong horse battery"})
    start = time.perf_counter()
    connection.request("POST", "/auth/token", form, {"Content-Type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    answer.read()
    seconds = time.perf_counter() - start
    assert answer.status == 401
    return seconds


def auc(pairs: Sequence[Pair]) -> float:
    """How often nobody's time is the longer one of two that are drawn: ½ if they are alike, 0 if it is always less."""
    users = sorted(user for user, _ in pairs)
    ranks = sum(bisect_left(users, nobody) + bisect_right(users, nobody) for _, nobody in pairs)
    return ranks / 2 / len(pairs) ** 2


def interval(pairs: Sequence[Pair]) -> tuple[float, float]:
    """The interval of 99 % of the samples that are drawn from these pairs."""
    aucs = sorted(auc(random.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    cut = RESAMPLES // 200
    return aucs[cut], aucs[-cut - 1]


def report(title: str, pairs: Sequence[Pair]) -> tuple[float, float]:
    low, high = interval(pairs)
    user, nobody = (sorted(times)[len(pairs) // 2] * 1000 for times in zip(*pairs, strict=True))
    print(
        f"{title}: {len(pairs)} pairs, median {user:.2f} ms of a user and {nobody:.2f} ms of the other, "
        f"AUC {auc(pairs):.3f}, 99 % from {low:.3f} to {high:.3f}"
    )
    return low, high


@pytest.mark.long
@pytest.mark.parametrize("other", ["nobody", "protected"])
def test_the_time_of_a_refused_login_tells_nothing(database_url: str, other: str) -> None:
    """Neither of an account nor of its second factor.

    A machine with other work gives an odd run; three of them in a row are more than chance.
    """
    with service(database_url) as url:
        for run in range(RUNS):
            low, high = report(f"run {run + 1}", measure(url, PAIRS, other))
            if low <= LIKE_A_COIN[1] and high >= LIKE_A_COIN[0]:
                return
    pytest.fail("the times differ")


@pytest.mark.long
def test_without_the_dummy_hash_the_time_would_tell(database_url: str) -> None:
    with service(database_url, "tests.auth.test_timing") as url:
        pairs = measure(url, CONTROL_PAIRS)

    report("without the dummy", pairs)
    assert auc(pairs) < 0.1


def serve_without_dummy() -> None:
    """Run the service, in which a user that is not there costs no hash."""
    verify = Passwords.verify

    async def without_dummy(self: Passwords, password: str, stored: str | None, network: str) -> Verdict:
        return await verify(self, password, stored, network) if stored else Verdict(False)

    Passwords.verify = without_dummy  # type: ignore[method-assign]
    cli(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    serve_without_dummy()
