"""The service in processes of its own: `command` starts one as a shell does, the others fork it, which is quicker."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2

from tests.support.forks import Fork

Process = subprocess.Popen[str] | Fork

ROOT = Path(__file__).parents[2]
START_SECONDS = 60
PATIENCE = 60  # seconds after which a test gives up


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(**settings: object) -> dict[str, str]:
    """This process's environment, with the project importable and the settings given. Compiled code is kept.

    Requests are not logged unless that is given: their lines would fill a pipe that nobody reads.
    """
    usual = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "", "LOG_REQUESTS": "false"}
    return os.environ | usual | {name.upper(): str(value) for name, value in settings.items()}


@contextmanager
def command(
    *words: str, stdout: Any = subprocess.PIPE, stderr: Any = subprocess.STDOUT, **settings: object
) -> Iterator["subprocess.Popen[str]"]:
    """Start `python -m …` and end it as a supervisor would, with SIGTERM. A pipe that nobody reads stops it in time."""
    with subprocess.Popen(
        [sys.executable, "-m", *words],
        env=environment(**settings),
        stdout=stdout,
        stderr=stderr,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            try:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=30)
            finally:
                kill(process)


def kill(process: "subprocess.Popen[Any]") -> None:
    """Kill it with its workers, which would outlive it, and hold its pipe open."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def services(count: int, *words: str, **settings: Any) -> Iterator[list[str]]:
    """Start that many services at once, which say that they are one. Yields their URLs once each of them is ready."""
    ports = [free_port() for _ in range(count)]
    settings = {"public_url": f"http://127.0.0.1:{ports[0]}"} | settings
    with ExitStack() as stack:
        processes = [stack.enter_context(forked(*words, port=port, **settings)) for port in ports]
        for port, process in zip(ports, processes, strict=True):
            wait_until_ready(f"http://127.0.0.1:{port}", process)
        yield [f"http://127.0.0.1:{port}" for port in ports]


@contextmanager
def serving(
    *words: str, log: Path | None = None, stdout: Path | None = None, port: int | None = None, **settings: Any
) -> Iterator[str]:
    """Run a service with its standard error in `log`. Yields its URL once it is ready."""
    port = port or free_port()
    stdout = stdout or (log and Path(os.devnull))
    with forked(*words, port=port, stdout=stdout, stderr=log, **settings) as fork:
        wait_until_ready(url := f"http://127.0.0.1:{port}", fork)
        yield url


def forked(
    *words: str, port: int, stdout: Path | None = None, stderr: Path | None = None, **settings: Any
) -> "closing[Fork]":
    words = words or ("app", "serve")
    return closing(Fork(*words, "--port", str(port), environ=environment(**settings), stdout=stdout, stderr=stderr))


def wait_until_ready(url: str, process: Process) -> None:
    _wait_until_ok(f"{url}/health/ready", process)


def wait_until_live(url: str, process: Process) -> None:
    _wait_until_ok(f"{url}/health/live", process)


def _wait_until_ok(url: str, process: Process) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx2.Client() as client:
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(httpx2.TransportError):
                if client.get(url).status_code == 200:
                    return
            time.sleep(0.02)
    if isinstance(process, Fork):
        process.kill()
        said = process.output()
    else:
        kill(process)
        said = process.communicate(timeout=10)[0]
    raise AssertionError(f"{url} did not come up: {said}")


def wait_for(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.005)
