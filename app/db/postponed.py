"""Work that a migration leaves for after its transaction, on PostgreSQL: that on all rows of a table.

Inside the transaction all requests for the table would wait for it. The statements are in the comment of the table
`alembic_version`, so they are committed together with the migration. If a process stops between them, the next one to
migrate goes on. Each statement may run again.
"""

import json

from sqlalchemy import Connection, MetaData, Table, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.schema import SetTableComment

from app.errors import Unavailable

LEFT = "Left to python -m app migrate: "  # other comments are somebody else's
SELECT_COMMENT = text("SELECT obj_description(to_regclass('alembic_version'), 'pg_class')")
IS_INVALID = text("SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(nullif(:name, '')) AND NOT indisvalid")


class PostponedFailed(Unavailable):
    code = "postponed_failed"

    def __init__(self, statement: str, cause: DBAPIError) -> None:
        self.detail = f"{statement}: {words(cause)}"


def words(error: BaseException) -> str:
    """Say what is wrong as the database says it, without the values of rows."""
    if not isinstance(error, DBAPIError):
        return f"{type(error).__name__}: {error}"
    return str(((error.orig and error.orig.__cause__) or error.orig or error).args[0])


def read_postponed(connection: Connection) -> list[tuple[str, str]]:
    """Return the statements that are left, in their order, each with the name of its index or constraint."""
    if connection.dialect.name != "postgresql":
        return []
    comment = connection.execute(SELECT_COMMENT).scalar() or ""
    return [(name, statement) for name, statement in json.loads(comment.partition(LEFT)[2] or "[]")]


def postpone(connection: Connection, name: str, statement: str) -> None:
    """Leave a statement for after the transaction."""
    _write(connection, [*read_postponed(connection), (name, statement)])


def run_postponed(connection: Connection) -> None:  # pragma: no cover - in a greenlet alone
    """Run what is left, between two transactions of the connection: PostgreSQL refuses these statements inside one.

    They wait for older transactions, and let all requests pass. An index that a broken-off statement has left is not
    valid, and is built again.

    Raises PostponedFailed.
    """
    left = read_postponed(connection)
    connection.commit()
    if not left:
        return
    connection.execution_options(isolation_level="AUTOCOMMIT")
    connection.exec_driver_sql("SET lock_timeout = 0")
    for number, (name, statement) in enumerate(left, 1):
        try:
            if connection.execute(IS_INVALID, {"name": name}).first():
                connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY {name}")
            connection.exec_driver_sql(statement)
        except (ProgrammingError, IntegrityError, DataError) as error:
            raise PostponedFailed(statement, error) from error
        _write(connection, left[number:])
    connection.commit()
    connection.execution_options(isolation_level="READ COMMITTED")


def _write(connection: Connection, left: list[tuple[str, str]]) -> None:
    comment = LEFT + json.dumps(left) if left else None
    connection.execute(SetTableComment(Table("alembic_version", MetaData(), comment=comment)))
