"""The counters of the throttle: all processes share them in the database, and a restart keeps them."""

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

from app.auth.models import Throttle
from app.db.database import AnySelect
from app.db.types import UTCDateTime

PURGED_AT_ONCE: Final = 10  # more counters than one login adds, so that the table does not grow
CLOCK_SKEW: Final = timedelta(minutes=1)
"""How far the clocks of two hosts may be apart. A counter that ends later than its window and this is over."""


class Limit(NamedTuple):
    """At most `most` may be counted under `key` in a `window`, which begins at the first count or at the latest one."""

    key: str
    most: int
    window: timedelta
    since_latest: bool = False

    def latest_end(self, now: datetime) -> datetime:
        """Return the latest possible end of a counter. Only a clock ahead of ours writes a later one."""
        return now + self.window + CLOCK_SKEW


class Keys(NamedTuple):
    """The range of keys that count one account."""

    first: str
    last: str


Ends = dict[Limit, datetime]
"""The limits that are reached, and the time when each counter starts again."""


def find_reached(connection: Connection, limits: Iterable[Limit], now: datetime) -> Ends:
    """Read the limits that allow no more counts."""
    by_key = {limit.key: limit for limit in limits}
    values = {f"key_{n}": key for n, key in enumerate(by_key)}
    rows = connection.execute(_select_reached(len(by_key)), {"now": now, **values}).all()
    return {
        by_key[row.key]: min(row.resets_at, now + by_key[row.key].window)
        for row in rows
        if row.hits >= by_key[row.key].most and row.resets_at <= by_key[row.key].latest_end(now)
    }


def add(connection: Connection, limits: Iterable[Limit], now: datetime, number: int = 1) -> Ends:
    """Add to the counter of each limit, and return the exceeded limits. A counter that is over starts again.

    The statement locks the rows in the order of their keys, so that no two transactions wait for each other.
    """
    ordered = sorted(limits)
    values: dict[str, object] = {"now": now}
    for n, limit in enumerate(ordered):
        values |= {f"key_{n}": limit.key, f"end_{n}": now + limit.window, f"latest_end_{n}": limit.latest_end(now)}
        values |= {f"moves_below_{n}": limit.most if limit.since_latest else 0}
    upsert = _upsert(connection.dialect.name, len(ordered), number)
    by_key = {limit.key: limit for limit in ordered}
    rows = connection.execute(upsert, values).all()
    return {by_key[row.key]: row.resets_at for row in rows if row.hits > by_key[row.key].most}


DELETE_ACCOUNT_COUNTERS = delete(Throttle).where(Throttle.key.between(bindparam("first"), bindparam("last")))


def forget(connection: Connection, keys: Keys) -> None:
    """Delete the counters of an account, for every address. The counters of the addresses themselves stay."""
    connection.execute(DELETE_ACCOUNT_COUNTERS, keys._asdict())


SELECT_EXPIRED = (
    select(Throttle.key).where(Throttle.resets_at <= bindparam("now")).limit(bindparam("limit", type_=Integer))
)
DELETE_EXPIRED = delete(Throttle).where(Throttle.key.in_(SELECT_EXPIRED.with_for_update(skip_locked=True)))


def purge_counts(connection: Connection, now: datetime, limit: int) -> int:
    """Delete at most `limit` counters that are over. Return how many."""
    return connection.execute(DELETE_EXPIRED, {"now": now, "limit": limit}).rowcount


# Each statement is built once for a number of counters: building one takes longer than running it.


@lru_cache(64)
def _select_reached(counters: int) -> AnySelect:
    keys = [bindparam(f"key_{n}", type_=String) for n in range(counters)]
    read = select(Throttle.key, Throttle.hits, Throttle.resets_at)
    return read.where(Throttle.key.in_(keys), Throttle.resets_at > bindparam("now"))


@lru_cache(64)
def _upsert(dialect: str, counters: int, number: int) -> ReturningInsert[str, int, datetime]:
    begun, changed = max(number, 0), Throttle.hits + number
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    # SQLAlchemy would compile `values` of several rows each time.
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
