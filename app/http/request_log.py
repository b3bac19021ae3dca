"""The outcome of each request, as a line in the log and in the metrics."""

import logging
from http import HTTPStatus
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.clock import utc_now
from app.http.fastapi_internals import declared_path
from app.observe.events import listener, request_context
from app.observe.logs import Line
from app.observe.metrics import Metrics

logger = logging.getLogger(__name__)

PROBED = {"/health/live", "/health/ready", "/metrics"}
"""Routes that machines ask every few seconds: they are logged only when they fail."""


class RequestLog:
    """Logs and counts each request when it ends.

    `status` is None if no answer began. An answer that was not sent to its end is "broken off".
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
        sent_path: str = scope["path"]
        status: int | None = None
        is_whole = False

        async def send_and_see(message: Message) -> None:
            nonlocal status, is_whole
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                is_whole = not message.get("more_body", False)

        listener.set(self.listener)
        try:
            await self.app(scope, receive, send_and_see)
        finally:
            seconds = perf_counter() - began
            route = declared_path(scope)
            if self.metrics:
                self.metrics.count_request(scope["method"], route, status, seconds)
            is_good_probe = status == HTTPStatus.OK and route in PROBED
            if self.logs and logger.isEnabledFor(logging.INFO) and not is_good_probe:
                line = Line(
                    time=utc_now().isoformat(),
                    event="request",
                    method=scope["method"],
                    route=route,
                    status=status,
                    ms=round(seconds * 1000, 1),
                    **request_context.get().facts(),
                )
                if route is None:
                    line.path = sent_path
                if not is_whole:
                    line["reason"] = "broken off"
                # `logger.info` would also look up its caller, which takes a sixth of the time of a log line.
                logger.handle(logging.LogRecord(__name__, logging.INFO, __file__, 0, line, (), None))
