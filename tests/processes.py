"""The service as people run it: processes of its own, started from a shell."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2

ROOT = Path(__file__).parent.parent
START_SECONDS = 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(**settings: object) -> dict[str, str]:
    """This process's, with the project importable and the settings given."""
    given = {name.upper(): str(value) for name, value in settings.items()}
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | given


@contextmanager
def command(*words: str, **settings: object) -> Iterator["subprocess.Popen[str]"]:
    """Start `python -m …` and end it as a supervisor would, with SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


@contextmanager
def services(count: int, *words: str, **settings: object) -> Iterator[list[str]]:
    """Start that many services at once; yields their URLs once each of them is ready."""
    words = words or ("app", "serve")
    with ExitStack() as stack:
        ports = [free_port() for _ in range(count)]
        processes = [stack.enter_context(command(*words, "--port", str(port), **settings)) for port in ports]
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        for url, process in zip(urls, processes, strict=True):
            wait_until_ready(url, process)
        yield urls


def wait_until_ready(url: str, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx2.get(f"{url}/health/ready").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"not ready: {process.communicate()[0]}")
