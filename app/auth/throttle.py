"""How often may somebody try? Counted in the database: shared by all processes, and kept over restarts.

A login is counted as a failure before its password is hashed, and taken back when it turns out right, so that guesses
in parallel cannot slip through. Three counts hold at once: of the account from the address, of the address, and of the
account from anywhere. The last does not hold where the account has a live session: guessing from afar does not lock
its owner out. Names that nobody has are counted just the same.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from sqlalchemy import Connection, Integer, String, and_, bindparam, case, delete, func, literal, or_, select, union_all
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from app.auth.errors import HashingQueueFull, TooManyAttempts
from app.auth.models import Session, Throttle, User
from app.columns import UTCDateTime
from app.config import Settings

MANY: Final = 10  # times the failures of one account from one address
DAY: Final = timedelta(days=1)
HOUR: Final = timedelta(hours=1)
PURGED_AT_ONCE: Final = 10  # more than one login adds, so that the table stays as small as its windows are
TURN_SECONDS: Final = 5
SECOND: Final = timedelta(seconds=1)
REMEMBERED: Final = 10_000  # addresses
HALF: Final = 32  # characters of a key


class Limit(NamedTuple):
    """So much may be counted under `key` within `window`: from the first that counts, or else since the latest."""

    key: str
    most: int
    window: timedelta
    since_latest: bool = False


class Attempt(NamedTuple):
    """A password before it is checked."""

    username: str
    network: str
    limits: Sequence[Limit]
    """Of the account from the address, of the address, of the account or session from anywhere."""


@dataclass(frozen=True, slots=True)
class Limiter:
    """What the settings allow. Keys are HMACs of a secret: a name that somebody typed may have been a password."""

    settings: Settings
    secret: str
    _turns: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary, init=False)
    _refused: dict[str, tuple[datetime, TooManyAttempts]] = field(default_factory=dict, init=False)

    def login(self, username: str, ip: str) -> Attempt:
        return self._attempt(username, ip, self._key_of_account(username, "account"))

    def confirmation(self, username: str, ip: str, session_id: str) -> Attempt:
        """Of the password of who is signed in: counted for the session, which nobody else's guesses can use up."""
        return self._attempt(username, ip, self._key("session", session_id))

    @asynccontextmanager
    async def turn(self, attempt: Attempt) -> AsyncIterator[None]:
        """Let attempts at one account from one address in one by one: right ones at once are not many failures.

        Raises:
            HashingQueueFull: there are too many before this one.
        """
        here, *_ = attempt.limits
        turn = self._turns.setdefault(here.key, asyncio.Lock())
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await turn.acquire()
        except TimeoutError as error:
            raise HashingQueueFull from error
        try:
            yield
        finally:
            turn.release()

    def refused_refresh(self, ip: str) -> Limit:
        window = timedelta(seconds=self.settings.login_window)
        return Limit(self._key("refresh", network_of(ip)), self.settings.login_failures * MANY, window)

    def registration(self, ip: str) -> Limit | None:
        most = self.settings.registration_limit
        return Limit(self._key("registration", network_of(ip)), most, HOUR) if most else None

    @contextmanager
    def once_a_second(self, limit: Limit, now: datetime) -> Iterator[None]:
        """Refuse an address again for a second without asking: a flood shall not take the database from the others.

        Raises:
            TooManyAttempts
        """
        since, refusal = self._refused.get(limit.key, (now - SECOND, None))
        if refusal and now < min(since + SECOND, refusal.over[limit.key]):
            raise TooManyAttempts(refusal.over, now)
        try:
            yield
        except TooManyAttempts as refusal:
            if limit.key in refusal.over:
                if len(self._refused) == REMEMBERED:
                    self._refused.clear()
                self._refused[limit.key] = now, refusal
            raise

    def _attempt(self, username: str, ip: str, from_anywhere: str) -> Attempt:
        network, most = network_of(ip), self.settings.login_failures
        window = timedelta(seconds=self.settings.login_window)
        limits = (
            Limit(self._key_of_account(username, "login", network), most, window),
            Limit(self._key("address", network), most * MANY, window),
            Limit(from_anywhere, most * MANY, DAY, since_latest=True),
        )
        return Attempt(fold(username), network, limits)

    def _key_of_account(self, username: str, *parts: str) -> str:
        """An account's keys have their first half in common: they are a range."""
        return self._key("account", fold(username))[:HALF] + self._key(*parts)[:HALF]

    def _key(self, *parts: str) -> str:
        return hmac.digest(self.secret.encode(), "\0".join(parts).encode(), "sha256").hex()


def reserve(connection: Connection, attempt: Attempt, now: datetime) -> None:
    """Count an attempt as failed, until `forgive` or `clear` takes it back.

    Raises:
        TooManyAttempts: and nothing has been counted.
    """
    over = _add(connection, attempt.limits, now)
    *_, anywhere = attempt.limits
    if anywhere in over and _has_session_from(connection, attempt, now):
        del over[anywhere]
    _refuse(over, now)
    purge_counts(connection, now, PURGED_AT_ONCE)


def count(connection: Connection, limit: Limit, now: datetime) -> None:
    """Count one more.

    Raises:
        TooManyAttempts: and nothing has been counted.
    """
    _refuse(_add(connection, [limit], now), now)
    purge_counts(connection, now, PURGED_AT_ONCE)


def forgive(connection: Connection, attempt: Attempt, now: datetime) -> None:
    """Take a reservation back: it was not a failure."""
    _add(connection, attempt.limits, now, -1)


CLEAR = delete(Throttle).where(Throttle.key.in_([bindparam("here"), bindparam("anywhere")]))


def clear(connection: Connection, attempt: Attempt, now: datetime) -> None:
    """Take a reservation back, and forget the account's earlier failures from there, though not the address's."""
    forgive(connection, attempt, now)
    here, _, anywhere = attempt.limits
    connection.execute(CLEAR, {"here": here.key, "anywhere": anywhere.key})


FORGET = delete(Throttle).where(Throttle.key.between(bindparam("first"), bindparam("last")))


def forget(connection: Connection, attempt: Attempt) -> None:
    """Forget an account's failures from everywhere, though no address's."""
    here, *_ = attempt.limits
    of_account = here.key[:HALF]
    connection.execute(FORGET, {"first": of_account + "0" * HALF, "last": of_account + "f" * HALF})


def fold(username: str) -> str:
    """Names are ASCII, and the same in either letter case. No other letter is one of theirs in lower case."""
    return username.lower() if username.isascii() else username


def network_of(ip: str) -> str:
    """What is one address to throttling: an IPv6 customer has a whole /64."""
    try:
        address = ip_address(ip)
    except ValueError:
        return ip
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))


def _add(connection: Connection, limits: Iterable[Limit], now: datetime, number: int = 1) -> dict[Limit, datetime]:
    """Add to each count, which begins anew when its window is over; those that are too high, and until when.

    The rows are locked in the order of their keys: who waits for whom can make no circle.
    """
    ordered = sorted(limits)
    values: dict[str, object] = {"now": now}
    for n, limit in enumerate(ordered):
        values |= {f"key_{n}": limit.key, f"over_{n}": now + limit.window}
        values |= {f"moves_below_{n}": limit.most if limit.since_latest else 0}
    adding = _adding(connection.dialect.name, len(ordered), number)
    of = {limit.key: limit for limit in ordered}
    rows = connection.execute(adding, values).all()
    return {of[row.key]: row.resets_at for row in rows if row.hits > of[row.key].most}


@lru_cache(64)
def _adding(dialect: str, counts: int, number: int) -> ReturningInsert[str, int, datetime]:
    """The statement for so many counts: to make it takes longer than to run it."""
    begun, changed = max(number, 0), Throttle.hits + number
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    # Not `values` of several rows, which SQLAlchemy compiles each time.
    rows = [
        select(bindparam(f"key_{n}", type_=String), literal(begun), bindparam(f"over_{n}", type_=UTCDateTime))
        for n in range(counts)
    ]
    new = insert(Throttle).from_select([Throttle.key, Throttle.hits, Throttle.resets_at], union_all(*rows))
    is_over = Throttle.resets_at <= bindparam("now", type_=UTCDateTime)
    moves = [
        and_(Throttle.key == bindparam(f"key_{n}"), Throttle.hits < bindparam(f"moves_below_{n}", type_=Integer))
        for n in range(counts)
    ]
    added = new.on_conflict_do_update(
        index_elements=[Throttle.key],
        set_={
            "hits": case((is_over, begun), (changed < 0, 0), else_=changed),
            "resets_at": case((or_(is_over, *moves), new.excluded.resets_at), else_=Throttle.resets_at),
        },
    )
    return added.returning(Throttle.key, Throttle.hits, Throttle.resets_at)


def _refuse(over: Mapping[Limit, datetime], now: datetime) -> None:
    if over:
        raise TooManyAttempts({limit.key: resets_at for limit, resets_at in over.items()}, now)


def _has_session_from(connection: Connection, attempt: Attempt, now: datetime) -> bool:
    """Whether the account has a live session from the attempt's address."""
    live = select(Session.ip).distinct().join(User)
    live = live.where(func.lower(User.username) == attempt.username, User.is_active)
    live = live.where(Session.ended_at.is_(None), Session.expires_at > now)
    return attempt.network in {network_of(ip) for ip in connection.execute(live).scalars()}


SOME_OVER = select(Throttle.key).where(Throttle.resets_at <= bindparam("now")).limit(bindparam("limit", type_=Integer))
PURGE = delete(Throttle).where(Throttle.key.in_(SOME_OVER.with_for_update(skip_locked=True)))


def purge_counts(connection: Connection, now: datetime, limit: int) -> int:
    """Delete some of what is over; how many there were."""
    return connection.execute(PURGE, {"now": now, "limit": limit}).rowcount
