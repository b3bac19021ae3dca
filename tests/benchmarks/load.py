"""Drives the servers of a benchmark and measures them: raw HTTP/1.1 over kept connections, CPU from /proc."""

import asyncio
import os
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import uvloop

SERVER_CORES, OTHER_CORES = {0}, {1}
ALL_CORES = os.sched_getaffinity(0)
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)

Script = Generator[bytes, bytes, None]
"""The requests of one connection. It yields a request and is sent the body of the answer, without end."""


class Load(NamedTuple):
    """The results of asking for a while. Times are in seconds."""

    requests: int
    errors: int
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


@contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Run processes that start inside on these cores, if the machine has them."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores & ALL_CORES or ALL_CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def request(method: str, path: str, headers: Mapping[str, str] = {}, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def ask(port: int, script_of: Callable[[int], Script], connections: int, seconds: float) -> Load:
    """Ask over so many connections at once. Each asks again as soon as it has its answer."""
    times: list[float] = []
    errors: list[bytes] = []
    deadline = time.perf_counter() + seconds

    async def run() -> None:
        loop = asyncio.get_running_loop()
        asked = []
        for number in range(connections):
            over = loop.create_future()
            script = script_of(number)
            await loop.create_connection(lambda: _Connection(script, times, errors, deadline, over), "127.0.0.1", port)  # noqa: B023
            asked.append(over)
        await asyncio.gather(*asked)

    began = time.perf_counter()
    uvloop.run(run())
    times.sort()
    p99 = quantiles(times, n=100)[-1] if len(times) > 1 else 0.0
    return Load(len(times), len(errors), time.perf_counter() - began, median(times), p99)


def cpu_seconds(group: int) -> float:
    """User and system time of a process group so far, with that of its children that have ended."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[2]) == group:
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """MiB."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) / 1024


class _Connection(asyncio.Protocol):
    """Plays a script. An answer other than 2xx is an error. A lost connection is one and ends the script."""

    def __init__(
        self, script: Script, times: list[float], errors: list[bytes], deadline: float, over: "asyncio.Future[None]"
    ) -> None:
        self.script, self.times, self.errors, self.deadline, self.over = script, times, errors, deadline, over
        self.received = b""
        self.began = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self._write(next(self.script))

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, blank, body = self.received.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not blank or len(body) < (int(length[1]) if length else 0):
            return
        now = time.perf_counter()
        self.times.append(now - self.began)
        self.received = b""
        if head[9:10] != b"2":
            self.errors.append(head)
        following = self.script.send(body)
        if now < self.deadline:
            self._write(following)
        else:
            self.over.set_result(None)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self.over.done():
            self.errors.append(b"lost")
            self.over.set_result(None)

    def _write(self, request: bytes) -> None:
        self.began = time.perf_counter()
        self.transport.write(request)
