"""Password hashing: Argon2id at its cost, the same work for every wrong password, and bounded queues and threads."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import pytest
from argon2 import low_level
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from app.auth.errors import HashingQueueFull, WeakPassword
from app.auth.hashing_queue import FairQueue
from app.auth.passwords import NICENESS, QUEUE_LENGTH, THREADS, Cost, Passwords, Verdict, normalize
from tests.conftest import CHEAP
from tests.support.hashing import CORRUPT, RIGHT, Library

PASSWORD = "correct horse battery"
HERE = "192.0.2.1"
LONG_PASSWORDS = [word for word in FREQUENCY_LISTS["passwords"] if len(word) >= 8]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setattr(low_level, "verify_secret", library.verify_secret)
    return library


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    passwords = Passwords(CHEAP)
    yield passwords
    passwords.close()


def hashed(passwords: Passwords, password: str = PASSWORD, username: str = "ada") -> str:
    return asyncio.run(passwords.hash(password, username, None, HERE))


def verified(passwords: Passwords, password: str, stored: str | None) -> Verdict:
    return asyncio.run(passwords.verify(password, stored, HERE))


def test_a_hash_is_argon2id_at_the_cost_asked_for() -> None:
    passwords = Passwords(Cost(memory=32, passes=3, lanes=2))

    stored = hashed(passwords)

    assert stored.startswith("$argon2id$v=19$m=32,t=3,p=2$")
    assert low_level.verify_secret(stored.encode(), PASSWORD.encode(), low_level.Type.ID)
    assert verified(passwords, PASSWORD, stored) == Verdict(True)


def test_the_default_cost_is_what_owasp_asks_for() -> None:
    assert hashed(Passwords(Cost())).startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_the_same_password_has_another_hash_each_time(passwords: Passwords) -> None:
    assert hashed(passwords) != hashed(passwords)


@pytest.mark.parametrize(
    ("password", "other"),
    [
        ("a" * 128, "a" * 127 + "b"),
        (" space before", "space before"),
        ("space after ", "space after"),
        ("Letter Case", "letter case"),
        ("with\0NUL one", "with\0NUL two"),
        ("NUL at the end\0", "NUL at the end"),
        ("\ufb01ne print", "fine print"),
    ],
    ids=["last of 128", "space before", "space after", "case", "after NUL", "NUL", "compatibility"],
)
def test_passwords_that_differ_are_different(passwords: Passwords, password: str, other: str) -> None:
    stored = hashed(passwords, password)

    assert verified(passwords, password, stored) == Verdict(True)
    assert verified(passwords, other, stored) == Verdict(False)


def test_an_accent_is_the_same_from_every_keyboard(passwords: Passwords) -> None:
    assert verified(passwords, "caf\u00e9 cre\u0300me", hashed(passwords, "cafe\u0301 cr\u00e8me")) == Verdict(True)


@pytest.mark.parametrize("stored", CORRUPT.values(), ids=CORRUPT)
def test_a_corrupt_hash_is_a_wrong_password_at_the_same_cost(
    passwords: Passwords, library: Library, stored: str
) -> None:
    assert verified(passwords, PASSWORD, stored) == Verdict(False, is_corrupt=True)
    assert library.work == [RIGHT.encode()]


@pytest.mark.parametrize("known", [True, False], ids=["known user", "unknown user"])
@pytest.mark.parametrize(
    "password",
    ["wrong password", "", "\0", "a" * 4096, "a" * 4097, "\U0001d160" * 2000, "\ud800"],
    ids=["wrong", "empty", "NUL", "long", "too long", "too long in NFC", "surrogate"],
)
def test_every_wrong_password_costs_the_same(
    passwords: Passwords, library: Library, known: bool, password: str
) -> None:
    stored = hashed(passwords)

    assert not verified(passwords, password, stored if known else None).is_right
    assert library.work == [RIGHT.encode()]


def test_the_dummys_own_password_is_nobodys(passwords: Passwords) -> None:
    assert verified(passwords, "", None) == Verdict(False)


@pytest.mark.parametrize("cheaper", [Cost(32, 2, 2), Cost(64, 1, 2), Cost(64, 2, 1)], ids=["memory", "passes", "lanes"])
def test_a_cheaper_hash_is_replaced_and_a_dearer_one_kept(cheaper: Cost) -> None:
    today = Passwords(Cost(64, 2, 2))
    cheap, dear = hashed(Passwords(cheaper)), hashed(Passwords(Cost(128, 3, 3)))

    verdict = verified(today, PASSWORD, cheap)

    assert verdict.is_right
    assert verdict.new_hash is not None
    assert verdict.new_hash.startswith("$argon2id$v=19$m=64,t=2,p=2$")
    assert verified(today, PASSWORD, verdict.new_hash) == Verdict(True)
    assert verified(today, "wrong password", cheap) == Verdict(False)
    assert verified(today, PASSWORD, dear) == Verdict(True)


@pytest.mark.parametrize("spell", [str, str.upper, str.title], ids=["as listed", "upper", "title"])
def test_the_common_passwords_are_refused_in_any_case(passwords: Passwords, spell: Callable[[str], str]) -> None:
    for word in LONG_PASSWORDS[::30]:
        with pytest.raises(WeakPassword) as caught:
            hashed(passwords, spell(word))
        assert caught.value.detail == "The password is on the list of common passwords"


@pytest.mark.parametrize(("password", "username"), [("ada.lovelace", "ADA.Lovelace"), ("ADA-LOVELACE", "ada-lovelace")])
def test_the_username_is_refused_in_any_case(passwords: Passwords, password: str, username: str) -> None:
    with pytest.raises(WeakPassword) as caught:
        hashed(passwords, password, username)

    assert caught.value.detail == "The password is the username"


def full_queue(
    passwords: Passwords, library: Library, then: Callable[[list[asyncio.Task[Verdict]]], Coroutine[Any, Any, None]]
) -> None:
    """Fill the queue while the library is held, see one more refused, and go on."""
    stored = hashed(passwords)

    async def run() -> None:
        library.go.clear()
        tasks = [asyncio.create_task(passwords.verify(PASSWORD, stored, HERE)) for _ in range(QUEUE_LENGTH)]
        await asyncio.sleep(0)
        try:
            for _ in range(2):
                with pytest.raises(HashingQueueFull):
                    await passwords.verify(PASSWORD, stored, HERE)
            await then(tasks)
        finally:
            library.go.set()

    asyncio.run(run())


def test_a_full_queue_refuses_and_every_slot_is_given_back(passwords: Passwords, library: Library) -> None:
    async def finish(tasks: list[asyncio.Task[Verdict]]) -> None:
        library.go.set()
        assert await asyncio.gather(*tasks) == [Verdict(True)] * QUEUE_LENGTH

    full_queue(passwords, library, finish)
    full_queue(passwords, library, finish)

    assert len(library.threads) <= THREADS, "each takes the memory of a hash"


class HeldQueue:
    """A queue for one thread, which waits at its first job until the queue is let go."""

    def __init__(self, length: int) -> None:
        self.ran: list[str] = []
        self.jobs: list[Future[None]] = []
        self._go, self._begun = threading.Event(), threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self._queue = FairQueue(self._thread, length)

    def submit(self, network: str, count: int = 1) -> None:
        for _ in range(count):
            self.jobs.append(self._queue.submit(network, lambda: self._run(network)))
            self._begun.wait()

    def _run(self, network: str) -> None:
        self._begun.set()
        self._go.wait()
        self.ran.append(network)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._go.set()
        self._thread.shutdown()
        assert self._queue.jobs == set()


def test_networks_take_turns_however_much_one_asks() -> None:
    with HeldQueue(100) as queue:
        queue.submit("many", 6)
        queue.submit("few", 2)
        queue.submit("fewer", 2)
        queue.jobs[1].cancel()

    assert queue.ran == ["many", "many", "few", "fewer", "many", "few", "fewer", "many", "many"]


def test_a_full_queue_makes_room_for_a_less_busy_network() -> None:
    with HeldQueue(5) as queue:
        queue.submit("many", 5)
        with pytest.raises(HashingQueueFull):
            queue.submit("many")
        for network in "few", "other", "fourth":
            queue.submit(network)
        for network in "many", "few", "fifth":
            with pytest.raises(HashingQueueFull):
                queue.submit(network)

    assert queue.ran == ["many", "many", "few", "other", "fourth"]
    refused = [isinstance(job.exception(), HashingQueueFull) for job in queue.jobs]
    assert refused == [False, False, True, True, True, False, False, False]


def test_a_request_that_is_given_up_gives_its_slot_back(passwords: Passwords, library: Library) -> None:
    async def give_up(tasks: list[asyncio.Task[Verdict]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    full_queue(passwords, library, give_up)
    for _ in range(THREADS):
        hashed(passwords)

    full_queue(passwords, library, give_up)


def test_a_refused_password_gives_its_slot_back(passwords: Passwords) -> None:
    for _ in range(QUEUE_LENGTH + 1):
        with pytest.raises(WeakPassword):
            hashed(passwords, "password1")


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux only")
def test_the_hashing_threads_give_way_to_the_event_loop(passwords: Passwords) -> None:
    hashed(passwords)

    threads = [thread for thread in threading.enumerate() if thread.name.startswith("argon2")]
    niceness = {os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) for thread in threads}

    assert 1 <= len(threads) <= THREADS
    assert niceness == {min(os.getpriority(os.PRIO_PROCESS, 0) + NICENESS, 19)}


def test_a_text_too_long_in_any_form_is_not_normalized() -> None:
    """To normalize 60,000 marks takes seconds."""
    longest, too_long = "\u03b1\u0313\u0300\u0345" * 128, "\u03b1\u0313\u0300\u0345" * 128 + "a"

    assert normalize(longest) == "\u1f82" * 128
    assert normalize(too_long) == too_long
