"""The one place that reads the clock, and the one moment that a request lives in."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Depends, Request

Clock = Callable[[], datetime]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def utc_now() -> datetime:
    return datetime.now(UTC)


async def get_now(request: Request) -> datetime:
    clock: Clock = request.app.state.services.clock
    return clock()


Now = Annotated[datetime, Depends(get_now)]
"""The moment of the request, in UTC: read once, so that all parts of a request agree."""
