"""The login throttle: who guesses is told to wait, the owner is not locked out, and nobody learns which names exist."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest
from argon2 import low_level
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response

from app.auth.errors import HashingQueueFull, TooManyAttempts
from app.auth.forms import PasswordForm
from app.auth.local_throttle import REMEMBERED, TURN_SECONDS, LocalThrottle
from app.auth.throttle import Limiter
from app.config import Settings
from app.main import create_app
from tests.conftest import CHEAP, SECRET, MovableClock, Serve, Sql, on_one_database
from tests.support.accounts import PASSWORD, add_user, bearer, register
from tests.support.hashing import Library
from tests.support.loops import MovableLoop
from tests.support.oauth_errors import assert_oauth_error
from tests.support.statements import after_each_statement
from tests.support.transport import quicken

PROXY = "10.0.0.1"
HOME, AFAR = "192.0.2.1", "198.51.100.1"
WRONG = "wrong horse battery"
WAIT = "Too many attempts; try again later"
DAY = 86400
BAD_REFRESH = {"grant_type": "refresh_token", "refresh_token": "x"}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """A service behind a proxy, where X-Forwarded-For says who asks. Made once: its first request takes 40 ms."""
    settings = Settings(database_url="sqlite:///./unused.db", trusted_proxies=(PROXY,))
    return create_app(settings, password_cost=CHEAP)


@pytest.fixture
def start(app: FastAPI, settings: Settings, clock: MovableClock) -> Iterator[Serve]:
    """Start it with other settings than the usual: `start(login_failures=1)`."""
    with ExitStack() as stack:

        def start(**changes: Any) -> TestClient:
            app.state.settings, app.state.clock = settings.model_copy(update=changes), clock
            client = stack.enter_context(TestClient(app, client=(PROXY, 4711)))
            quicken(client)
            return client

        yield start


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setattr(low_level, "verify_secret", library.verify_secret)
    return library


def guess(client: TestClient, ip: str = HOME, username: str = "ada", password: str = WRONG, **fields: str) -> Response:
    form = {"username": username, "password": password} | fields
    return client.post("/auth/token", data=form, headers={"X-Forwarded-For": ip})


def sign_in(client: TestClient, ip: str = HOME, username: str = "ada") -> str:
    """An access token, from there."""
    response = guess(client, ip, username, PASSWORD)
    assert response.status_code == 200, response.text
    return str(response.json()["access_token"])


def statuses(count: int, send: Callable[[], Response]) -> list[int]:
    return [send().status_code for _ in range(count)]


def revoke(client: TestClient, token: str) -> None:
    assert client.post("/auth/revoke", data={"token": token}).status_code == 200


def assert_throttled(response: Response, seconds: int) -> None:
    assert_oauth_error(response, "temporarily_unavailable", 429)
    assert response.json()["error_description"] == response.json()["detail"] == WAIT
    assert response.headers["Retry-After"] == str(seconds)


def burn(client: TestClient) -> None:
    """With login_failures=1: guess at ada until no address may that does not know her."""
    assert [guess(client, f"203.0.113.{n}").status_code for n in range(10)] == [401] * 10


@pytest.mark.rfc("6585", "4")
@pytest.mark.rfc("6749", "4.3.2")
def test_the_eleventh_attempt_is_429_also_with_the_password(start: Serve) -> None:
    """It is also 429 for every spelling of the grant type."""
    client = start()
    register(client)
    grants: list[dict[str, str]] = [{}, {"grant_type": ""}, {"grant_type": "password"}]

    failures = [guess(client, **grants[n % 3]).status_code for n in range(10)]

    assert failures == [401] * 10
    for grant in grants:
        assert_throttled(guess(client, **grant), 900)
        assert_throttled(guess(client, password=PASSWORD, **grant), 900)
    assert guess(client, AFAR, password=PASSWORD).status_code == 200


def test_a_count_restarts_after_its_window(start: Serve, clock: MovableClock) -> None:
    """A throttled attempt does not prolong the window."""
    client = start(login_failures=3, login_window=60)
    assert guess(client).status_code == 401
    clock.move(seconds=59.5)
    assert statuses(2, lambda: guess(client)) == [401, 401]

    for _ in range(3):
        assert_throttled(guess(client), 1)
    clock.move(seconds=0.5)

    assert statuses(3, lambda: guess(client)) == [401, 401, 401]
    assert_throttled(guess(client), 60)


def test_a_success_clears_counts_of_the_account_only(start: Serve) -> None:
    client = start(login_failures=2)
    register(client)

    mixed = [guess(client, password=password).status_code for _ in range(3) for password in (WRONG, PASSWORD)]
    others = [guess(client, username=f"name-{n}").status_code for n in range(17)]

    assert mixed == [401, 200] * 3
    assert others == [401] * 17
    assert_throttled(guess(client, password=PASSWORD), 900)
    assert guess(client, AFAR, password=PASSWORD).status_code == 200


def test_a_success_elsewhere_frees_no_address_that_has_guessed(start: Serve) -> None:
    client = start(login_failures=1)
    register(client)
    guess(client, AFAR)

    sign_in(client, HOME)

    assert_throttled(guess(client, AFAR, password=PASSWORD), 900)


def test_an_address_is_limited_over_all_names(start: Serve) -> None:
    """It does not matter whether the names have accounts."""
    client = start(login_failures=1)
    register(client)

    answers = [guess(client, username=name).status_code for name in ("ada", "\u00e5da", *"bcdefghi")]

    assert answers == [401] * 10
    for name in "ada", "somebody":
        assert_throttled(guess(client, username=name, password=PASSWORD), 900)
    assert guess(client, AFAR, password=PASSWORD).status_code == 200


@on_one_database
def test_an_ipv6_address_counts_as_its_64_or_as_its_ipv4(start: Serve, subtests: pytest.Subtests) -> None:
    client = start(login_failures=1)

    for one, other, is_same in (
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.3", "::ffff:192.0.2.3", True),
        ("::ffff:192.0.2.4", "::ffff:192.0.2.5", False),
        ("2001:db8:0:1::1", "2001:DB8:0:1:ffff:ffff:ffff:ffff", True),
        ("2001:db8:0:2::1", "2001:db8:0:3::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("unknown", "_hidden", False),
        ("192.0.2.6", "64:ff9b::192.0.2.6", True),
        ("64:ff9b::192.0.2.7", "64:ff9b::192.0.2.8", False),
        ("64:ff9b::1:192.0.2.9", "64:ff9b::1:192.0.2.10", True),
        ("192.0.2.11", "::ffff:0:192.0.2.11", True),
        ("::ffff:1:192.0.2.12", "::ffff:1:192.0.2.13", True),
        ("192.0.2.14", "64:ff9b:1::192.0.2.14", True),
        ("192.0.2.14", "64:ff9b:1:ffff:ffff:ffff:192.0.2.14", True),
        ("192.0.2.33", "64:ff9b:1:c000:2:2100::", True),
        ("64:ff9b:1:c000:2:2200::", "64:ff9b:1:c000:2:2300::", False),
        ("64:ff9b:2::192.0.2.15", "64:ff9b:2::192.0.2.16", True),
    ):
        with subtests.test(f"{one} and {other}"):
            name = f"{one}, {other}"
            assert guess(client, one, name).status_code == 401
            assert guess(client, other, name).status_code == (429 if is_same else 401)


def test_an_account_takes_a_hundred_guesses_from_all_addresses(start: Serve, clock: MovableClock) -> None:
    """The limit holds until a day after the latest guess."""
    client = start()
    register(client)
    addresses = iter([f"192.0.2.{n}" for n in range(60)] + [f"2001:db8:0:{n:x}::1" for n in range(60)])

    assert statuses(50, lambda: guess(client, next(addresses), "ada")) == [401] * 50
    clock.move(hours=12)
    assert statuses(50, lambda: guess(client, next(addresses), "ADA")) == [401] * 50

    for hours in range(24, 0, -6):
        assert_throttled(guess(client, next(addresses), "Ada", PASSWORD), hours * 3600)
        clock.move(hours=6)
    assert guess(client, next(addresses)).status_code == 401


def test_guesses_from_afar_do_not_lock_the_owner_out(start: Serve) -> None:
    client = start(login_failures=1)
    register(client)
    sign_in(client, "2001:db8:0:1::1")
    burn(client)
    assert_throttled(guess(client, AFAR, password=PASSWORD), DAY)

    sign_in(client, "2001:db8:0:1::2")

    assert guess(client, AFAR).status_code == 401


def test_an_owner_who_errs_at_home_waits_as_long_as_anybody(start: Serve, clock: MovableClock) -> None:
    client = start(login_failures=1)
    register(client)
    sign_in(client)
    burn(client)

    assert guess(client).status_code == 401
    assert_throttled(guess(client, password=PASSWORD), 900)

    clock.move(seconds=900)
    sign_in(client)


def test_an_account_is_spared_at_addresses_of_recent_sessions(start: Serve, clock: MovableClock) -> None:
    """Until 30 days after the session was ended, or has expired. An expired one that is ended later is not kept so."""
    client = start(login_failures=1, session_ttl=3600)
    register(client)
    register(client, "bob")
    tokens = {ip: sign_in(client, ip) for ip in (f"2001:db8:0:{n}::1" for n in range(4))}
    revoked, revoked_too, expired, expired_too = tokens
    of_another = "2001:db8:0:9::1"
    sign_in(client, of_another, "bob")
    for ip in revoked, revoked_too:
        revoke(client, tokens[ip])
    clock.move(hours=2)
    revoke(client, tokens[expired_too])
    clock.move(days=30, hours=-2)
    burn(client)

    def is_spared(ip: str) -> bool:
        return guess(client, ip.replace("::1", "::2")).status_code == 401

    assert not is_spared(of_another)
    assert is_spared(revoked)
    clock.move(microseconds=1)
    assert not is_spared(revoked_too)
    clock.move(hours=1, microseconds=-1)
    assert is_spared(expired)
    clock.move(microseconds=1)
    assert not is_spared(expired_too)


def test_a_live_session_spares_the_account_however_old_it_is(start: Serve, clock: MovableClock, sql: Sql) -> None:
    client = start(login_failures=1, session_ttl=90 * DAY)
    register(client)
    sign_in(client)
    sign_in(client, AFAR)
    sql(f"UPDATE sessions SET network = NULL WHERE ip = '{AFAR}'")  # as an older version has made it
    clock.move(days=89)
    burn(client)

    assert [guess(client, ip).status_code for ip in (HOME, AFAR, "192.0.2.9")] == [401, 401, 429]


def test_a_logged_out_owner_logs_in_at_home_despite_guesses(start: Serve, clock: MovableClock) -> None:
    client = start(login_window=1)
    register(client)
    revoke(client, sign_in(client))
    for _ in range(10):
        assert statuses(10, lambda: guess(client, AFAR)) == [401] * 10
        clock.move(seconds=1)
    assert_throttled(guess(client, "198.51.100.9", password=PASSWORD), DAY - 1)

    sign_in(client)


@pytest.mark.parametrize("how", ["unlock", "enable"])
def test_an_administrator_unlocks_an_account(start: Serve, sql: Sql, how: str) -> None:
    client = start(login_failures=1)
    user_id = register(client)["id"]
    register(client, "bob")
    add_user(client, "root", is_admin=True)
    root = bearer(sign_in(client, "192.0.2.2", "root"))
    burn(client)
    guess(client, AFAR, "bob")
    assert_throttled(guess(client, password=PASSWORD), DAY)

    if how == "unlock":
        answer = client.post(f"/users/{user_id}/unlock", headers=root)
        assert (answer.status_code, answer.content) == (204, b"")
    else:
        for body in {"is_admin": False}, {"is_active": False}:
            assert client.patch(f"/users/{user_id}", json=body, headers=root).status_code == 200
        sql("UPDATE users SET is_active = TRUE WHERE username = 'ada'")
        assert_throttled(guess(client, password=PASSWORD), DAY)
        assert client.patch(f"/users/{user_id}", json={"is_active": True}, headers=root).status_code == 200

    sign_in(client)
    sign_in(client, "203.0.113.1")
    assert_throttled(guess(client, AFAR, "bob", PASSWORD), 900)


def test_an_unlocked_account_still_waits_at_a_limited_address(start: Serve) -> None:
    client = start(login_failures=1)
    user_id = register(client)["id"]
    add_user(client, "root", is_admin=True)
    root = bearer(sign_in(client, "192.0.2.2", "root"))
    for n in range(9):
        guess(client, AFAR, f"name-{n}")
    guess(client, AFAR)
    assert_throttled(guess(client, AFAR, password=PASSWORD), 900)

    client.post(f"/users/{user_id}/unlock", headers=root)

    assert_throttled(guess(client, AFAR, password=PASSWORD), 900)
    sign_in(client)


def test_an_account_does_not_inherit_guesses_at_its_name(start: Serve) -> None:
    client = start(login_failures=1)
    burn(client)
    assert_throttled(guess(client, password=PASSWORD), DAY)

    register(client)

    sign_in(client)


def test_the_id_of_an_account_is_a_name_like_any_other(start: Serve) -> None:
    client = start(login_failures=1)
    user_id = register(client)["id"]

    assert [guess(client, username=user_id).status_code for _ in range(2)] == [401, 429]

    sign_in(client)


@on_one_database
def test_white_space_around_a_name_is_dropped(start: Serve) -> None:
    client = start(login_failures=3)
    register(client)

    sign_in(client, username="\tada \N{NO-BREAK SPACE}")
    names = "ada ", " ada", "ada\n"

    assert [guess(client, username=name).status_code for name in names] == [401] * 3
    assert_throttled(guess(client, password=PASSWORD), 900)
    assert guess(client, username=" \t").json()["detail"] == "username: Field required"


@pytest.mark.parametrize("ahead", [{"days": 1}, {"days": 400}])
def test_counts_of_a_clock_that_was_ahead_lock_nobody_out(
    start: Serve, clock: MovableClock, ahead: dict[str, float]
) -> None:
    client = start(login_failures=1, registration_limit=1)
    register(client)
    now = clock.now
    clock.move(**ahead)
    burn(client)
    for n in range(9):
        guess(client, HOME, f"name-{n}")
    guess(client, HOME)
    assert [guess(client, ip, password=PASSWORD).status_code for ip in (HOME, AFAR)] == [429, 429]
    bob = {"username": "bob", "password": PASSWORD}
    assert [client.post("/users", json=bob | {"username": f"b{n}b"}).status_code for n in range(2)] == [201, 429]
    clock.now = now

    sign_in(client, AFAR)
    sign_in(client, HOME)
    clock.move(hours=1)
    assert client.post("/users", json=bob).status_code == 201


@pytest.mark.parametrize(
    ("ahead", "answers"),
    [({"seconds": 60}, [401, 429]), ({"seconds": 60, "microseconds": 1}, [401, 401, 429])],
    ids=["a minute", "more"],
)
def test_the_clock_of_another_host_may_be_a_minute_ahead(
    start: Serve, clock: MovableClock, ahead: dict[str, float], answers: list[int]
) -> None:
    """Otherwise guesses at both hosts in turn would reset each count."""
    client = start(login_failures=2)
    now = clock.now
    clock.move(**ahead)
    assert guess(client).status_code == 401
    clock.now = now

    assert statuses(len(answers), lambda: guess(client)) == answers
    assert_throttled(guess(client, password=PASSWORD), 900)


@pytest.mark.parametrize(("failures", "tries"), [(1, 24), pytest.param(10, 200, marks=pytest.mark.long)])
def test_a_name_that_nobody_has_is_throttled_as_any_other(
    start: Serve, clock: MovableClock, failures: int, tries: int
) -> None:
    """Each name is tried from as many addresses of its own, at the same moments."""
    client = start(login_failures=failures)
    register(client, "Ada")
    spellings = [str.lower, str.upper, str.title]
    answers: dict[str, list[tuple[int, bytes, str | None]]] = {"ada": [], "eve": []}

    for n in range(tries):
        clock.move(seconds=5 * n)
        for (name, seen), network in zip(answers.items(), ("192.0.2", "198.51.100"), strict=True):
            response = guess(client, f"{network}.{n // (failures + 1)}", spellings[n % 3](name))
            seen.append((response.status_code, response.content, response.headers.get("Retry-After")))

    assert answers["ada"] == answers["eve"]
    waits = [int(wait) for _, _, wait in answers["ada"] if wait]
    assert {status for status, _, _ in answers["ada"]} == {401, 429}
    assert min(waits) < 900 < max(waits) <= DAY


def test_a_throttled_login_changes_nothing_and_hashes_nothing(
    start: Serve, clock: MovableClock, sql: Sql, library: Library
) -> None:
    client = start(login_failures=1)
    register(client)
    burn(client)
    answers = [guess(client, username=f"name-{n}").status_code for n in range(10)]
    assert answers == [401] * 10
    before = sql("SELECT * FROM throttle ORDER BY key")
    clock.move(seconds=1)

    for ip, name in (AFAR, "ada"), (HOME, "name-0"), (HOME, "bob"), (HOME, "ada"):
        assert guess(client, ip, name, PASSWORD).status_code == 429

    assert sql("SELECT * FROM throttle ORDER BY key") == before
    assert len(library.work) == 20


def test_refusals_only_read(start: Serve, clock: MovableClock) -> None:
    client = start(login_failures=1, registration_limit=2)
    register(client)
    token = sign_in(client, PROXY)
    burn(client)
    answers = [guess(client, username=f"name-{n}").status_code for n in range(9)]
    answers += [guess(client, username="ada").status_code]
    answers += [401 if client.post("/auth/token", data=BAD_REFRESH).status_code == 400 else 0 for _ in range(10)]
    register(client, "bob")
    change = {"current_password": WRONG, "new_password": "another horse battery"}
    assert client.put("/users/me/password", json=change, headers=bearer(token)).status_code == 403
    assert answers == [401] * 9 + [429] + [401] * 10
    guess(client, username="name-9")
    clock.move(seconds=1)
    statements: list[str] = []

    with after_each_statement(statements.append):
        refused = [
            guess(client, AFAR),  # the account's limit
            guess(client, HOME, "somebody"),  # the address's
            guess(client, "203.0.113.1"),  # both
            client.post("/auth/token", data=BAD_REFRESH),
            client.post("/users", json={"username": "eve", "password": PASSWORD}),
            client.put("/users/me/password", json=change, headers=bearer(token)),
        ]

    assert [answer.status_code for answer in refused] == [429] * 6
    assert len(statements) > 6
    assert [statement for statement in statements if not statement.startswith("SELECT")] == []
    assert [statement for statement in statements if "FOR " in statement] == []


def test_ten_of_64_parallel_guesses_are_hashed(start: Serve, library: Library) -> None:
    client = start()

    with ThreadPoolExecutor(64) as threads:
        answers = list(threads.map(lambda _: guess(client).status_code, range(64)))

    assert sorted(answers) == [401] * 10 + [429] * 54
    assert len(library.work) == 10


def test_right_logins_at_once_are_no_failures(start: Serve, library: Library) -> None:
    client = start(login_failures=1)
    register(client)

    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(lambda _: guess(client, password=PASSWORD).status_code, range(32)))

    assert answers == [200] * 32
    assert len(library.work) == 32


def test_a_guess_that_waits_too_long_is_told_to_retry() -> None:
    turns = LocalThrottle()

    async def wait() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MovableLoop)
        async with turns.turn("ada", HOME), turns.turn("ada", AFAR):
            loop.call_soon(loop.move, TURN_SECONDS)
            with pytest.raises(HashingQueueFull):
                async with turns.turn("ada", HOME):
                    pytest.fail("it was somebody else's turn")
        async with turns.turn("ada", HOME):
            pass

    with asyncio.Runner(loop_factory=MovableLoop) as runner:
        runner.run(wait())


def test_guesses_do_not_block_a_password_change(start: Serve, clock: MovableClock) -> None:
    """A user who is logged in can change the password."""
    client = start(login_failures=1, access_token_ttl=DAY)
    register(client)
    token = sign_in(client)
    burn(client)
    assert_throttled(guess(client, AFAR, password=PASSWORD), DAY)

    def change(ip: str, current: str) -> int:
        body = {"current_password": current, "new_password": "another horse battery"}
        return client.put("/users/me/password", json=body, headers=bearer(token) | {"X-Forwarded-For": ip}).status_code

    guesses = [change(f"198.51.100.{n}", WRONG) for n in range(10)]

    assert guesses == [403] * 10
    assert change(AFAR, PASSWORD) == 429, "a thief of the token has no more guesses than anybody else"
    clock.move(days=1, seconds=-1)
    assert change(AFAR, PASSWORD) == 429
    token = sign_in(client)
    assert change(AFAR, PASSWORD) == 200


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_right_password_is_no_failure_if_the_database_fails(start: Serve, sql: Sql) -> None:
    client = start(login_failures=2)
    register(client)
    sql(
        "CREATE FUNCTION busy() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'busy' USING ERRCODE = 'lock_not_available'; END $$"
    )
    sql("CREATE TRIGGER busy BEFORE INSERT ON sessions EXECUTE FUNCTION busy()")
    try:
        refused = [guess(client, password=PASSWORD).status_code for _ in range(3)]
    finally:
        sql("DROP FUNCTION busy CASCADE")

    assert refused == [503] * 3
    assert guess(client, password=PASSWORD).status_code == 200


@pytest.mark.parametrize("what", ["login", "refresh", "registration"])
def test_a_flood_from_one_address_reads_once_a_second(start: Serve, clock: MovableClock, sql: Sql, what: str) -> None:
    client = start(login_failures=1, registration_limit=10)
    register(client)
    names = (f"name-{n}" for n in count())

    def send(ip: str) -> Response:
        headers = {"X-Forwarded-For": ip}
        if what == "registration":
            return client.post("/users", json={"username": next(names), "password": PASSWORD}, headers=headers)
        return (
            client.post("/auth/token", data=BAD_REFRESH, headers=headers)
            if what == "refresh"
            else guess(client, ip, next(names))
        )

    assert 429 not in statuses(10, lambda: send(AFAR))
    clock.move(seconds=0.5)
    refused = send(AFAR)
    sql("ALTER TABLE throttle RENAME TO hidden")
    clock.move(seconds=0.9)
    repeated = send(AFAR)
    asked = [send(HOME).status_code]
    clock.move(seconds=0.1)
    asked += [send(AFAR).status_code]
    sql("ALTER TABLE hidden RENAME TO throttle")

    assert [refused.status_code, repeated.status_code, *asked, send(AFAR).status_code] == [429, 429, 503, 503, 429]
    assert int(refused.headers["Retry-After"]) - int(repeated.headers["Retry-After"]) == 1
    assert refused.json() == repeated.json()


def test_a_refused_address_is_let_in_after_its_window(start: Serve, clock: MovableClock) -> None:
    client = start(login_failures=1, login_window=60)
    register(client)
    assert 429 not in [guess(client, AFAR, f"name-{n}").status_code for n in range(10)]
    clock.move(seconds=59.5)
    assert guess(client, AFAR, password=PASSWORD).status_code == 429
    clock.move(seconds=0.5)

    assert guess(client, AFAR, password=PASSWORD).status_code == 200


@on_one_database
def test_a_remembered_refusal_keeps_nothing_of_the_request(start: Serve) -> None:
    client = start(login_failures=1)

    assert [guess(client, AFAR, f"name-{n}").status_code for n in range(11)] == [401] * 10 + [429]

    gc.collect()
    assert not [form for form in gc.get_objects() if isinstance(form, PasswordForm)]


def test_ten_thousand_refused_addresses_are_remembered(settings: Settings, clock: MovableClock) -> None:
    limiter = Limiter(settings, SECRET)
    limits = [limiter.refused_refresh(f"10.0.{n // 250}.{n % 250}") for n in range(REMEMBERED + 1)]

    for limit in limits:
        with pytest.raises(TooManyAttempts), limiter.local.once_a_second(limit.key, clock()):
            raise TooManyAttempts({limit.key: clock() + limit.window}, clock())

    with limiter.local.once_a_second(limits[0].key, clock()):
        pass
    with pytest.raises(TooManyAttempts), limiter.local.once_a_second(limits[-1].key, clock()):
        pytest.fail("asked again")
