"""Verified addresses, second factors, personal tokens and each account's own record.

Revision: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

from app.db.ddl import add_column

revision = "0011"
down_revision = "0010"

ID = sa.Uuid(as_uuid=False).with_variant(sa.CHAR(36), "sqlite")
TIME = sa.DateTime(timezone=True).with_variant(sa.CHAR(27), "sqlite")


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":  # lower() then changes ASCII letters only, as on SQLite
        op.alter_column("users", "email", type_=sa.String(254, collation="C"))
    add_column("users", sa.Column("email_verified", sa.Boolean, nullable=False, server_default=sa.false()))
    add_column("users", sa.Column("totp_secret", sa.String(255)))
    add_column("users", sa.Column("totp_step", sa.BigInteger))
    add_column("sessions", sa.Column("kind", sa.String(16), nullable=False, server_default="login"))
    add_column("sessions", sa.Column("name", sa.String(100)))
    add_column("sessions", sa.Column("token_hash", sa.String(64)))
    op.create_index(
        "uq_users_verified_email",
        "users",
        [sa.text("lower(email)")],
        unique=True,
        sqlite_where=sa.text("email_verified = 1"),
        postgresql_where=sa.text("email_verified"),
    )
    where = sa.text("token_hash IS NOT NULL")
    op.create_index(
        "uq_sessions_token_hash", "sessions", ["token_hash"], unique=True, sqlite_where=where, postgresql_where=where
    )
    op.create_table(
        "recovery_codes",
        sa.Column("user_id", ID, nullable=False),
        sa.Column("code_hash", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_recovery_codes_user_id_users", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "code_hash", name="pk_recovery_codes"),
    )
    op.create_table(
        "account_events",
        sa.Column("id", ID, nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("session_id", ID),
        sa.Column("reason", sa.String(255)),
        sa.Column("ip", sa.String(45)),
        sa.Column("user_agent", sa.String(255)),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_account_events_user_id_users", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_account_events"),
    )
    op.create_index("ix_account_events_user_id_id", "account_events", ["user_id", "id"])


def downgrade() -> None:
    op.drop_table("account_events")
    op.drop_table("recovery_codes")
    op.execute("DELETE FROM sessions WHERE kind = 'personal'")  # the version before would take them for logins
    op.drop_index("uq_sessions_token_hash")
    op.drop_index("uq_users_verified_email")
    for name in "token_hash", "name", "kind":
        op.drop_column("sessions", name)
    for name in "totp_step", "totp_secret", "email_verified":
        op.drop_column("users", name)
    if op.get_context().dialect.name == "postgresql":
        op.alter_column("users", "email", type_=sa.String(254, collation="default"))
