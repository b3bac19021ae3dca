"""The first of several processes: it starts, watches, replaces and stops the workers."""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Final

from app.server.server import Config
from app.server.systemd import notify
from app.server.worker import Worker

TURN_SECONDS: Final = 0.2
MAX_TURN: Final = 5
STEADY_SECONDS: Final = 60
DELAYS: Final = 0, 1, 3, 7, 15, 30
"""Seconds until another worker takes the place of one that has died, after so many that died within STEADY_SECONDS."""

SIGNALS: Final = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU
TOLD: Final = {0, -signal.SIGINT, -signal.SIGTERM}
"""The exit codes of workers that were told to stop."""

logger = logging.getLogger(__name__)


class Supervisor:
    """Keeps a number of workers.

    - SIGTERM tells them to drain and stop. A second one ends the drain, and SIGINT stops without one.
    - SIGHUP replaces them one by one. If a replacement fails before it serves, the others stay.
    - SIGTTIN adds one, and SIGTTOU removes one.
    - If a worker fails to start before any serves, the service stops with its exit code. Later on, another takes the
      place of each that dies.
    """

    def __init__(
        self, config: Config, listeners: list[socket.socket], count: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._listeners = listeners
        self._count = count
        self._clock = clock
        self.workers: list[Worker] = []
        self._signals: list[int] = []
        self._generation = 0
        self._has_served = False
        self._is_replacing = False
        self._is_stopping = False
        self._early_deaths = 0
        self._next_start = 0.0
        self._exit_code = 0
        self._last_turn = clock()

    def run(self) -> int:
        """Serve until a signal ends the service. Returns the exit code."""
        for number in SIGNALS:
            signal.signal(number, lambda number, _: self._signals.append(number))
        logger.info("process %d starts %d workers", os.getpid(), self._count)
        while self.turn():
            time.sleep(TURN_SECONDS)
        return self._exit_code

    def turn(self) -> bool:
        """See what has happened, and start or stop a worker. Returns False when all is over."""
        while self._signals:
            self.handle(self._signals.pop(0))
        now = self._clock()
        # After a longer time this process was frozen, and the workers with it: they have had no time to send a beat.
        passed = min(now - self._last_turn, MAX_TURN)
        self._last_turn = now
        for worker in list(self.workers):
            if worker.has_ended:
                self._remove(worker, now)
            else:
                worker.hear(passed)
        if not self._has_served and any(worker.is_serving for worker in self.workers):
            self._has_served = True
            notify("READY=1")
        if not self._is_stopping:
            self._adjust(now)
        return bool(self.workers) or not self._is_stopping

    def handle(self, number: int) -> None:
        """Do what a signal asks for."""
        if number in {signal.SIGINT, signal.SIGTERM}:
            self._stop(at_once=self._is_stopping or number == signal.SIGINT)
        elif number == signal.SIGTTIN:
            self._count += 1
        elif number == signal.SIGTTOU:
            self._count = max(1, self._count - 1)
        elif not self._is_stopping:
            logger.info("SIGHUP: other workers take the places of these, one by one")
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            self._generation += 1
            self._is_replacing = True

    def _stop(self, *, at_once: bool) -> None:
        notify("STOPPING=1")
        self._is_stopping = True
        for listener in self._listeners:  # each worker has its own copy
            listener.close()
        for worker in self.workers:
            if at_once:
                worker.leave()
            else:
                worker.terminate()

    def _adjust(self, now: float) -> None:
        """Start a worker that is missing, or stop one that is too many."""
        staying = [worker for worker in self.workers if not worker.is_leaving]
        old = [worker for worker in staying if worker.generation != self._generation]
        is_settled = len(staying) == len(self.workers) and all(w.is_serving for w in staying if w not in old)
        if len(staying) < self._count or (is_settled and old and len(staying) == self._count):
            if now >= self._next_start:
                self._start(now)
        elif is_settled and len(staying) > self._count:
            (old or staying)[-1].leave()
        elif is_settled and self._is_replacing and not old:
            logger.info("SIGHUP: every worker has been replaced")
            self._end_replacing()

    def _start(self, now: float) -> None:
        try:
            self.workers.append(Worker(self._config, self._listeners, self._generation, now))
        except OSError as error:
            logger.error("no worker can be started: %s; next try in %d s", error.strerror, self._delay(now, now))  # noqa: TRY400

    def _remove(self, worker: Worker, now: float) -> None:
        """Say what became of a worker, and what follows."""
        self.workers.remove(worker)
        fate = worker.fate()
        if worker.is_leaving:
            if worker.exit_code not in TOLD:
                logger.error("%s", fate)
        elif worker.exit_code > 0 and not self._has_served:
            logger.error("%s before any served: the service stops", fate)
            self._exit_code = worker.exit_code
            self._stop(at_once=True)
        elif self._is_replacing and not worker.is_serving:
            self._delay(worker.started, now)
            logger.error("%s before it served: the other workers stay", fate)
            for other in self.workers:
                other.generation = self._generation
            self._end_replacing()
        else:
            delay = self._delay(worker.started, now)
            logger.error("%s; another takes its place%s", fate, f" in {delay} s" if delay else "")
        worker.close()

    def _delay(self, started: float, now: float) -> int:
        """Put off the next start, the longer the more workers have died early. Returns the seconds."""
        is_early = now - started < STEADY_SECONDS
        self._early_deaths = min(self._early_deaths + 1, len(DELAYS) - 1) if is_early else 0
        self._next_start = now + DELAYS[self._early_deaths]
        return DELAYS[self._early_deaths]

    def _end_replacing(self) -> None:
        self._is_replacing = False
        notify("READY=1")
