"""The cost of each kind of request, against the floor: the same answers without a framework (`floor.py`).

    python -m tests.benchmarks.compare [--rounds N] [--seconds S] [--plot FILE] [--only WORK]

Both servers stay up and are driven in turn (A B A B), each on the first core alone; the clients and PostgreSQL have the
second. CPU is user and system time of the server's process, as the operating system counts it. The ratios are of two
neighbouring runs; the table shows medians. The machine should have nothing else to do.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import NamedTuple
from urllib.parse import urlencode

import orjson
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import URL, make_url

from tests.benchmarks.load import OTHER_CORES, SERVER_CORES, Load, Script, ask, cpu_seconds, on, request
from tests.benchmarks.seed import Person, seed
from tests.conftest import SECRET, new_database
from tests.support import postgres
from tests.support.accounts import PASSWORD, bearer
from tests.support.processes import command, free_port, wait_until_ready

USERS, TASKS_EACH = 1_000, 100
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
SERVERS = {
    "floor": ("uvicorn", "tests.benchmarks.floor:app", "--no-access-log", "--no-server-header"),
    "service": ("app", "serve"),
}


class Server(NamedTuple):
    name: str
    pid: int
    port: int


class Run(NamedTuple):
    load: Load
    cpu: float
    """Seconds for each request."""


def list_own(people: Sequence[Person]) -> Script:
    for person in cycle(people):
        yield request("GET", "/tasks/mine", bearer(person.access_token))


def list_public(people: Sequence[Person]) -> Script:
    while True:
        yield request("GET", "/tasks/")


def read_one(people: Sequence[Person]) -> Script:
    for person in cycle(people):
        yield request("GET", f"/tasks/{person.task_id}", bearer(person.access_token))


def create(people: Sequence[Person]) -> Script:
    for person in cycle(people):
        body = b'{"title": "Water the plants"}'
        yield request("POST", "/tasks/", bearer(person.access_token) | JSON, body)


def refresh(people: Sequence[Person]) -> Script:
    """Each connection has a session of its own, whose tokens follow one another."""
    [person, *_] = people
    token = LATEST.get(person, person.refresh_token)
    while True:
        form = urlencode({"grant_type": "refresh_token", "refresh_token": token}).encode()
        answer = yield request("POST", "/auth/token", FORM, form)
        token = LATEST[person] = orjson.loads(answer)["refresh_token"]


LATEST: dict[Person, str] = {}


def log_in(people: Sequence[Person]) -> Script:
    for person in cycle(people):
        form = urlencode({"username": person.username, "password": PASSWORD}).encode()
        yield request("POST", "/auth/token", FORM, form)


WORKS: dict[str, Callable[[Sequence[Person]], Script]] = {
    "GET /tasks/mine, 20 rows": list_own,
    "GET /tasks/, no token": list_public,
    "GET /tasks/{id}": read_one,
    "POST /tasks/": create,
    "refresh": refresh,
    "login": log_in,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--only", choices=list(WORKS), action="append")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    parser.add_argument("--plot", type=Path, help="where to draw the ratios, as SVG or PNG")
    args = parser.parse_args()
    works, kinds = args.only or list(WORKS), args.database or ["postgresql", "sqlite"]
    table = Table("database", "work", "x floor", "range", "µs", "floor µs", "req/s", "p50 ms", "p99 ms", "errors")
    ratios: dict[tuple[str, str], float] = {}
    with ExitStack() as stack, on(OTHER_CORES):
        urls = stack.enter_context(databases(kinds))
        progress = stack.enter_context(Progress(console=Console(file=sys.stderr)))
        bar = progress.add_task("measuring", total=len(urls) * len(works) * args.rounds * len(SERVERS))
        for kind, url in urls.items():
            people = asyncio.run(seed(url, USERS, TASKS_EACH))
            with serving(url) as servers:
                for work in works:
                    progress.update(bar, description=f"{kind}: {work}")
                    rounds = []
                    for _ in range(args.rounds):
                        rounds.append(one_round(servers, WORKS[work], people, args.connections, args.seconds))
                        progress.advance(bar, len(servers))
                    ratios[kind, work] = add_row(table, kind, work, rounds)
    Console(width=160).print(table)
    if args.plot:
        plot(ratios, args.plot)


@contextmanager
def databases(kinds: Sequence[str]) -> Iterator[dict[str, URL]]:
    with ExitStack() as stack:
        urls: dict[str, URL] = {}
        if "postgresql" in kinds:
            server = make_url(stack.enter_context(postgres.server()))
            urls["postgresql"] = stack.enter_context(new_database(server))
        if "sqlite" in kinds:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            urls["sqlite"] = make_url(f"sqlite:///{folder}/tasks.db")
        yield urls


@contextmanager
def serving(url: URL, names: Iterable[str] = SERVERS) -> Iterator[list[Server]]:
    """Start servers of these names on the servers' cores."""
    settings = {
        "database_url": url.render_as_string(hide_password=False),
        "secret_key": SECRET,
        "login_failures": 1_000_000,
        "log_requests": False,  # the floor has none
    }
    with ExitStack() as stack:
        servers = []
        for name in names:
            words, port = SERVERS[name], free_port()
            with on(SERVER_CORES):
                started = command(*words, "--port", str(port), stdout=subprocess.DEVNULL, **settings)
                process = stack.enter_context(started)
            wait_until_ready(f"http://127.0.0.1:{port}", process)
            servers.append(Server(name, process.pid, port))
        yield servers


def one_round(
    servers: Sequence[Server],
    work: Callable[[Sequence[Person]], Script],
    people: Sequence[Person],
    connections: int,
    seconds: float,
) -> dict[str, Run]:
    """Drive each server once; its first requests do not count."""
    runs = {}
    each = len(people) // connections

    def script(number: int) -> Script:
        return work(people[number * each : (number + 1) * each])

    for server in servers:
        ask(server.port, script, connections, seconds / 10)
        before = cpu_seconds(server.pid)
        load = ask(server.port, script, connections, seconds)
        runs[server.name] = Run(load, (cpu_seconds(server.pid) - before) / load.requests)
    return runs


def add_row(table: Table, kind: str, work: str, rounds: Sequence[dict[str, Run]]) -> float:
    ratios = sorted(run["service"].cpu / run["floor"].cpu for run in rounds)
    floor, service = (median(run[name].cpu for run in rounds) for name in SERVERS)
    loads = [run["service"].load for run in rounds]
    rate, p50, p99 = (median(figures) for figures in zip(*((x.rate, x.p50, x.p99) for x in loads), strict=True))
    errors = sum(run.load.errors for both in rounds for run in both.values())
    figures = f"{median(ratios):.2f}", f"{ratios[0]:.2f}-{ratios[-1]:.2f}", f"{service * 1e6:.0f}", f"{floor * 1e6:.0f}"
    table.add_row(kind, work, *figures, f"{rate:.0f}", f"{p50 * 1e3:.1f}", f"{p99 * 1e3:.1f}", str(errors))
    return median(ratios)


def plot(ratios: dict[tuple[str, str], float], path: Path) -> None:
    """Draw bars, one for each database and work, to a line that is the floor."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 - only here

    figure, axes = plt.subplots(figsize=(9, 0.4 * len(ratios) + 1.2), layout="constrained")
    bars = axes.barh([f"{work} ({kind})" for kind, work in ratios], list(ratios.values()))
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(1, color="black")
    axes.invert_yaxis()
    axes.set_xlabel("CPU per request, x of the floor")
    figure.savefig(path)


if __name__ == "__main__":
    main()
