"""How often may somebody try to log in?

Three limits hold at once: of one account from one network, of one network over all accounts, and of one account from
anywhere. The last does not hold where the account has had a session within 30 days: guesses from afar do not lock the
owner out there. A name that nobody has is counted like an account.

A login is counted as a failure before its password is hashed, and taken back when it turns out right, so that guesses
in parallel cannot slip through. A refusal only reads.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, delete, exists, select

from app.auth.counters import PURGED_AT_ONCE, Ends, Keys, Limit, add, check, count, find_reached, purge_counts, refuse
from app.auth.guesses import Guesses
from app.auth.models import END, NETWORK, LoginSession, Throttle
from app.auth.usernames import normalize_username
from app.config import Settings
from app.db.database import Database
from app.db.types import Text, UTCDateTime

MANY: Final = 10  # times the failures of one account from one network
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
KNOWN: Final = timedelta(days=30)
HALF: Final = 32  # characters of a key
NOBODY: Final = "00000000-0000-0000-0000-000000000000"


class Attempt(NamedTuple):
    """A password before it is checked."""

    account_id: str
    network: str
    limits: Sequence[Limit]
    """Of the account from the network, of the network, of the account or session from anywhere."""


@dataclass(frozen=True, slots=True)
class Limiter:
    """The limits of the settings. Keys are HMACs of a secret: a name that somebody typed may have been a password."""

    settings: Settings
    secret: str
    guesses: Guesses = field(default_factory=Guesses, init=False)

    def login(self, username: str, network: str, account_id: str | None = None) -> Attempt:
        """Count by the account where there is one, and by the name that was typed where there is none."""
        account = self._key("account", account_id) if account_id else self._key("name", normalize_username(username))
        return self._attempt(account_id or NOBODY, account[:HALF], network, "account")

    def confirmation(self, account_id: str, session_id: str, network: str) -> Attempt:
        """Of a signed-in user: counted for the session, which nobody else's guesses can use up."""
        return self._attempt(account_id, self._key("account", account_id)[:HALF], network, "session", session_id)

    def account(self, account_id: str) -> Keys:
        """Return the keys of an account. They have their first half in common."""
        half = self._key("account", account_id)[:HALF]
        return Keys(half + "0" * HALF, half + "f" * HALF)

    def address(self, network: str) -> Limit:
        return Limit(self._key("address", network), self.settings.login_failures * MANY, self._window)

    def refused_refresh(self, network: str) -> Limit:
        return Limit(self._key("refresh", network), self.settings.login_failures * MANY, self._window)

    def registration(self, network: str) -> Limit | None:
        most = self.settings.registration_limit
        return Limit(self._key("registration", network), most, HOUR) if most else None

    async def count(self, db: Database, limit: Limit, now: datetime) -> None:
        """Count one more for a network.

        Raises:
            TooManyAttempts: and nothing has been counted, nor written.
        """
        with self.guesses.once_a_second(limit.key, now):
            await db.read(check, limit, now)
            await db.write(count, limit, now)

    @property
    def _window(self) -> timedelta:
        return timedelta(seconds=self.settings.login_window)

    def _attempt(self, account_id: str, half: str, network: str, *from_anywhere: str) -> Attempt:
        most = self.settings.login_failures
        limits = (
            Limit(half + self._key("login", network)[:HALF], most, self._window),
            self.address(network),
            Limit(half + self._key(*from_anywhere)[:HALF], most * MANY, DAY, since_latest=True),
        )
        return Attempt(account_id, network, limits)

    def _key(self, *parts: str) -> str:
        return hmac.digest(self.secret.encode(), "\0".join(parts).encode(), "sha256").hex()


def check_attempt(connection: Connection, attempt: Attempt, now: datetime) -> None:
    """Read whether the attempt may be made.

    Raises:
        TooManyAttempts
    """
    _refuse(connection, attempt, find_reached(connection, attempt.limits, now), now)


def reserve(connection: Connection, attempt: Attempt, now: datetime) -> None:
    """Count an attempt as failed, until `forgive` or `clear` takes it back.

    Raises:
        TooManyAttempts: another attempt was faster; nothing has been counted.
    """
    _refuse(connection, attempt, add(connection, attempt.limits, now), now)
    purge_counts(connection, now, PURGED_AT_ONCE)


def forgive(connection: Connection, attempt: Attempt, now: datetime) -> None:
    """Take a reservation back: it was not a failure."""
    add(connection, attempt.limits, now, -1)


CLEAR = delete(Throttle).where(Throttle.key.in_([bindparam("here"), bindparam("anywhere")]))


def clear(connection: Connection, attempt: Attempt, now: datetime) -> None:
    """Take a reservation back, and forget the account's earlier failures from there, though not the network's."""
    forgive(connection, attempt, now)  # which locks all three in their order
    here, _, anywhere = attempt.limits
    connection.execute(CLEAR, {"here": here.key, "anywhere": anywhere.key})


# A session that was ended after it had expired has lived until it expired.
HAS_BEEN_THERE = select(
    exists()
    .where(LoginSession.user_id == bindparam("account_id"), bindparam("network", type_=Text) == NETWORK)
    .where(
        bindparam("since", type_=UTCDateTime) <= END, LoginSession.expires_at >= bindparam("since", type_=UTCDateTime)
    )
)


def _refuse(connection: Connection, attempt: Attempt, reached: Ends, now: datetime) -> None:
    """Raises TooManyAttempts unless the limit from anywhere is the only one, and the account is known there."""
    *_, anywhere = attempt.limits
    if anywhere in reached:
        values = {"account_id": attempt.account_id, "network": attempt.network, "since": now - KNOWN}
        if connection.execute(HAS_BEEN_THERE, values).scalar_one():
            del reached[anywhere]
    refuse(reached, now)
