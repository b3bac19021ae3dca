"""The throttle of logins.

Three limits hold at once: for one account from one network, for one network over all accounts, and for one account from
anywhere. The third is skipped at a network where the account has had a session within 30 days, so that guesses from
elsewhere do not lock the owner out there. An unknown name is counted like an account.

Each login counts as a failure before its password is hashed, until the password proves right. So parallel guesses
cannot slip through. A refusal only reads.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, delete, exists, select

from app.auth.counters import PURGED_AT_ONCE, Ends, Limit, add, find_reached, purge_counts
from app.auth.errors import TooManyAttempts
from app.auth.local_throttle import LocalThrottle
from app.auth.models import END, NETWORK, LoginSession, Throttle, normalize_username
from app.config import Settings
from app.db.database import Database
from app.db.types import NO_ID, Text, UTCDateTime

WIDE_FACTOR: Final = 10  # how many times as many failures the two wider limits allow
KNOWN_FOR: Final = timedelta(days=30)
HALF_KEY: Final = 32  # characters
MAILS_AN_HOUR: Final = 5
MAILS_OF_NETWORK: Final = 30

SINCE = bindparam("since", type_=UTCDateTime)
# If a session ended after it had expired, it lived until it expired.
HAS_HAD_SESSION = select(
    exists()
    .where(LoginSession.user_id == bindparam("account_id"), bindparam("network", type_=Text) == NETWORK)
    .where(SINCE <= END, LoginSession.expires_at >= SINCE)
)
DELETE_COUNTERS = delete(Throttle).where(Throttle.key.in_(bindparam("keys", expanding=True)))


class Attempt(NamedTuple):
    """A password before it is checked, or a request that only has to be counted."""

    limits: Sequence[Limit]
    """For a password: the account from the network, the network, and the account or session from anywhere."""
    account_id: str = ""
    network: str = ""


@dataclass(frozen=True, slots=True)
class Limiter:
    """Makes limits from the settings. Keys are HMACs, because a typed name may have been a password."""

    settings: Settings
    secret: str
    local: LocalThrottle = field(default_factory=LocalThrottle, init=False)

    def login(self, username: str, network: str, account_id: str | None = None) -> Attempt:
        """Count a login by its account. Without an account, count it by the typed name."""
        half = self.account(account_id) if account_id else self._half("name", normalize_username(username))
        return self._attempt(account_id or NO_ID, half, network, "account")

    def confirmation(self, account_id: str, session_id: str, network: str) -> Attempt:
        """Count a password that a signed-in user confirms: by the session, so that other guesses cannot use it up."""
        return self._attempt(account_id, self.account(account_id), network, "session", session_id)

    def account(self, account_id: str) -> str:
        """Return the half that all keys of an account begin with."""
        return self._half("account", account_id)

    def address(self, network: str) -> Limit:
        return Limit(self._key("address", network), self.settings.login_failures * WIDE_FACTOR, self._window)

    def refused_refresh(self, network: str) -> Limit:
        return Limit(self._key("refresh", network), self.settings.login_failures * WIDE_FACTOR, self._window)

    def registration(self, network: str) -> Limit | None:
        most = self.settings.registration_limit
        return Limit(self._key("registration", network), most, timedelta(hours=1)) if most else None

    def mails(self, what: str, account: str) -> Sequence[Limit]:
        """Limit the mails that somebody asks for, for an account: one a minute, and five an hour."""
        windows = (timedelta(minutes=1), 1), (timedelta(hours=1), MAILS_AN_HOUR)
        return [Limit(self._key(what, account, str(window)), most, window) for window, most in windows]

    def forgotten(self, username: str, network: str, account_id: str | None) -> Sequence[Limit]:
        """Limit the mails with reset tokens, by network too. Without an account, count the typed name."""
        per_network = Limit(self._key("forgotten", network), MAILS_OF_NETWORK, timedelta(hours=1))
        return [per_network, *self.mails("reset", account_id or normalize_username(username))]

    async def count(self, db: Database, now: datetime, *limits: Limit) -> None:
        """Count one more for each limit. Raises TooManyAttempts if one is reached. Then nothing is written."""
        with self.local.once_a_second(limits[0].key, now):
            await db.read(check_attempt, Attempt(limits), now)
            await db.write(reserve, Attempt(limits), now)

    @property
    def _window(self) -> timedelta:
        return timedelta(seconds=self.settings.login_window)

    def _attempt(self, account_id: str, half: str, network: str, *from_anywhere: str) -> Attempt:
        most = self.settings.login_failures
        limits = (
            Limit(half + self._half("login", network), most, self._window),
            self.address(network),
            Limit(half + self._half(*from_anywhere), most * WIDE_FACTOR, timedelta(days=1), since_latest=True),
        )
        return Attempt(limits, account_id, network)

    def _half(self, *parts: str) -> str:
        return self._key(*parts)[:HALF_KEY]

    def _key(self, *parts: str) -> str:
        return hmac.digest(self.secret.encode(), "\0".join(parts).encode(), "sha256").hex()


def check_attempt(connection: Connection, attempt: Attempt, now: datetime) -> None:
    """Raises TooManyAttempts: the attempt may not be made."""
    _refuse(connection, attempt, find_reached(connection, attempt.limits, now), now)


def reserve(connection: Connection, attempt: Attempt, now: datetime) -> None:
    """Count an attempt as failed, until `forgive` or `clear` takes that back.

    Raises TooManyAttempts if another attempt was faster. The transaction must be rolled back then.
    """
    _refuse(connection, attempt, add(connection, attempt.limits, now), now)
    purge_counts(connection, now, PURGED_AT_ONCE)


def forgive(connection: Connection, attempt: Attempt, now: datetime) -> None:
    """Take a reservation back, because the attempt was no failure."""
    add(connection, attempt.limits, now, -1)


def clear(connection: Connection, attempt: Attempt, now: datetime) -> None:
    """Take a reservation back, and forget the earlier failures of the account there. The network's stay."""
    forgive(connection, attempt, now)  # it locks all three in the order of their keys
    here, _, anywhere = attempt.limits
    connection.execute(DELETE_COUNTERS, {"keys": [here.key, anywhere.key]})


def _refuse(connection: Connection, attempt: Attempt, reached: Ends, now: datetime) -> None:
    """Raises TooManyAttempts, unless the third limit is the only one and the account has had a session there."""
    *_, anywhere = attempt.limits
    if attempt.account_id and anywhere in reached:
        values = {"account_id": attempt.account_id, "network": attempt.network, "since": now - KNOWN_FOR}
        if connection.execute(HAS_HAD_SESSION, values).scalar_one():
            del reached[anywhere]
    if reached:
        raise TooManyAttempts({limit.key: resets_at for limit, resets_at in reached.items()}, now)
