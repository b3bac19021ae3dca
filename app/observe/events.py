"""Security events: one line of JSON each, with the request that they belong to.

A line never holds a password or a token, nor a name that somebody typed (it may have been a password).
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
    "password_changed",
    "password_change_failed",
    "password_reset",
    "reset_token_issued",
    "user_registered",
    "email_changed",
    "user_changed",
    "user_deleted",
    "task_removed",
    "user_unlocked",
    "access_refused",
    "throttled",
    "unexpected_error",
]


class RequestContext(NamedTuple):
    """Whose request, and from where, as far as it is known."""

    request_id: str = ""
    ip: str = ""
    user_id: str | None = None
    session_id: str | None = None


request_context: ContextVar[RequestContext] = ContextVar("request_context", default=RequestContext())  # noqa: B039 - a tuple

listener: ContextVar[Callable[[Event], object] | None] = ContextVar("listener", default=None)
"""Who else is told of the request's events."""


def bind_caller(user_id: str, session_id: str) -> None:
    """Have the request's events name who sent it."""
    request_context.set(request_context.get()._replace(user_id=user_id, session_id=session_id))


def log_event(event: Event, **facts: str | None) -> None:
    """Log that it happened: `user_id`, `session_id` where they are not the request's own, and `reason`.

    Where an administrator did it to somebody, they are `target_id`. A task that was removed is `task_id`.
    """
    logger.info(Line({"time": utc_now().isoformat(), "event": event, **request_context.get()._asdict(), **facts}))
    if listen := listener.get():
        listen(event)
