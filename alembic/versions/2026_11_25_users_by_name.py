"""Usernames ordered by their characters in every language of a database; an index of administrators.

Revision: 0004
Revises: 0003
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

ADMINISTRATORS: dict[str, Any] = {
    "sqlite_where": sa.text("is_admin = 1"),
    "postgresql_where": sa.text("is_admin"),
}


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("users", "username", type_=sa.String(64, collation="C"), existing_nullable=False)
    op.create_index("ix_users_administrators", "users", ["id"], **ADMINISTRATORS)


def downgrade() -> None:
    op.drop_index("ix_users_administrators")
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("users", "username", type_=sa.String(64, collation="default"), existing_nullable=False)
