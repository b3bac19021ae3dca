"""Databases to measure on: as many users as you ask for, each with a session and tasks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import URL, Connection, insert

from app.auth.claims import AccessClaims, RefreshClaims
from app.auth.models import LoginSession, User
from app.auth.passwords import Cost, Passwords
from app.auth.schemas import SCOPES
from app.auth.tokens import Tokens
from app.clock import utc_now
from app.config import Settings
from app.db.connect import connect
from app.db.types import Base, new_id
from app.tasks.models import Task
from app.tasks.words import index_text
from tests.conftest import SECRET, migrate
from tests.support.accounts import PASSWORD

AT_ONCE = 10_000  # rows
LIFE = timedelta(days=30)
STATUSES = ("todo", "doing", "done")
SCOPE = " ".join(SCOPES)


class Person(NamedTuple):
    """A seeded user, as a client knows them."""

    username: str
    access_token: str
    refresh_token: str
    task_id: str


@dataclass
class Rows:
    """The rows of an empty database that is to be filled, in the order of their creation: a microsecond apart.

    The tasks of the first user's own come last. Every second one is public, and the others have a due date.
    """

    users: int
    tasks_each: int
    many: int
    now: datetime
    password_hash: str
    first_tasks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begin = self.now - timedelta(days=1)
        self.moments = [self.begin + timedelta(microseconds=n) for n in range(self.users)]
        self.user_ids = [new_id(moment) for moment in self.moments]
        self.session_ids = [new_id(moment) for moment in self.moments]

    def of_users(self) -> Iterator[dict[str, Any]]:
        for n, (user_id, moment) in enumerate(zip(self.user_ids, self.moments, strict=True)):
            times = {"created_at": moment, "updated_at": moment}
            yield {"id": user_id, "username": f"user{n}", "password_hash": self.password_hash, **times}

    def of_sessions(self) -> Iterator[dict[str, Any]]:
        for session_id, user_id, moment in zip(self.session_ids, self.user_ids, self.moments, strict=True):
            times = {"created_at": moment, "rotated_at": moment, "expires_at": self.now + LIFE}
            yield {"id": session_id, "user_id": user_id, "scope": SCOPE, "user_agent": "", "ip": "127.0.0.1", **times}

    def of_tasks(self) -> Iterator[dict[str, Any]]:
        shared = self.users * self.tasks_each
        for n in range(shared + self.many):
            moment = self.begin + timedelta(seconds=1, microseconds=n)
            task_id = new_id(moment)
            if n < self.users:
                self.first_tasks.append(task_id)
            title, description = (
                f"Task {n}",
                f"What is to be done about it, and by when: number {n}, of lot{n % 1_000}.",
            )
            is_public = (n // self.users if n < shared else n) % 2 == 0
            yield {
                "id": task_id,
                "owner_id": self.user_ids[n % self.users if n < shared else 0],
                "title": title,
                "description": description,
                "words": index_text(title, description),
                "status": STATUSES[n % 3],
                "due_at": None if is_public else self.now + timedelta(minutes=n),
                "is_public": is_public,
                "created_at": moment,
                "updated_at": moment,
            }


async def seed(url: URL, users: int, tasks_each: int, people: int = 200, many: int = 0) -> list[Person]:
    """Fill an empty database, and return its first users. The first user has `many` tasks more than the others."""
    await migrate(url)
    hashing = Passwords(Cost())
    rows = Rows(users, tasks_each, many, utc_now(), await hashing.hash(PASSWORD, "", None, ""))
    hashing.close()
    async with connect(url, 600) as database:
        for table, some in (User, rows.of_users()), (LoginSession, rows.of_sessions()), (Task, rows.of_tasks()):
            while batch := list(islice(some, AT_ONCE)):
                await database.write(_insert, table, batch)
    tokens = Tokens(Settings(database_url=str(url), secret_key=SECRET).public_url, [SECRET])
    return [
        Person(f"user{n}", *_pair(tokens, user_id, session_id, moment, rows.now), task_id)
        for n, user_id, session_id, moment, task_id in zip(
            range(people), rows.user_ids, rows.session_ids, rows.moments, rows.first_tasks, strict=False
        )
    ]


def _insert(connection: Connection, table: type[Base], rows: Iterable[dict[str, Any]]) -> None:
    connection.execute(insert(table), list(rows))


def _pair(tokens: Tokens, user_id: str, session_id: str, rotated_at: datetime, now: datetime) -> tuple[str, str]:
    """The tokens of a session at its first generation, good for a day."""
    issuer, ends_at = tokens.issuer, int((now + LIFE).timestamp())
    common: dict[str, Any] = {"iss": issuer, "aud": issuer, "sub": user_id, "sid": session_id, "scope": SCOPE}
    issued_at = int(now.timestamp())
    access = AccessClaims(**common, jti="seed.1", iat=issued_at, exp=issued_at + 86_400)
    refresh = RefreshClaims(**common, jti=f"{session_id}.1", iat=int(rotated_at.timestamp()), exp=ends_at, gen=1)
    return tokens.sign(access), tokens.sign(refresh)
