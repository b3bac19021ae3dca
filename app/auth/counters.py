"""Counters in the database: all processes share them, and a restart forgets none."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from sqlalchemy import (
    BindParameter,
    Connection,
    Integer,
    String,
    and_,
    bindparam,
    case,
    delete,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from app.auth.errors import TooManyAttempts
from app.auth.models import Throttle
from app.db.database import AnySelect
from app.db.types import UTCDateTime

PURGED_AT_ONCE: Final = 10  # more than one login adds, so that the table stays as small as its windows are
CLOCK_SKEW: Final = timedelta(minutes=1)
"""So far the clocks of two hosts may be apart. A counter that ends later than that after its window is over."""


class Limit(NamedTuple):
    """So much may be counted under `key` within `window`: from the first that counts, or else since the latest."""

    key: str
    most: int
    window: timedelta
    since_latest: bool = False

    def latest_end(self, now: datetime) -> datetime:
        """Return when a counter ends at the latest. One that a clock ahead of ours has begun may end later."""
        return now + self.window + CLOCK_SKEW


class Keys(NamedTuple):
    """A range of keys: all that counts one account."""

    first: str
    last: str


Ends = dict[Limit, datetime]
"""The limits that are reached, and when each begins anew."""


def find_reached(connection: Connection, limits: Iterable[Limit], now: datetime) -> Ends:
    """Read which limits are reached, so that nothing more may be counted."""
    of = {limit.key: limit for limit in limits}
    values = {f"key_{n}": key for n, key in enumerate(of)}
    rows = connection.execute(_reading(len(of)), {"now": now, **values}).all()
    return {
        of[row.key]: min(row.resets_at, now + of[row.key].window)
        for row in rows
        if row.hits >= of[row.key].most and row.resets_at <= of[row.key].latest_end(now)
    }


def add(connection: Connection, limits: Iterable[Limit], now: datetime, number: int = 1) -> Ends:
    """Add to each counter, which begins anew when it is over; return the limits that are exceeded.

    The rows are locked in the order of their keys, so that no two transactions wait for each other.
    """
    ordered = sorted(limits)
    values: dict[str, object] = {"now": now}
    for n, limit in enumerate(ordered):
        values |= {f"key_{n}": limit.key, f"end_{n}": now + limit.window, f"latest_end_{n}": limit.latest_end(now)}
        values |= {f"moves_below_{n}": limit.most if limit.since_latest else 0}
    adding = _adding(connection.dialect.name, len(ordered), number)
    of = {limit.key: limit for limit in ordered}
    rows = connection.execute(adding, values).all()
    return {of[row.key]: row.resets_at for row in rows if row.hits > of[row.key].most}


def refuse(reached: Ends, now: datetime) -> None:
    """Raises TooManyAttempts if any limit is reached."""
    if reached:
        raise TooManyAttempts({limit.key: resets_at for limit, resets_at in reached.items()}, now)


def check(connection: Connection, limit: Limit, now: datetime) -> None:
    """Read whether one more may be counted.

    Raises:
        TooManyAttempts
    """
    refuse(find_reached(connection, [limit], now), now)


def count(connection: Connection, limit: Limit, now: datetime) -> None:
    """Count one more.

    Raises:
        TooManyAttempts: another request was faster; nothing has been counted.
    """
    refuse(add(connection, [limit], now), now)
    purge_counts(connection, now, PURGED_AT_ONCE)


FORGET = delete(Throttle).where(Throttle.key.between(bindparam("first"), bindparam("last")))


def forget(connection: Connection, keys: Keys) -> None:
    """Delete the counters of an account, wherever it was guessed at from. The counters of addresses stay."""
    connection.execute(FORGET, keys._asdict())


SOME_OVER = select(Throttle.key).where(Throttle.resets_at <= bindparam("now")).limit(bindparam("limit", type_=Integer))
PURGE = delete(Throttle).where(Throttle.key.in_(SOME_OVER.with_for_update(skip_locked=True)))


def purge_counts(connection: Connection, now: datetime, limit: int) -> int:
    """Delete some of the counters that are over; return how many."""
    return connection.execute(PURGE, {"now": now, "limit": limit}).rowcount


# Statements are made once for so many counters: to make one takes longer than to run it.


@lru_cache(64)
def _reading(counters: int) -> AnySelect:
    keys = [bindparam(f"key_{n}", type_=String) for n in range(counters)]
    read = select(Throttle.key, Throttle.hits, Throttle.resets_at)
    return read.where(Throttle.key.in_(keys), Throttle.resets_at > bindparam("now"))


@lru_cache(64)
def _adding(dialect: str, counters: int, number: int) -> ReturningInsert[str, int, datetime]:
    begun, changed = max(number, 0), Throttle.hits + number
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    # Not `values` of several rows, which SQLAlchemy compiles each time.
    rows = [select(bindparam(f"key_{n}", type_=String), literal(begun), _time(f"end_{n}")) for n in range(counters)]
    new = insert(Throttle).from_select([Throttle.key, Throttle.hits, Throttle.resets_at], union_all(*rows))
    is_over, moves = [Throttle.resets_at <= _time("now")], []
    for n in range(counters):
        is_it = Throttle.key == bindparam(f"key_{n}")
        is_over.append(and_(is_it, Throttle.resets_at > _time(f"latest_end_{n}")))
        moves.append(and_(is_it, Throttle.hits < bindparam(f"moves_below_{n}", type_=Integer)))
    added = new.on_conflict_do_update(
        index_elements=[Throttle.key],
        set_={
            "hits": case((or_(*is_over), begun), (changed < 0, 0), else_=changed),
            "resets_at": case((or_(*is_over, *moves), new.excluded.resets_at), else_=Throttle.resets_at),
        },
    )
    return added.returning(Throttle.key, Throttle.hits, Throttle.resets_at)


def _time(name: str) -> BindParameter[datetime]:
    return bindparam(name, type_=UTCDateTime)
