"""Security events: each is one log line, with the request that it belongs to.

A line never holds a password or a token. It holds no name that somebody typed either, which may have been a password.
"""

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Literal, NamedTuple

from app.clock import utc_now
from app.observe.logs import Line

logger = logging.getLogger(__name__)

Event = Literal[
    "login_succeeded",
    "login_failed",
    "login_refused",
    "token_refreshed",
    "refresh_refused",
    "token_reused",
    "session_revoked",
    "export_broken_off",
    "token_created",
    "token_revoked",
    "password_changed",
    "password_change_failed",
    "password_reset",
    "password_reset_requested",
    "reset_token_issued",
    "totp_enabled",
    "totp_disabled",
    "recovery_code_used",
    "user_registered",
    "email_changed",
    "email_verified",
    "user_changed",
    "user_deleted",
    "task_removed",
    "user_unlocked",
    "access_refused",
    "throttled",
    "unexpected_error",
]


class RequestContext(NamedTuple):
    """The request that is being answered: its id, the client's address, and the caller once a token was verified."""

    request_id: str = ""
    ip: str = ""
    user_id: str | None = None
    session_id: str | None = None
    trace_id: str | None = None
    """The trace that its span belongs to (W3C Trace Context §3.2.2.3), if OpenTelemetry traces it."""

    def facts(self) -> dict[str, str | None]:
        """Return the fields of its log lines. They have a `trace_id` only with tracing."""
        facts = self._asdict()
        if self.trace_id is None:
            del facts["trace_id"]
        return facts


request_context: ContextVar[RequestContext] = ContextVar("request_context", default=RequestContext())  # noqa: B039 - a tuple

listener: ContextVar[Callable[[Event], object] | None] = ContextVar("listener", default=None)
"""A function that is told of each event of the request: the metrics count them."""


def bind_caller(user_id: str, session_id: str) -> None:
    """Name the caller in the log lines of this request."""
    request_context.set(request_context.get()._replace(user_id=user_id, session_id=session_id))


def log_event(event: Event, **facts: str | None) -> None:
    """Log an event, with the ids of the request's caller.

    Other facts are its `reason`, `user_id` and `session_id` if they are not the caller's, `target_id`, the user to whom
    an administrator did it, and `task_id`, the task that was removed.
    """
    logger.info(Line({"time": utc_now().isoformat(), "event": event, **request_context.get().facts(), **facts}))
    if listen := listener.get():
        listen(event)
