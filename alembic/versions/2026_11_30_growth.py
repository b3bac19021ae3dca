"""Fewer indexes of tasks, an index of the ends of sessions, and room in the pages of sessions for refreshes.

Revision: 0012
Revises: 0011
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

PUBLIC: dict[str, Any] = {"sqlite_where": sa.text("is_public = 1"), "postgresql_where": sa.text("is_public")}
STORAGE = {"fillfactor": 85, "autovacuum_vacuum_scale_factor": 0.02}


def upgrade() -> None:
    for key in "due_at", "updated_at":
        op.drop_index(f"ix_tasks_owner_id_status_{key}_id")
        op.drop_index(f"ix_tasks_public_status_{key}_id")
    op.create_index("ix_sessions_end", "sessions", [sa.text("coalesce(ended_at, expires_at)")])
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE sessions SET ({', '.join(f'{name} = {value}' for name, value in STORAGE.items())})")


def downgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE sessions RESET ({', '.join(STORAGE)})")
    op.drop_index("ix_sessions_end")
    for key in "due_at", "updated_at":
        op.create_index(f"ix_tasks_owner_id_status_{key}_id", "tasks", ["owner_id", "status", key, "id"])
        op.create_index(f"ix_tasks_public_status_{key}_id", "tasks", ["status", key, "id"], **PUBLIC)
