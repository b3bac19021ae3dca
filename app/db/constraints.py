"""The name of the constraint that a statement violated."""

import re
from typing import Final

from sqlalchemy import PrimaryKeyConstraint, UniqueConstraint
from sqlalchemy.exc import IntegrityError

from app.db.types import Base

NAMED_BY_SQLITE: Final = re.compile(r"(?:CHECK constraint failed: |UNIQUE constraint failed: index ')(\w+)'?")
COLUMNS_BY_SQLITE: Final = re.compile(r"UNIQUE constraint failed: ((\w+)\.\w+(?:, \w+\.\w+)*)")


def violated_constraint(error: IntegrityError) -> str | None:
    """Return the name of the constraint, or of the unique index, that a statement violated.

    None where the database does not say. SQLite does not say which foreign key it was.
    """
    if name := getattr(error.orig and error.orig.__cause__, "constraint_name", None):
        return str(name)
    message = str(error.orig)
    if named := NAMED_BY_SQLITE.fullmatch(message):
        return named[1]
    unique = COLUMNS_BY_SQLITE.fullmatch(message)
    return _unique_on(unique[2], unique[1].split(", ")) if unique else None


def _unique_on(table_name: str, columns: list[str]) -> str | None:
    """Find what makes these columns of a table unique: SQLite names the columns only."""
    table = Base.metadata.tables.get(table_name)
    if table is None:
        return None
    constraints = [rule for rule in table.constraints if isinstance(rule, PrimaryKeyConstraint | UniqueConstraint)]
    indexes = [index for index in table.indexes if index.unique]
    rules = [(rule.name, rule.columns) for rule in (*constraints, *indexes)]
    return next((str(name) for name, parts in rules if [str(part) for part in parts] == columns), None)
