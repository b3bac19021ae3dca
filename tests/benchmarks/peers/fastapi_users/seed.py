"""Create the tables, with users and tasks as in tests/benchmarks/seed.py, and print the access tokens of some users.

python seed.py USERS TASKS_EACH
"""

import asyncio
import sys
from datetime import timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import insert, text

from app import Base, Task, User, engine, get_strategy, new_session, now

TOKENS = 200
AT_ONCE = 10_000  # rows
STATUSES = ("todo", "doing", "done")


async def main() -> None:
    users, tasks_each = map(int, sys.argv[1:])
    names = [f"user{n}" for n in range(users)]
    owners = [User(id=uuid4(), email=f"{name}@example.com", username=name, hashed_password="!") for name in names]
    present = now()
    begin = present - timedelta(days=1)

    def row(n: int) -> dict[str, Any]:
        moment = begin + timedelta(microseconds=n)
        return {
            "owner_id": owners[n % users].id,
            "title": f"Task {n}",
            "description": f"What is to be done about it, and by when: number {n}.",
            "status": STATUSES[n % 3],
            "due_at": present + timedelta(minutes=n) if n // users % 2 else None,
            "is_public": n // users % 2 == 0,
            "created_at": moment,
            "updated_at": moment,
        }

    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with new_session.begin() as session:
        session.add_all(owners)
        await session.flush()
        total = users * tasks_each
        for start in range(0, total, AT_ONCE):
            await session.execute(insert(Task), [row(n) for n in range(start, min(start + AT_ONCE, total))])
        await session.execute(text("ANALYZE"))
    for owner in owners[:TOKENS]:
        print(await get_strategy().write_token(owner))
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
