"""How soon the service answers once it is started, and how much memory it holds before anybody has asked.

    python -m tests.benchmarks.start [TIMES]

It measures three things and prints medians: the time from the start of `python -m app serve`, on a database that is up
to date, to the first `GET /health/ready` that is 200; the memory a second later; the CPU time to import `app.main`.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from statistics import median
from typing import NamedTuple

from sqlalchemy import make_url

from tests.benchmarks.load import cpu_seconds, resident
from tests.conftest import SECRET, migrate
from tests.support import postgres
from tests.support.processes import command, environment, free_port, wait_until_ready

TIMES = 9
IMPORT = "import time; began = time.process_time(); import app.main; print(time.process_time() - began)"


class Start(NamedTuple):
    seconds: float
    cpu: float
    memory: float


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else TIMES
    print(f"import: {median(import_once() for _ in range(times)):.2f} s of CPU")
    with tempfile.TemporaryDirectory() as folder, postgres.server() as server:
        for url in f"sqlite:///{folder}/tasks.db", server:
            asyncio.run(migrate(make_url(url)))
            seconds, cpu, memory = map(median, zip(*(start(url) for _ in range(times)), strict=True))
            print(f"{make_url(url).drivername}: ready after {seconds:.2f} s, {cpu:.2f} of CPU; {memory:.0f} MiB")


def import_once() -> float:
    python = [sys.executable, "-c", IMPORT]
    return float(subprocess.run(python, env=environment(), capture_output=True, text=True, check=True).stdout)


def start(url: str) -> Start:
    port = free_port()
    began = time.perf_counter()
    with command("app", "serve", "--port", str(port), database_url=url, secret_key=SECRET) as process:
        wait_until_ready(f"http://127.0.0.1:{port}", process)
        seconds, cpu = time.perf_counter() - began, cpu_seconds(process.pid)
        time.sleep(1)  # the list of common passwords is still being read
        return Start(seconds, cpu, resident(process.pid))


if __name__ == "__main__":
    main()
