"""The deletion of an account: the account is gone at once, and its rows are deleted in batches."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from functools import lru_cache

from sqlalchemy import Connection, Delete, bindparam, delete, select, tuple_, update

from app.auth.models import LoginSession, User
from app.db.batches import in_batches
from app.db.database import Database
from app.db.types import Base, Text
from app.users.errors import UserNotFound

ROWS_AT_ONCE = 50  # that are deleted with the request

IS_ACCOUNT = User.id == bindparam("user_id")
END_ACCOUNT = (
    update(User)
    .where(IS_ACCOUNT, User.deleted_at.is_(None))
    .values(username=bindparam("former", type_=Text), email=None, password_hash="", is_active=False, is_admin=False)
    .values(totp_secret=None, totp_step=None, deleted_at=bindparam("now"), updated_at=bindparam("now"))
)
LOCK_ENDED_ACCOUNT = select(User.id).where(IS_ACCOUNT, User.deleted_at.is_not(None)).with_for_update()
SELECT_ENDED_ACCOUNTS = select(User.id).where(User.deleted_at.is_not(None)).limit(100)
DELETE_ACCOUNT = delete(User).where(IS_ACCOUNT)


def end_account(connection: Connection, user_id: str, now: datetime) -> bool:
    """End an account, and delete its first rows. Return whether rows may be left for `delete_ended`.

    Raises UserNotFound. The name is free from now on. The account gets one with a space, which nobody can register.
    """
    values = {"user_id": user_id, "former": f"deleted {user_id}", "now": now}
    if not connection.execute(END_ACCOUNT, values).rowcount:
        raise UserNotFound
    return delete_rows(connection, user_id, ROWS_AT_ONCE) == ROWS_AT_ONCE


def delete_rows(connection: Connection, user_id: str, limit: int) -> int:
    """Delete some rows of an account that has ended, the account last. Return their number: 0 if nothing is left."""
    if connection.execute(LOCK_ENDED_ACCOUNT, {"user_id": user_id}).one_or_none() is None:
        return 0
    left = limit
    for statement in _deletes():
        left -= connection.execute(statement, {"user_id": user_id, "limit": left}).rowcount
        if left == 0:
            return limit
    connection.execute(DELETE_ACCOUNT, {"user_id": user_id})
    return limit - left + 1


@lru_cache(1)
def _deletes() -> Sequence[Delete]:
    """Return a statement for each column of any table that refers to users. It deletes some rows of a user.

    Sessions go first, because a request that writes locks its session before it waits for another row.
    """
    tables = Base.metadata.sorted_tables[::-1]
    tables.sort(key=lambda table: table is not LoginSession.__table__)
    return [
        delete(table).where(
            tuple_(*table.primary_key).in_(
                select(*table.primary_key).where(key.parent == bindparam("user_id")).limit(bindparam("limit"))
            )
        )
        for table in tables
        for key in table.foreign_keys
        if key.references(Base.metadata.tables[User.__tablename__]) and key.ondelete == "CASCADE"
    ]


async def delete_ended(db: Database) -> AsyncGenerator[int, None]:
    """Delete the rows of all accounts that have ended, and yield after each batch. Processes may do so together."""
    while user_ids := await db.read(lambda connection: connection.execute(SELECT_ENDED_ACCOUNTS).scalars().all()):
        for user_id in user_ids:
            async for done in in_batches(db, delete_rows, user_id):
                yield done
