"""Hashing and checking passwords: the only importer of passlib.

A hash is Argon2id at OWASP's cost: 19 MiB and about 20 ms. There is one thread for each core, which bounds the memory.
The threads have a low priority, so that logins cannot starve the event loop. Their queue is bounded and fair.
"""

import asyncio
import os
import threading
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final, NamedTuple

from app.auth.errors import WeakPassword
from app.auth.hashing_queue import FairQueue

with warnings.catch_warnings():  # passlib 1.7.4 imports `crypt`, which is deprecated and not used here
    warnings.filterwarnings("ignore", "'crypt' is deprecated", DeprecationWarning)
    from passlib.handlers.argon2 import argon2

MIN_LENGTH: Final = 8
MAX_LENGTH: Final = 128
THREADS: Final = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""One for each core that the process may use. Two on one core take a tenth longer, because they share its caches."""
QUEUE_LENGTH: Final = 32 * THREADS
NICENESS: Final = 10


@dataclass(frozen=True, slots=True)
class Cost:
    """Argon2's parameters: KiB of memory, passes over it, lanes."""

    memory: int = 19456
    passes: int = 2
    lanes: int = 1


class Verdict(NamedTuple):
    is_right: bool
    new_hash: str | None = None
    """A hash at today's cost, if the password is right and its stored hash is weaker."""
    is_corrupt: bool = False
    """Whether the stored text is no hash, so that no password is right."""


class Passwords:
    """Hashes and verifies off the event loop. All wrong passwords cost the same work."""

    def __init__(self, cost: Cost) -> None:
        self._cost = cost
        self._argon2 = argon2.using(  # type: ignore[no-untyped-call]
            memory_cost=cost.memory, time_cost=cost.passes, parallelism=cost.lanes
        )
        with warnings.catch_warnings():  # passlib's first hash reads a deprecated attribute
            warnings.filterwarnings("ignore", "Accessing argon2.__version__", DeprecationWarning)
            self._dummy = self._hash("")
        self._threads = ThreadPoolExecutor(THREADS, "argon2", _lower_priority)
        self._queue = FairQueue(self._threads, QUEUE_LENGTH)
        self._threads.submit(_common_passwords)  # the first registration does not wait for the list

    async def hash(self, password: str, username: str, email: str | None, network: str) -> str:
        """Hash a new password in the network's turn. Raises WeakPassword, HashingQueueFull."""
        job = partial(self._hash_new, password, username, email)
        return await asyncio.wrap_future(self._queue.submit(network, job))

    async def verify(self, password: str, stored: str | None, network: str) -> Verdict:
        """Check a password in the network's turn. Without a stored hash it is wrong, at the same cost.

        Raises HashingQueueFull.
        """
        return await asyncio.wrap_future(self._queue.submit(network, partial(self._verify, password, stored)))

    def usage(self) -> tuple[int, int]:
        """Return how many passwords are being hashed or wait for it, and how many may."""
        return len(self._queue.jobs), QUEUE_LENGTH

    def close(self) -> None:
        self._threads.shutdown()

    def _hash_new(self, password: str, username: str, email: str | None) -> str:
        text = password.casefold()
        if text == username.casefold():
            raise WeakPassword(detail="The password is the username")
        if email and text == email.casefold():
            raise WeakPassword(detail="The password is the e-mail address")
        if text in _common_passwords():
            raise WeakPassword(detail="The password is on the list of common passwords")
        return self._hash(password)

    def _hash(self, password: str) -> str:
        return str(self._argon2.hash(normalize(password)))

    def _verify(self, password: str, stored: str | None) -> Verdict:
        text = normalize(password)
        if stored is None or len(text) > MAX_LENGTH:
            text, stored = "", None
        try:
            is_right = self._argon2.verify(text, self._dummy if stored is None else stored)
        except Exception:  # noqa: BLE001 - passlib raises several for a corrupt hash
            self._argon2.verify("", self._dummy)
            return Verdict(False, is_corrupt=True)
        if not is_right or stored is None:
            return Verdict(False)
        return Verdict(True, self._hash(password) if is_weak(stored, self._cost) else None)


def is_weak(stored: str, cost: Cost = Cost()) -> bool:
    """Return whether a hash is not Argon2id, or cheaper than today's. A login with the right password replaces it.

    passlib's `needs_update` would also replace a hash that is stronger than today's.
    """
    try:
        old = argon2.from_string(stored)
    except ValueError:
        return True
    is_cheaper = old.memory_cost < cost.memory or old.rounds < cost.passes or old.parallelism < cost.lanes
    return is_cheaper or old.type != "id"


def normalize(password: str) -> str:
    """Return the NFC form, in which an é is the same from every keyboard (NIST SP 800-63B §5.1.1.2).

    NFC joins four characters at most, and its time grows with the square of the length. A text that stays too long even
    so is returned unchanged.
    """
    return unicodedata.normalize("NFC", password) if len(password) <= 4 * MAX_LENGTH else password


@lru_cache(1)
def _common_passwords() -> frozenset[str]:
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # noqa: PLC0415 - it takes 10 MiB

    return frozenset(word for word in FREQUENCY_LISTS["passwords"] if len(word) >= MIN_LENGTH)


def _lower_priority() -> None:
    with suppress(AttributeError, OSError):  # some systems have no priority for threads
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
