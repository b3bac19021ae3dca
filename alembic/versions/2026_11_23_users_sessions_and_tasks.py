"""Users, sessions and tasks.

Revision: 0001
Revises: nothing
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ID = sa.Uuid(as_uuid=False).with_variant(sa.CHAR(36), "sqlite")
TIME = sa.DateTime(timezone=True).with_variant(sa.CHAR(27), "sqlite")
PUBLIC: dict[str, Any] = {"sqlite_where": sa.text("is_public = 1"), "postgresql_where": sa.text("is_public")}


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", ID, nullable=False),
        sa.Column("username", sa.String(64), nullable=False),
        sa.Column("email", sa.String(254)),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("is_active", sa.Boolean, server_default=sa.true(), nullable=False),
        sa.Column("is_admin", sa.Boolean, server_default=sa.false(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
    )
    op.create_index("uq_users_username", "users", [sa.text("lower(username)")], unique=True)

    op.create_table(
        "sessions",
        sa.Column("id", ID, nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("generation", sa.Integer, server_default="1", nullable=False),
        sa.Column("scope", sa.String(255), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("rotated_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.Column("end_reason", sa.String(32)),
        sa.Column("user_agent", sa.String(255), nullable=False),
        sa.Column("ip", sa.String(45), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE", name="fk_sessions_user_id_users"),
    )
    op.create_index("ix_sessions_user_id_id", "sessions", ["user_id", "id"])

    op.create_table(
        "tasks",
        sa.Column("id", ID, nullable=False),
        sa.Column("owner_id", ID, nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("description", sa.String(10_000)),
        sa.Column("status", sa.String(8), nullable=False),
        sa.Column("due_at", TIME),
        sa.Column("is_public", sa.Boolean, server_default=sa.false(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("version", sa.Integer, server_default="1", nullable=False),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("idempotency_hash", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], ondelete="CASCADE", name="fk_tasks_owner_id_users"),
        sa.CheckConstraint("status IN ('todo', 'doing', 'done')", name=op.f("ck_tasks_status")),
    )
    op.create_index("ix_tasks_owner_id_id", "tasks", ["owner_id", "id"])
    op.create_index("ix_tasks_owner_id_due_at_id", "tasks", ["owner_id", "due_at", "id"])
    op.create_index("ix_tasks_owner_id_updated_at_id", "tasks", ["owner_id", "updated_at", "id"])
    op.create_index("ix_tasks_public_id", "tasks", ["id"], **PUBLIC)
    op.create_index("ix_tasks_public_due_at_id", "tasks", ["due_at", "id"], **PUBLIC)
    op.create_index("ix_tasks_public_updated_at_id", "tasks", ["updated_at", "id"], **PUBLIC)
    op.create_index("uq_tasks_owner_id_idempotency_key", "tasks", ["owner_id", "idempotency_key"], unique=True)


def downgrade() -> None:
    op.drop_table("tasks")
    op.drop_table("sessions")
    op.drop_table("users")
