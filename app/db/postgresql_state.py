"""Whether the service can work with a PostgreSQL server and its database: both say what they are."""

from sqlalchemy import Connection, text

from app.db.errors import DatabaseForbidden, DatabaseIsStandby, DatabaseNotUTF8, DatabaseReadOnly
from app.db.types import Base

SELECT_STATE = text(
    """
    SELECT current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS is_standby,
        current_setting('transaction_read_only') = 'on' AS is_read_only, current_schema() IS NULL AS is_schema_closed
    """
)
SELECT_FORBIDDEN_TABLES = text(
    """
    SELECT name FROM unnest(CAST(:tables AS text[])) AS name, to_regclass(quote_ident(name)) AS id
    WHERE id IS NOT NULL AND NOT (
        has_table_privilege(id, 'SELECT') AND has_table_privilege(id, 'INSERT')
        AND has_table_privilege(id, 'UPDATE') AND has_table_privilege(id, 'DELETE')
    )
    UNION SELECT 'alembic_version' WHERE NOT has_table_privilege(to_regclass('alembic_version'), 'SELECT')
    """
)


def check_state(connection: Connection) -> None:  # pragma: no cover - in a greenlet alone
    """Raise DatabaseUnavailable, or the class of it that says why, if the service cannot work there."""
    state = connection.execute(SELECT_STATE).one()
    if state.encoding != "UTF8":
        raise DatabaseNotUTF8
    if state.is_read_only:
        raise DatabaseIsStandby if state.is_standby else DatabaseReadOnly
    forbidden = connection.execute(SELECT_FORBIDDEN_TABLES, {"tables": sorted(Base.metadata.tables)}).scalars().all()
    if state.is_schema_closed or forbidden:
        error = DatabaseForbidden()
        error.reason = ", ".join(sorted(forbidden)) or "no schema of the search_path"
        raise error
