"""The effect of a flood of logins on other requests: GET /tasks/ with and without it, and the service's memory.

    python -m tests.benchmarks.flood [PAIRS] [SECONDS]

The service has the first core. Its clients, PostgreSQL and the flood have the second. The flood is a process that keeps
16 logins with a wrong password in flight. Quiet and flooded runs take turns, and the table shows medians. Then logins
of 16 users with the right password take turns with a bare loop of the hash on the service's core. Their medians stand
below the table. The machine should have nothing else to do.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple
from urllib.parse import urlencode

import httpx2
from argon2 import PasswordHasher
from sqlalchemy import make_url

from app.auth.passwords import Cost
from tests.benchmarks.load import OTHER_CORES, SERVER_CORES, Script, ask, on, request, resident
from tests.conftest import SECRET, migrate
from tests.support import postgres
from tests.support.accounts import PASSWORD, bearer
from tests.support.processes import command, free_port, wait_until_ready

READERS = 8
LOGINS = 16
TASKS = 200
LEAD = 1.0  # seconds that a flood begins before it is measured
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Service(NamedTuple):
    pid: int
    port: int
    get: bytes


class Run(NamedTuple):
    rate: float
    p50: float
    p99: float
    logins: float
    memory: float
    loop: float
    hashing: float
    other_core: float


def main() -> None:
    pairs, seconds = [*map(int, sys.argv[1:]), *(5, 5)[len(sys.argv) - 1 :]]
    print("database    logins   GET/s  p50 ms  p99 ms  worst p99  logins/s  MiB  loop  hashing  other core")
    with on(OTHER_CORES), tempfile.TemporaryDirectory() as folder, postgres.server() as server:
        for url in f"sqlite:///{folder}/tasks.db", server:
            with serve(url) as service:
                runs = [(measure(service, seconds), measure(service, seconds, LOGINS)) for _ in range(pairs)]
                rates = [(log_in_only(service, seconds), hash_only(seconds)) for _ in range(pairs)]
            for name, same in zip(("none", f"{LOGINS} at once"), zip(*runs, strict=True), strict=True):
                show(f"{make_url(url).drivername:<11} {name:>9}", same)
            ratio = median(flooded.p99 / quiet.p99 for quiet, flooded in runs)
            print(f"{'':<11} p99 x {ratio:.2f} (median of the pairs)")
            logins, bare = map(median, zip(*rates, strict=True))
            ratio = median(logins / bare for logins, bare in rates)
            print(f"{'':<11} {logins:.1f} logins/s by themselves, {bare:.1f} hashes/s in a bare loop: x {ratio:.2f}")


def show(title: str, runs: tuple[Run, ...]) -> None:
    run = Run(*map(median, zip(*runs, strict=True)))
    print(
        f"{title}  {run.rate:5.0f}  {run.p50:6.1f}  {run.p99:6.1f}  {max(run.p99 for run in runs):9.1f}"
        f"  {run.logins:8.0f}  {run.memory:3.0f}  {run.loop:4.0%}  {run.hashing:7.0%}  {run.other_core:10.0%}"
    )


@contextmanager
def serve(url: str) -> Iterator[Service]:
    """Start the service on its core, with a user who has tasks."""
    asyncio.run(migrate(make_url(url)))
    settings = {"database_url": url, "secret_key": SECRET, "login_failures": 1_000_000, "registration_limit": 0}
    port = free_port()
    with ExitStack() as stack:
        with on(SERVER_CORES):
            started = command("app", "serve", "--port", str(port), stdout=subprocess.DEVNULL, **settings)
            process = stack.enter_context(started)
        wait_until_ready(f"http://127.0.0.1:{port}", process)
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
            for number in range(LOGINS):
                client.post("/users", json=user(number)).raise_for_status()
            headers = bearer(client.post("/auth/token", data=user(0)).raise_for_status().json()["access_token"])
            for n in range(TASKS):
                client.post("/tasks/", json={"title": f"Task {n}"}, headers=headers).raise_for_status()
        yield Service(process.pid, port, request("GET", "/tasks/", headers))


def measure(service: Service, seconds: float, logins: int = 0) -> Run:
    with ProcessPoolExecutor(1) as other:
        flood = other.submit(ask, service.port, fail, logins, seconds + 2 * LEAD) if logins else None
        time.sleep(LEAD)
        before = busy(service.pid)
        load = ask(service.port, lambda _: repeat(service.get), READERS, seconds)
        shares = [(now - then) / seconds for now, then in zip(busy(service.pid), before, strict=True)]
        logins_per_second = flood.result().rate if flood else 0
    return Run(load.rate, load.p50 * 1e3, load.p99 * 1e3, logins_per_second, resident(service.pid), *shares)


def log_in_only(service: Service, seconds: float) -> float:
    load = ask(service.port, succeed, LOGINS, seconds)
    assert not load.errors
    return load.rate


def hash_only(seconds: float) -> float:
    """Passwords a second, of the service's cost, that one thread of a process on the service's core checks."""
    with on(SERVER_CORES), ProcessPoolExecutor(1) as other:
        return other.submit(hash_for, seconds).result()


def hash_for(seconds: float) -> float:
    cost = Cost()
    hasher = PasswordHasher(cost.passes, cost.memory, cost.lanes)
    stored, count, began = hasher.hash(PASSWORD), 0, time.perf_counter()
    while time.perf_counter() < began + seconds:
        hasher.verify(stored, PASSWORD)
        count += 1
    return count / (time.perf_counter() - began)


def fail(number: int) -> Script:
    return log_in(user(number) | {"password": "a wrong password"})


def succeed(number: int) -> Script:
    return log_in(user(number))


def log_in(form: dict[str, str]) -> Script:
    return repeat(request("POST", "/auth/token", FORM, urlencode(form).encode()))


def user(number: int) -> dict[str, str]:
    return {"username": f"user{number}", "password": PASSWORD}


def repeat(request: bytes) -> Script:
    while True:
        yield request


def busy(pid: int) -> list[float]:
    """CPU seconds so far: of the service's threads that hash, which are niced, and do not, and of the other core."""
    threads = [stat.read_text().rpartition(")")[2].split() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    used = [(int(fields[11]) + int(fields[12]), int(fields[16]) > 0) for fields in threads]
    cores = re.findall(r"^cpu\d+ (\d+) (\d+) (\d+)", Path("/proc/stat").read_text(), re.MULTILINE)
    ticks = [
        sum(time for time, is_niced in used if not is_niced),
        sum(time for time, is_niced in used if is_niced),
        sum(int(time) for core in OTHER_CORES for time in cores[core]),
    ]
    return [time / os.sysconf("SC_CLK_TCK") for time in ticks]


if __name__ == "__main__":
    main()
