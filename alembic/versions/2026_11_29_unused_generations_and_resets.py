"""The unused generation of a session, and the latest reset token of a user.

Revision: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("sessions", sa.Column("unused_generation", sa.Integer))
    op.add_column("users", sa.Column("reset_id", sa.String(64)))


def downgrade() -> None:
    op.drop_column("users", "reset_id")
    op.drop_column("sessions", "unused_generation")
