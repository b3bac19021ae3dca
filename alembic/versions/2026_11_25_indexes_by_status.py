"""Indexes of tasks by status. The index of idempotency keys leaves out the tasks without one.

Revision: 0003
Revises: 0002
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from app.db.ddl import execute_after

revision = "0003"
down_revision = "0002"

ORDERS = (("id",), ("due_at", "id"), ("updated_at", "id"))
PUBLIC: dict[str, Any] = {"sqlite_where": sa.text("is_public = 1"), "postgresql_where": sa.text("is_public")}
HAS_KEY: dict[str, Any] = {
    "sqlite_where": sa.text("idempotency_key IS NOT NULL"),
    "postgresql_where": sa.text("idempotency_key IS NOT NULL"),
}
KEY = "uq_tasks_owner_id_idempotency_key"
PARTIAL_KEY = f"{KEY}_partial"
COLUMNS = ["owner_id", "idempotency_key"]


def upgrade() -> None:
    for order in ORDERS:
        columns = "_".join(order)
        op.create_index(f"ix_tasks_owner_id_status_{columns}", "tasks", ["owner_id", "status", *order])
        op.create_index(f"ix_tasks_public_status_{columns}", "tasks", ["status", *order], **PUBLIC)
    if op.get_context().dialect.name == "postgresql":  # the old index keeps keys unique while this one is built
        op.create_index(PARTIAL_KEY, "tasks", COLUMNS, unique=True, **HAS_KEY)
        op.drop_index(KEY)
        execute_after(f"ALTER INDEX IF EXISTS {PARTIAL_KEY} RENAME TO {KEY}")
    else:
        op.drop_index(KEY)
        op.create_index(KEY, "tasks", COLUMNS, unique=True, **HAS_KEY)


def downgrade() -> None:
    op.drop_index(KEY)
    op.create_index(KEY, "tasks", COLUMNS, unique=True)
    for order in ORDERS:
        columns = "_".join(order)
        op.drop_index(f"ix_tasks_owner_id_status_{columns}")
        op.drop_index(f"ix_tasks_public_status_{columns}")
