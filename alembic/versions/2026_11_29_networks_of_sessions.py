"""The network of a session; indexes of an account's networks, and of its live sessions.

Revision: 0006
Revises: 0005

Older sessions keep their address alone, which is the network for IPv4. Changing all of them would make writers wait.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

NETWORK = sa.text("coalesce(network, ip)")
END = sa.text("coalesce(ended_at, expires_at)")
LIVE: dict[str, Any] = {
    "sqlite_where": sa.text("ended_at IS NULL"),
    "postgresql_where": sa.text("ended_at IS NULL"),
}


def upgrade() -> None:
    op.add_column("sessions", sa.Column("network", sa.String(45)))
    op.create_index("ix_sessions_networks", "sessions", ["user_id", NETWORK, END])
    op.create_index("ix_sessions_live", "sessions", ["user_id", "id"], **LIVE)


def downgrade() -> None:
    op.drop_index("ix_sessions_live")
    op.drop_index("ix_sessions_networks")
    op.drop_column("sessions", "network")
