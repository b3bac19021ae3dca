"""Each service of a test has its own engine. All of them share the statements that SQLAlchemy has compiled for one."""

from typing import Any

from sqlalchemy import Connection, Dialect, Engine, event

CACHE: dict[Any, Any] = {}
DIALECTS: dict[str, Dialect] = {}


@event.listens_for(Engine, "engine_connect")
def share_compiled_statements(connection: Connection) -> None:
    """The cache is keyed by dialect too, and each engine has one."""
    connection.dialect = DIALECTS.setdefault(connection.dialect.driver, connection.dialect)
    connection.execution_options(compiled_cache=CACHE)
