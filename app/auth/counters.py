"""The counters of the throttle: all processes share them in the database, and a restart keeps them."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import BindParameter, Connection, Integer, bindparam, case, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from app.auth.models import Throttle
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


Ends = dict[Limit, datetime]
"""The limits that are reached, and the time when each counter starts again."""


def _time(name: str) -> BindParameter[datetime]:
    return bindparam(name, type_=UTCDateTime)


SELECT_COUNTERS = select(Throttle.key, Throttle.hits, Throttle.resets_at).where(
    Throttle.key.in_(bindparam("keys", expanding=True)), Throttle.resets_at > bindparam("now")
)
IS_OVER = or_(Throttle.resets_at <= _time("now"), Throttle.resets_at > _time("latest_end"))
IS_MOVED = or_(IS_OVER, Throttle.hits < bindparam("moves_below", type_=Integer))
CHANGED_HITS = Throttle.hits + bindparam("number", type_=Integer)
ADD_TO_COUNTER = {
    dialect: new.on_conflict_do_update(
        index_elements=[Throttle.key],
        set_={
            "hits": case((IS_OVER, new.excluded.hits), (CHANGED_HITS < 0, 0), else_=CHANGED_HITS),
            "resets_at": case((IS_MOVED, new.excluded.resets_at), else_=Throttle.resets_at),
        },
    ).returning(Throttle.hits, Throttle.resets_at)
    for dialect, insert in (("postgresql", postgresql.insert), ("sqlite", sqlite.insert))
    for new in [insert(Throttle).values(key=bindparam("counter"), hits=bindparam("begun"), resets_at=bindparam("end"))]
}
DELETE_ACCOUNT_COUNTERS = delete(Throttle).where(Throttle.key.between(bindparam("half"), bindparam("end")))
SELECT_EXPIRED = (
    select(Throttle.key).where(Throttle.resets_at <= bindparam("now")).limit(bindparam("limit", type_=Integer))
)
DELETE_EXPIRED = delete(Throttle).where(Throttle.key.in_(SELECT_EXPIRED.with_for_update(skip_locked=True)))


def find_reached(connection: Connection, limits: Collection[Limit], now: datetime) -> Ends:
    """Read the limits that allow no more counts."""
    values = {"keys": [limit.key for limit in limits], "now": now}
    counters = {row.key: row for row in connection.execute(SELECT_COUNTERS, values)}
    return {
        limit: min(counter.resets_at, now + limit.window)
        for limit in limits
        if (counter := counters.get(limit.key))
        and counter.hits >= limit.most
        and counter.resets_at <= limit.latest_end(now)
    }


def add(connection: Connection, limits: Collection[Limit], now: datetime, number: int = 1) -> Ends:
    """Add to the counter of each limit, and return the exceeded limits. A counter that is over starts again.

    The rows are locked in the order of their keys, so that no two transactions wait for each other.
    """
    exceeded: Ends = {}
    for limit in sorted(limits):
        times = {"now": now, "end": now + limit.window, "latest_end": limit.latest_end(now)}
        values = {"begun": max(number, 0), "number": number, "moves_below": limit.most if limit.since_latest else 0}
        statement = ADD_TO_COUNTER[connection.dialect.name]
        hits, resets_at = connection.execute(statement, {"counter": limit.key, **times, **values}).one()
        if hits > limit.most:
            exceeded[limit] = resets_at
    return exceeded


def forget(connection: Connection, half: str) -> None:
    """Delete the counters of an account, whose keys begin with this half. The counters of the addresses stay."""
    connection.execute(DELETE_ACCOUNT_COUNTERS, {"half": half, "end": f"{half}g"})  # "g" is after all hex digits


def purge_counts(connection: Connection, now: datetime, limit: int) -> int:
    """Delete at most `limit` counters that are over. Return how many."""
    return connection.execute(DELETE_EXPIRED, {"now": now, "limit": limit}).rowcount
