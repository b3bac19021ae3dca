"""TASKS_LIMIT: the number of tasks that an owner may have."""

from typing import Final

from sqlalchemy import bindparam, func, select

from app.auth.callers import LiveConnection, if_live
from app.auth.errors import InvalidToken
from app.tasks.models import Task

NEAR_LIMIT: Final = 100  # with so few tasks left, this process counts before every insert
SHARE: Final = 8  # before it counts again, this process inserts an eighth of the rest: other processes insert too
MAX_UNCOUNTED: Final = 100  # inserts from one count to the next
MAX_REMEMBERED: Final = 1_000  # owners
OWN_UP_TO_LIMIT = select(Task.id).where(Task.owner_id == bindparam("user_id")).limit(bindparam("limit")).subquery()
COUNT_OWN = if_live(select(select(func.count()).select_from(OWN_UP_TO_LIMIT).scalar_subquery()))
"""For a session that is not live it finds no row, rather than a count of 0 that would be remembered."""

remembered: dict[tuple[str, int], int] = {}
"""The number of tasks that an owner may insert before the next count. The entries used latest come last."""


class NearLimit(Exception):
    """The owner's inserts must run one by one, or together they would exceed the limit."""


def has_room(connection: LiveConnection, limit: int, *, is_alone: bool) -> bool:
    """Whether the owner may have one more task.

    To count 100,000 tasks takes longer than to insert one. So this process counts seldom, and remembers how many are
    left. Near the limit it counts each time, and needs to be alone: no other insert of the owner's may run.

    Raises:
        InvalidToken: the session is not live.
        NearLimit: this insert must be alone, and is not.
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
        if room <= NEAR_LIMIT and not is_alone:  # pragma: no cover - in a greenlet alone
            raise NearLimit
        left = min(max(room - NEAR_LIMIT, 0) // SHARE, MAX_UNCOUNTED)
    if len(remembered) >= MAX_REMEMBERED:
        remembered.pop(next(iter(remembered)), None)
    remembered[key] = left
    return True
