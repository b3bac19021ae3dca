"""SQLite with several processes that write at once: the rates of the writers and of the readers.

    python -m tests.benchmarks.writers [SECONDS]

Several services share one file, with synchronous=FULL. Each gets new tasks over four connections, and the first also
answers reads over four more. The machine should have nothing else to do.
"""

import asyncio
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context

from rich.console import Console
from rich.table import Table

from tests.benchmarks.compare import Server, create, databases, list_own, serving
from tests.benchmarks.load import Load, ask
from tests.benchmarks.seed import Person, seed

PROCESSES = (1, 2, 4)
CONNECTIONS = 4


def main() -> None:
    seconds = float((sys.argv[1:] or ["4"])[0])
    table = Table("processes that write", "writes/s", "p50 ms", "p99 ms", "reads/s", "p50 ms", "p99 ms", "errors")
    for processes in (0, *PROCESSES):
        with ExitStack() as stack:
            url = stack.enter_context(databases(["sqlite"]))["sqlite"]
            people = asyncio.run(seed(url, 200, 100))
            servers = [stack.enter_context(serving(url, ["service"]))[0] for _ in range(max(processes, 1))]
            pool = stack.enter_context(ProcessPoolExecutor(processes + 1, get_context("spawn")))
            writing = [pool.submit(write, server, people, seconds) for server in servers[:processes]]
            read = pool.submit(page, servers[0], people, seconds).result()
            written = [writer.result() for writer in writing]
        rate = sum(load.rate for load in written)
        slowest = max(written, key=lambda load: load.p99, default=None)
        errors = read.errors + sum(load.errors for load in written)
        table.add_row(str(processes), f"{rate:.0f}", *times(slowest), f"{read.rate:.0f}", *times(read), str(errors))
    Console(width=120).print(table)


def times(load: Load | None) -> tuple[str, str]:
    return (f"{load.p50 * 1e3:.1f}", f"{load.p99 * 1e3:.1f}") if load else ("", "")


def write(server: Server, people: list[Person], seconds: float) -> Load:
    return ask(server.port, lambda number: create(people[number::CONNECTIONS]), CONNECTIONS, seconds)


def page(server: Server, people: list[Person], seconds: float) -> Load:
    return ask(server.port, lambda number: list_own(people[number::CONNECTIONS]), CONNECTIONS, seconds)


if __name__ == "__main__":
    main()
