"""Accounts that have ended. Their rows are deleted later, in batches.

Revision: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

TIME = sa.DateTime(timezone=True).with_variant(sa.CHAR(27), "sqlite")


def upgrade() -> None:
    op.add_column("users", sa.Column("deleted_at", TIME))
    is_deleted = sa.text("deleted_at IS NOT NULL")
    op.create_index("ix_users_deleted", "users", ["id"], sqlite_where=is_deleted, postgresql_where=is_deleted)


def downgrade() -> None:
    op.drop_index("ix_users_deleted")
    op.drop_column("users", "deleted_at")
