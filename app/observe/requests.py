"""What became of each request: a line in the log, and a place in the metrics."""

import logging
from contextvars import ContextVar
from http import HTTPStatus
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.clock import utc_now
from app.observe.events import listener, request_context
from app.observe.logs import Line
from app.observe.metrics import Metrics

logger = logging.getLogger(__name__)

ROUTINE = {"/health/live", "/health/ready", "/metrics"}
"""Routes whose success is nothing to tell: they are asked every few seconds, by machines."""

matched_route: ContextVar[str | None] = ContextVar("matched_route", default=None)
"""The path of the route that the request has found, as it was declared: of what was sent nothing is in it."""


class RequestLog:
    """Log each request when it is over, and count it. `status` is None where nobody was answered.

    A route that is declared with a slash at its end and without is one.

    An answer that did not get to its end, because the server's time was up, is "broken off".
    """

    def __init__(self, app: ASGIApp, metrics: Metrics | None, *, logs: bool) -> None:
        self.app = app
        self.metrics = metrics
        self.listener = metrics.count_event if metrics else None
        self.logs = logs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = perf_counter()
        status: int | None = None
        is_whole = False

        async def send_and_see(message: Message) -> None:
            nonlocal status, is_whole
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                is_whole = not message.get("more_body", False)

        matched_route.set(None)
        listener.set(self.listener)
        try:
            await self.app(scope, receive, send_and_see)
        finally:
            seconds = perf_counter() - began
            route = (matched_route.get() or "").rstrip("/") or None
            if self.metrics:
                self.metrics.count_request(scope["method"], route, status, seconds)
            is_routine = status == HTTPStatus.OK and route in ROUTINE
            if self.logs and logger.isEnabledFor(logging.INFO) and not is_routine:
                self._log(scope["method"], route, status, seconds, is_whole=is_whole)

    def _log(self, method: str, route: str | None, status: int | None, seconds: float, *, is_whole: bool) -> None:
        line: dict[str, object] = {
            "time": utc_now().isoformat(),
            "event": "request",
            "method": method,
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 1),
            **request_context.get()._asdict(),
        }
        if not is_whole:
            line["reason"] = "broken off"
        # What `logger.info` does, but for looking up who calls it, which is a sixth of it all.
        logger.handle(logging.LogRecord(__name__, logging.INFO, __file__, 0, Line(line), (), None))
