"""Sessions that have every scope.

Revision: 0010
Revises: 0009

Sessions from before have the scopes that they name: nobody knows which of their logins asked for everything.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("sessions", sa.Column("has_every_scope", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.drop_column("sessions", "has_every_scope")
