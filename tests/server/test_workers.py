"""Workers are replaced when they die, when they hang and when the operator says so."""

import asyncio
import logging
import multiprocessing
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from socket import AF_UNIX, SOCK_DGRAM, socket

import httpx2
import pytest

from app.server import run
from app.server.supervisor import MAX_TURN, Supervisor
from app.server.worker import MAX_SILENCE, MAX_START
from tests.support import tiny
from tests.support.processes import PATIENCE, forked, free_port, wait_for


class Service:
    """A supervisor of tiny workers in this process. Its clock moves when a test moves it."""

    def __init__(self, count: int) -> None:
        self.port = free_port()
        self.now = 0.0
        listeners = asyncio.run(run.bind("127.0.0.1", self.port))
        self.supervisor = Supervisor(tiny.make_config(), listeners, count, lambda: self.now)
        self.is_running = True

    def until(self, condition: Callable[[], object]) -> None:
        def is_so() -> bool:
            self.is_running = self.supervisor.turn()
            return bool(condition())

        wait_for(is_so)

    def until_it_serves(self, count: int = 1) -> set[int]:
        """Wait until so many workers answer."""
        pids: set[int] = set()

        def are_enough() -> bool:
            pids.add(self.ask())
            return len(pids - {0}) == count and all(worker.is_serving for worker in self.supervisor.workers)

        self.until(are_enough)
        return pids - {0}

    def ask(self) -> int:
        """Return which process answered, or 0 if nobody listens."""
        with suppress(httpx2.ConnectError):
            return int(httpx2.get(f"http://127.0.0.1:{self.port}/", timeout=PATIENCE).text)
        return 0

    def end(self) -> None:
        self.supervisor.handle(signal.SIGINT)
        self.until(lambda: not self.is_running)


def pids() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.pid}


def kill(pid: int, number: signal.Signals) -> None:
    """Send a child process a signal that ends or stops it, and wait until it has."""
    os.kill(pid, number)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], bytes]]:
    """Reads what systemd is told."""
    with socket(AF_UNIX, SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield lambda: systemd.recv(4096)


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service(1)
    yield service
    service.end()


def test_the_log_says_that_a_worker_was_killed_and_replaced(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    (first,) = service.until_it_serves()

    kill(first, signal.SIGKILL)
    service.now = 61
    (second,) = service.until_it_serves()

    assert second != first
    assert errors(caplog) == [
        f"worker {first} was killed by signal 9 (SIGKILL): perhaps memory ran out; another takes its place"
    ]


def test_workers_that_die_early_are_replaced_ever_later(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    for delay in 1, 3, 7, 15, 30, 30:
        service.until(pids)
        (pid,) = pids()
        kill(pid, signal.SIGABRT)
        service.until(lambda: not pids())
        assert (
            errors(caplog)[-1] == f"worker {pid} was killed by signal 6 (SIGABRT); another takes its place in {delay} s"
        )

        service.now += delay - 0.1
        service.supervisor.turn()
        assert not pids()
        service.now += 0.2


@pytest.mark.parametrize("is_serving", [False, True])
def test_a_worker_that_hangs_is_killed(service: Service, caplog: pytest.LogCaptureFixture, *, is_serving: bool) -> None:
    service.until(pids)
    if is_serving:
        service.until_it_serves()
    (pid,) = pids()
    kill(pid, signal.SIGSTOP)
    patience = MAX_SILENCE if is_serving else MAX_START

    service.supervisor.turn()
    service.now += 10_000  # both processes were frozen
    for _ in range(patience // MAX_TURN):
        service.supervisor.turn()
        service.now += MAX_TURN
    assert pids() == {pid}
    service.supervisor.turn()
    service.until(lambda: pids() - {pid})

    (message,) = errors(caplog)
    assert message.startswith(
        f"worker {pid} was killed by signal 9 (SIGKILL): nothing was heard of it for {patience} s"
    )


def test_the_log_says_that_the_machine_can_start_no_worker(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        service.supervisor.turn()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert errors(caplog) == ["no worker can be started: Too many open files; next try in 1 s"]
    service.now += 1
    service.until(pids)


def test_sighup_replaces_every_worker_without_a_refusal(reports: Callable[[], bytes]) -> None:
    service = Service(2)
    old = service.until_it_serves(2)
    assert reports() == b"READY=1"

    service.supervisor.handle(signal.SIGHUP)
    most = 0

    def is_done() -> bool:
        nonlocal most
        most = max(most, len(pids()))
        assert service.ask()
        return not pids() & old and len(pids()) == 2

    service.until(is_done)
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", reports())
    assert most == 3
    assert service.until_it_serves(2) == pids()
    assert reports() == b"READY=1"
    service.end()
    assert reports() == b"STOPPING=1"


def test_workers_stay_if_their_replacement_fails(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, reports: Callable[[], bytes]
) -> None:
    (pid,) = service.until_it_serves()
    monkeypatch.setenv(tiny.EXIT, "2")

    service.supervisor.handle(signal.SIGHUP)
    service.until(lambda: errors(caplog))

    (message,) = errors(caplog)
    assert re.fullmatch(r"worker \d+ ended with exit code 2 before it served: the other workers stay", message)
    assert [reports().split(b"\n")[0] for _ in range(3)] == [b"READY=1", b"RELOADING=1", b"READY=1"]
    service.now += 31
    service.supervisor.turn()
    assert pids() == {pid}


def test_the_log_says_that_a_worker_was_killed_during_a_stop(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    (pid,) = service.until_it_serves()
    kill(pid, signal.SIGSTOP)
    service.supervisor.handle(signal.SIGTERM)
    service.supervisor.handle(signal.SIGHUP)

    kill(pid, signal.SIGKILL)
    service.until(lambda: not service.is_running)

    assert errors(caplog) == [f"worker {pid} was killed by signal 9 (SIGKILL): perhaps memory ran out"]


def test_a_service_whose_workers_cannot_start_stops(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tiny.EXIT, "3")
    service = Service(2)

    service.until(lambda: not service.is_running)

    assert re.fullmatch(r"worker \d+ ended with exit code 3 before any served: the service stops", errors(caplog)[0])


def test_signals_add_and_remove_workers(service: Service) -> None:
    service.until_it_serves()
    service.supervisor.handle(signal.SIGTTIN)
    service.until_it_serves(2)

    service.supervisor.handle(signal.SIGTTOU)
    service.supervisor.handle(signal.SIGTTOU)
    service.until(lambda: len(pids()) == 1)

    assert {service.ask()} == pids()


def test_workers_end_with_the_process_that_started_them() -> None:
    port = free_port()

    def ask() -> int:
        with suppress(httpx2.ConnectError):
            return int(httpx2.get(f"http://127.0.0.1:{port}/", timeout=PATIENCE).text)
        return 0

    def is_refused() -> bool:
        with suppress(httpx2.ReadError):  # the connection was cut off as the port closed: ask again
            return not ask()
        return False

    with forked("tests.support.tiny", port=port) as process:
        wait_for(ask)
        worker = ask()
        os.kill(process.pid, signal.SIGKILL)
        wait_for(is_refused)
        wait_for(lambda: not Path(f"/proc/{worker}").exists())

        assert f"the process that started process {worker} has ended: it stops" in process.output()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_workers(number: signal.Signals) -> None:
    port = free_port()
    with forked("tests.support.tiny", port=port) as process:
        wait_for(lambda: "Started server process" in process.output())
        process.send_signal(number)

        assert process.wait(PATIENCE) == 0
        assert "Traceback" not in process.output()
        assert "ERROR" not in process.output()
