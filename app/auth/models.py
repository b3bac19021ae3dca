"""The tables of users and of their sessions, and the names by which users log in."""

from datetime import datetime
from string import ascii_lowercase, ascii_uppercase

from sqlalchemy import BigInteger, ForeignKey, Index, String, bindparam, false, func, select, true
from sqlalchemy.orm import Mapped, column_property, mapped_column

from app.db.types import Base, Id, PrimaryKey, Text


class User(Base):
    __tablename__ = "users"

    id: Mapped[PrimaryKey]
    username: Mapped[str] = mapped_column(Text(64), doc="PostgreSQL sorts it by its characters: collation C.")
    email: Mapped[str | None] = mapped_column(Text(254))
    password_hash: Mapped[str] = mapped_column(String(255))
    is_active: Mapped[bool] = mapped_column(server_default=true())
    is_admin: Mapped[bool] = mapped_column(server_default=false())
    reset_id: Mapped[str | None] = mapped_column(
        String(64), doc="The `jti` of the latest reset token, until it is used."
    )
    email_verified: Mapped[bool] = mapped_column(server_default=false(), doc="A mail to this address has come back.")
    totp_secret: Mapped[str | None] = mapped_column(String(255), doc="The sealed secret of the second factor.")
    totp_step: Mapped[int | None] = mapped_column(
        BigInteger, doc="The time step of the latest code. The second factor is on if there is one."
    )
    # Not IS NOT NULL: SQLite 3.40 says that of each null that an INSERT returns.
    totp: Mapped[bool] = column_property((func.coalesce(totp_step, 0) > 0).label("totp"))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None] = mapped_column(doc="The account is gone, and its rows are being deleted.")


Index("uq_users_username", func.lower(User.username), unique=True)
Index(
    "uq_users_verified_email",
    func.lower(User.email),
    unique=True,
    sqlite_where=User.email_verified,
    postgresql_where=User.email_verified,
)
Index("ix_users_administrators", User.id, sqlite_where=User.is_admin, postgresql_where=User.is_admin)
IS_DELETED = User.deleted_at.is_not(None)
Index("ix_users_deleted", User.id, sqlite_where=IS_DELETED, postgresql_where=IS_DELETED)

LOGIN_NAME = bindparam("username", type_=Text)
BY_USERNAME = select(User.id).where(func.lower(User.username) == LOGIN_NAME).correlate(None)
BY_ADDRESS = select(User.id).where(func.lower(User.email) == LOGIN_NAME, User.email_verified).correlate(None)
HAS_LOGIN_NAME = User.id == func.coalesce(BY_USERNAME.scalar_subquery(), BY_ADDRESS.scalar_subquery())
"""Whether a user logs in by a name: the username, or the verified e-mail address. The name must be normalized.

At most one user does: a username has no @, and an address has one.
"""
LOWER_CASE = str.maketrans(ascii_uppercase, ascii_lowercase)


def normalize_username(username: str) -> str:
    """Return a login name with its ASCII letters in lower case, as SQL's `lower` does. Their case does not matter.

    Other letters stay as they are. Some have an ASCII letter as their lower case, and must not match a username.
    """
    return username.translate(LOWER_CASE)


class RecoveryCode(Base):
    """A code that works once in place of a one-time code."""

    __tablename__ = "recovery_codes"

    user_id: Mapped[str] = mapped_column(Id, ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    code_hash: Mapped[str] = mapped_column(String(64), primary_key=True)


class LoginSession(Base):
    """One login, which stays one row however often it is refreshed, or one personal token. No token is stored."""

    __tablename__ = "sessions"

    id: Mapped[PrimaryKey]
    user_id: Mapped[str] = mapped_column(Id, ForeignKey(User.id, ondelete="CASCADE"))
    generation: Mapped[int] = mapped_column(server_default="1")
    unused_generation: Mapped[int | None] = mapped_column(doc="The generation, while its tokens are unused.")
    scope: Mapped[str] = mapped_column(Text(255), doc="The scopes at the login.")
    has_every_scope: Mapped[bool] = mapped_column(
        server_default=false(), doc="The login asked for everything, so the session has later scopes too."
    )
    created_at: Mapped[datetime]
    rotated_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None] = mapped_column(Text(32))
    user_agent: Mapped[str] = mapped_column(Text(255))
    ip: Mapped[str] = mapped_column(Text(45))
    network: Mapped[str | None] = mapped_column(Text(45), doc="The network of `ip`. Older rows have none.")
    kind: Mapped[str] = mapped_column(Text(16), server_default="login", doc="`login` or `personal`.")
    name: Mapped[str | None] = mapped_column(Text(100), doc="The name of a personal token.")
    token_hash: Mapped[str | None] = mapped_column(String(64), doc="The SHA-256 of a personal token.")

    __table_args__ = (
        Index(None, "user_id", "id"),
        # Room in each page, so that a refresh stays in the page of its row, and a vacuum that comes in time.
        {"postgresql_with": {"fillfactor": 85, "autovacuum_vacuum_scale_factor": 0.02}},
    )


NETWORK = func.coalesce(LoginSession.network, LoginSession.ip)
END = func.coalesce(LoginSession.ended_at, LoginSession.expires_at)
IS_NOT_ENDED = LoginSession.ended_at.is_(None)

# A refresh changes no column that is in an index: on PostgreSQL it is a heap-only update.
Index("ix_sessions_networks", LoginSession.user_id, NETWORK, END)
Index("ix_sessions_end", END)
Index(
    "ix_sessions_live", LoginSession.user_id, LoginSession.id, sqlite_where=IS_NOT_ENDED, postgresql_where=IS_NOT_ENDED
)
HAS_TOKEN = LoginSession.token_hash.is_not(None)
Index(
    "uq_sessions_token_hash", LoginSession.token_hash, unique=True, sqlite_where=HAS_TOKEN, postgresql_where=HAS_TOKEN
)


class AccountEvent(Base):
    """Something that concerns the security of an account, for its owner to read."""

    __tablename__ = "account_events"

    id: Mapped[PrimaryKey]
    user_id: Mapped[str] = mapped_column(Id, ForeignKey(User.id, ondelete="CASCADE"))
    event: Mapped[str] = mapped_column(Text(32))
    at: Mapped[datetime]
    session_id: Mapped[str | None] = mapped_column(Id)
    reason: Mapped[str | None] = mapped_column(Text(255))
    ip: Mapped[str | None] = mapped_column(Text(45))
    user_agent: Mapped[str | None] = mapped_column(Text(255))

    __table_args__ = (Index(None, "user_id", "id"),)


class Throttle(Base):
    """A counter, until it starts again."""

    __tablename__ = "throttle"

    key: Mapped[str] = mapped_column(String(64), primary_key=True, doc="An HMAC: the table has no names.")
    hits: Mapped[int]
    resets_at: Mapped[datetime] = mapped_column(index=True)
