"""Probes that ask a service in turn whether it is ready, and for a write."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import NamedTuple

import httpx2

from tests.support.accounts import PASSWORD, bearer
from tests.support.processes import PATIENCE

BOB = {"username": "bob", "password": PASSWORD}
PAUSE = 0.05  # seconds between two probes
LIE = 503, 200, 503


class Answer(NamedTuple):
    """The status of an answer, and its times by the monotonic clock."""

    asked: float
    answered: float
    status: int

    @property
    def seconds(self) -> float:
        return self.answered - self.asked


@dataclass
class Watch:
    """One service, asked by turns whether it is ready and for a write."""

    url: str
    ready: list[Answer] = field(default_factory=list)
    writes: list[Answer] = field(default_factory=list)
    created: set[str] = field(default_factory=set)

    def work(self, stop: Event) -> None:
        with httpx2.Client(base_url=self.url, timeout=PATIENCE) as client:
            token = client.post("/auth/token", data=BOB).json()["access_token"]
            while not stop.wait(PAUSE):
                asked = time.monotonic()
                response = client.get("/health/ready")
                self.ready.append(Answer(asked, time.monotonic(), response.status_code))
                asked = time.monotonic()
                response = client.post("/tasks/", json={"title": "Probe"}, headers=bearer(token))
                self.writes.append(Answer(asked, time.monotonic(), response.status_code))
                if response.status_code == 201:
                    self.created.add(response.json()["id"])

    def assert_truthful(self) -> None:
        """It never said that it was ready between two writes that it refused."""
        assert {answer.status for answer in self.ready} <= {200, 503}
        assert {answer.status for answer in self.writes} <= {201, 503}
        between = zip(self.writes, self.ready[1:], self.writes[1:], strict=False)
        lies = [ready for before, ready, after in between if (before.status, ready.status, after.status) == LIE]
        assert not lies, f"{self.url} was ready {len(lies)} of {len(self.ready)} times while it refused writes"

    def recovered(self, since: float) -> float:
        """The seconds from a moment to the end of the last refusal. It is below zero if that came before."""
        refusals = (answer.answered for answer in [*self.ready, *self.writes] if answer.status == 503)
        return max(refusals, default=since) - since


@contextmanager
def watching(*urls: str) -> Iterator[list[Watch]]:
    """Watch services on one database for as long as the context lasts."""
    httpx2.post(f"{urls[0]}/users", json=BOB).raise_for_status()
    watches = [Watch(url) for url in urls]
    stop = Event()
    with ThreadPoolExecutor(len(urls)) as pool:
        jobs = [pool.submit(watch.work, stop) for watch in watches]
        try:
            yield watches
        finally:
            stop.set()
            for job in jobs:
                job.result()
