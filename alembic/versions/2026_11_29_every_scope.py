"""Sessions that have every scope.

Revision: 0010
Revises: 0009

Older sessions have the scopes that they name. The rows do not say which logins asked for everything.
"""

import sqlalchemy as sa
from alembic import op

from app.db.ddl import add_column

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    add_column("sessions", sa.Column("has_every_scope", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.drop_column("sessions", "has_every_scope")
