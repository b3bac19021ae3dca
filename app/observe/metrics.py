"""/metrics, in Prometheus' text format: the counts of one process, or of all workers that share a port.

Workers count in files of one folder, and each of them answers for all. prometheus-client finds the folder in
PROMETHEUS_MULTIPROC_DIR when it is imported. Each label has a fixed set of values: nothing that was sent becomes one.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from platform import python_version
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, get_args

from fastapi import FastAPI
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.requests import Request
from starlette.responses import Response

from app import SLUG, __version__
from app.db import errors
from app.db.database import Verb
from app.errors import NotFound, Unavailable
from app.observe.events import Event
from app.observe.processes import ProcessesCollector, living

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SAMPLE_SECONDS = 1
METHODS = {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}
OF_PROXIES = {"forwarded", "via", "x-forwarded-for", "x-real-ip"}  # headers that a proxy adds
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # seconds
DATABASE_ERRORS = tuple(
    error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, Unavailable)
)
GAUGES = {
    "hashing_queue": "Passwords that are being hashed or wait for it",
    "database_connections": "Connections to the database",
}

disable_created_metrics()  # type: ignore[no-untyped-call] # they would double the number of series

Usage = Callable[[], tuple[int, int]]
"""Returns how much of a resource is in use, and how much there is."""


class Metrics:
    """The counts of this process. `text` adds those of the other workers."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        shared: dict[str, Any] = {"registry": self._registry}
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "Time from the head of a request to the end of its answer",
            ["method", "route", "status"],
            buckets=BUCKETS,
            **shared,
        )
        self._events = Counter("security_events", "Security events, by their names in the log", ["event"], **shared)
        for event in get_args(Event):
            self._events.labels(event)
        self._database_seconds = Histogram(
            "database_call_duration_seconds",
            "Time of a call to the database, with its wait for a connection",
            ["verb"],
            buckets=BUCKETS,
            **shared,
        )
        self._database_errors = Counter(
            "database_errors", "Calls that failed for the database, by the code of the error", ["code"], **shared
        )
        for error in DATABASE_ERRORS:
            self._database_errors.labels(error.code)
        build = Gauge(
            "build_info", "The version that runs", ["version", "python"], multiprocess_mode="livemax", **shared
        )
        build.labels(__version__, python_version()).set(1)
        ProcessCollector(**shared)
        self._gauges = {
            name: [Gauge(f"{name}_{part}", words, multiprocess_mode="livesum", **shared) for part in ("used", "limit")]
            for name, words in GAUGES.items()
        }
        self._usages: dict[str, Usage] = {}

    def count_request(self, method: str, route: str | None, status: int | None, seconds: float) -> None:
        """Count a request. `route` is None if none matched, and `status` if no answer began."""
        known = method if method in METHODS else "other"
        self._seconds.labels(known, route or "none", status or "none").observe(seconds)

    def count_event(self, event: Event) -> None:
        self._events.labels(event).inc()

    @contextmanager
    def time_call(self, verb: Verb) -> Iterator[None]:
        """Time a call to the database, and count its error."""
        began = perf_counter()
        try:
            yield
        except DATABASE_ERRORS as error:
            self._database_errors.labels(error.code).inc()
            raise
        finally:
            self._database_seconds.labels(verb).observe(perf_counter() - began)

    def _sample(self) -> None:
        for name, usage in self._usages.items():
            for gauge, value in zip(self._gauges[name], usage(), strict=True):
                gauge.set(value)

    @asynccontextmanager
    async def sampling(self, **usages: Usage) -> AsyncIterator[None]:
        """Sample these once a second, by their names in `GAUGES`, for the workers that answer for this one."""

        async def sample() -> None:
            while True:
                self._sample()
                await asyncio.sleep(SAMPLE_SECONDS)

        self._usages = usages
        sampler = asyncio.create_task(sample())
        try:
            yield
        finally:
            sampler.cancel()

    def text(self) -> bytes:
        """The answer to Prometheus. It takes milliseconds, too long for the event loop."""
        self._sample()
        folder = os.environ.get(FOLDER)
        if folder is None:
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        MultiProcessCollector(shared, folder)  # type: ignore[no-untyped-call]
        shared.register(ProcessesCollector(living(Path(folder))))
        return generate_latest(shared)


def add_metrics_route(app: FastAPI, metrics: Metrics) -> None:
    """Answer Prometheus, and nobody who comes through a proxy: whatever path it lets through, it adds such a header."""

    @app.get("/metrics", include_in_schema=False)
    def read_metrics(request: Request) -> Response:  # not async: FastAPI runs it on a thread
        if not OF_PROXIES.isdisjoint(request.headers):
            raise NotFound
        return Response(metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)


@contextmanager
def shared_folder() -> Iterator[None]:
    """Let the processes that start inside this block count together."""
    with TemporaryDirectory(prefix=f"{SLUG}-") as folder:
        os.environ[FOLDER] = folder
        yield
