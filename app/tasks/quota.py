"""TASKS_LIMIT: how many tasks an owner may have."""

from typing import Final

from sqlalchemy import Connection, bindparam, func, select

from app.tasks.models import Task

SHARE: Final = 8  # of what is left, this process inserts an eighth before it counts again: others insert too
MOST_UNCOUNTED: Final = 100  # inserts at most from one count to the next
MOST_REMEMBERED: Final = 1_000  # owners
COUNT = select(func.count()).select_from(
    select(Task.id).where(Task.owner_id == bindparam("user_id")).limit(bindparam("limit")).subquery()
)

remembered: dict[tuple[str, int], int] = {}
"""How many tasks an owner may insert before they are counted again. The latest used come last."""


def has_room(connection: Connection, owner_id: str, limit: int) -> bool:
    """Whether the owner may have one more task.

    To count 100,000 tasks takes longer than to insert one, so this process remembers what is left, and counts seldom
    until little is. Requests that count at the same moment may exceed the limit by their number, and processes by what
    each inserts before it counts again.
    """
    if not limit:
        return True
    key = owner_id, limit
    left = remembered.pop(key, 0) - 1
    if left < 0:
        room = limit - connection.execute(COUNT, {"user_id": owner_id, "limit": limit}).scalar_one()
        if not room:
            return False
        left = min(room // SHARE, MOST_UNCOUNTED)
    if len(remembered) >= MOST_REMEMBERED:
        remembered.pop(next(iter(remembered)), None)
    remembered[key] = left
    return True
