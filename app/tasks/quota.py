"""TASKS_LIMIT: how many tasks an owner may have."""

from typing import Final

from sqlalchemy import bindparam, func, select

from app.auth.callers import LiveConnection, if_live
from app.auth.errors import InvalidToken
from app.tasks.models import Task

NEAR: Final = 100  # when no more than so many are left, every insert is counted
SHARE: Final = 8  # of what is left beyond, this process inserts an eighth before it counts again: others insert too
MOST_UNCOUNTED: Final = 100  # inserts at most from one count to the next
MOST_REMEMBERED: Final = 1_000  # owners
OWN_UP_TO_LIMIT = select(Task.id).where(Task.owner_id == bindparam("user_id")).limit(bindparam("limit")).subquery()
COUNT_OWN = if_live(select(select(func.count()).select_from(OWN_UP_TO_LIMIT).scalar_subquery()))
"""No row, rather than 0, where the session is not live: a count of 0 would be remembered."""

remembered: dict[tuple[str, int], int] = {}
"""How many tasks an owner may insert before they are counted again. The latest used come last."""


class NearLimit(Exception):
    """The owner's inserts must come one by one, or together they would exceed the limit."""


def has_room(connection: LiveConnection, limit: int, *, is_alone: bool) -> bool:
    """Whether the owner may have one more task.

    To count 100,000 tasks takes longer than to insert one, so this process remembers what is left, and counts seldom
    until little is. Then it counts each time, and no other insert of the owner's that counts must be under way.

    Raises:
        InvalidToken: the session is not live.
        NearLimit: another insert may be under way, because this one is not alone.
    """
    if not limit:
        return True
    key = connection.caller.user_id, limit
    left = remembered.pop(key, 0) - 1
    if left < 0:
        count = connection.execute(COUNT_OWN, {"limit": limit}).scalar_one_or_none()
        if count is None:
            raise InvalidToken
        room = limit - count
        if not room:
            return False
        if room <= NEAR and not is_alone:  # pragma: no cover - in a greenlet alone
            raise NearLimit
        left = min(max(room - NEAR, 0) // SHARE, MOST_UNCOUNTED)
    if len(remembered) >= MOST_REMEMBERED:
        remembered.pop(next(iter(remembered)), None)
    remembered[key] = left
    return True
