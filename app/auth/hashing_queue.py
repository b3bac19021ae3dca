"""A queue for a few threads. Networks take turns in it, so that one with many jobs does not keep the others waiting."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, TypeVar

from app.auth.errors import HashingQueueFull

T = TypeVar("T")
Job = Callable[[], Any]


class FairQueue:
    """Runs one job of each network in turn. A network may fill the queue. It makes room for one with fewer jobs."""

    def __init__(self, threads: Executor, length: int) -> None:
        self.jobs: set[Future[Any]] = set()  # that run or wait
        self._threads = threads
        self._length = length
        self._waiting: dict[str, dict[Future[Any], Job]] = {}  # of each network, in the order of the networks' turns
        self._lock = threading.RLock()

    def submit(self, network: str, job: Callable[[], T]) -> Future[T]:
        """Queue a job. Raises HashingQueueFull if the queue is full, and no other network has more jobs in it."""
        future: Future[T] = Future()
        with self._lock:
            if len(self.jobs) >= self._length:
                self._make_room(len(self._waiting.get(network, ())) + 1)
            self.jobs.add(future)
            self._waiting.setdefault(network, {})[future] = job
        future.add_done_callback(partial(self._remove, network))
        self._threads.submit(self._run_next)
        return future

    def _make_room(self, needed: int) -> None:
        """Refuse the latest job of the network with the most waiting jobs, if these are more than `needed`."""
        most = max(self._waiting.values(), key=len, default={})
        if len(most) <= needed:
            raise HashingQueueFull
        next(reversed(most)).set_exception(HashingQueueFull())

    def _remove(self, network: str, future: Future[Any]) -> None:
        with self._lock:
            self.jobs.discard(future)
            jobs = self._waiting.get(network, {})
            jobs.pop(future, None)
            if not jobs:
                self._waiting.pop(network, None)

    def _run_next(self) -> None:
        """Run the first job of the first network, unless it was removed. The network goes to the end of the order."""
        with self._lock:
            if not self._waiting:
                return
            network = next(iter(self._waiting))
            jobs = self._waiting.pop(network)
            future = next(iter(jobs))
            job = jobs.pop(future)
            if jobs:
                self._waiting[network] = jobs
        if future.set_running_or_notify_cancel():  # pragma: no branch - somebody may cancel it at this moment
            try:
                future.set_result(job())
            except BaseException as error:  # noqa: BLE001 - the future raises it
                future.set_exception(error)
