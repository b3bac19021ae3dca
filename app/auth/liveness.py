"""When a session is live: one condition, in SQL for statements and in Python for what clients are told."""

from datetime import datetime, timedelta
from typing import NamedTuple, Self

from sqlalchemy import bindparam, literal_column, or_

from app.auth.errors import END_REASONS, SESSION_EXPIRED, SESSION_OVER
from app.auth.models import LoginSession
from app.clock import EPOCH
from app.config import Settings
from app.db.database import AnyRow

IS_LOGIN = LoginSession.kind == literal_column("'login'")
"""Whether a session is a login. If not, it is a personal token, which has no end but its own."""

IS_LIVE_SESSION = (
    LoginSession.ended_at.is_(None)
    & (LoginSession.expires_at > bindparam("now"))
    & or_(
        ~IS_LOGIN,
        (LoginSession.created_at > bindparam("created_after")) & (LoginSession.rotated_at > bindparam("used_after")),
    )
)
"""Whether a session is live at a moment, whose parts are its parameters. Whether the user is active is not asked."""


class Moment(NamedTuple):
    """A moment, and the times after which a login must have begun and been used to be live then.

    The settings may have changed since the login: a shorter SESSION_TTL ends sessions that exist.
    """

    now: datetime
    created_after: datetime
    used_after: datetime

    @classmethod
    def at(cls, now: datetime, settings: Settings) -> Self:
        idle_ttl = settings.session_idle_ttl
        used_after = now - timedelta(seconds=idle_ttl) if idle_ttl else EPOCH
        return cls(now, now - timedelta(seconds=settings.session_ttl), used_after)

    @property
    def ttl(self) -> timedelta:
        return self.now - self.created_after

    def end_of(self, session: AnyRow) -> datetime:
        """Return when a session expires at the latest."""
        end: datetime = session.expires_at
        return min(end, session.created_at + self.ttl) if session.kind == "login" else end

    def expiry(self, session: AnyRow) -> datetime:
        """Return when a session expires if nobody refreshes it."""
        end = self.end_of(session)
        return min(end, session.rotated_at + (self.now - self.used_after)) if session.kind == "login" else end

    def why_over(self, session: AnyRow) -> str | None:
        """Say why a session is not live. None if it is."""
        if session.ended_at is not None:
            return END_REASONS.get(session.end_reason, SESSION_OVER)
        return SESSION_EXPIRED if self.expiry(session) <= self.now else None
