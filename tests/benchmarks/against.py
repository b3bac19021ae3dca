"""The cost of a page of 20 tasks with a bearer token, here and on the frameworks that people would pick instead.

    python -m tests.benchmarks.against [--rounds N] [--seconds S]

Each peer is a minimal app of ours on its library, with the settings of its documentation (`peers/`). It is installed
from the registry into its own folder, which the next run uses again. All of them stay up, on PostgreSQL with the same
users and tasks, and are driven in turn with `compare.py`'s method. None of the peers checks a session.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle
from pathlib import Path
from statistics import median

import httpx2
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import URL, make_url

from tests.benchmarks.compare import Run, Server, serving
from tests.benchmarks.load import OTHER_CORES, SERVER_CORES, Script, ask, cpu_seconds, on, request
from tests.benchmarks.seed import seed
from tests.conftest import execute, new_database
from tests.support import postgres
from tests.support.accounts import bearer
from tests.support.processes import free_port, kill

USERS, TASKS_EACH = 1_000, 100
PEERS = Path(__file__).parent / "peers"
UVICORN = ("uvicorn", "app:app", "--no-access-log", "--loop", "uvloop", "--http", "httptools", "--port", "{port}")
GUNICORN = ("gunicorn", "app:app", "--worker-class", "gthread", "--workers", "1", "--threads", "8")
COMMANDS: dict[str, Sequence[str]] = {
    "fastapi_users": UVICORN,
    "litestar": UVICORN,
    "drf": (*GUNICORN, "--no-control-socket", "--bind", "127.0.0.1:{port}"),
}
KEPT = Path(tempfile.gettempdir()) / "bearer-tasks-peers"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=8)
    args = parser.parse_args()
    with ExitStack() as stack, on(OTHER_CORES):
        server = make_url(stack.enter_context(postgres.server()))
        progress = stack.enter_context(Progress(console=Console(file=sys.stderr)))
        bar = progress.add_task("installing", total=2 * len(COMMANDS) + 1 + args.rounds * (len(COMMANDS) + 2))
        for name in COMMANDS:
            install(name)
            progress.advance(bar)
        places: list[tuple[Server, list[bytes]]] = []
        url = stack.enter_context(new_database(server))
        people = asyncio.run(seed(url, USERS, TASKS_EACH))
        execute(url, "VACUUM ANALYZE")
        gets = [request("GET", "/tasks/mine", bearer(person.access_token)) for person in people]
        places += [(place, gets) for place in stack.enter_context(serving(url))]
        progress.advance(bar)
        for name in COMMANDS:
            progress.update(bar, description=f"filling {name}")
            places.append(stack.enter_context(peer(name, stack.enter_context(new_database(server)))))
            progress.advance(bar)
        rounds = []
        for _ in range(args.rounds):
            rounds.append({place.name: drive(place, gets, args.connections, args.seconds) for place, gets in places})
            progress.update(bar, description="measuring", advance=len(places))
    show(rounds)


def install(name: str) -> None:
    python = KEPT / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", KEPT / name], check=True)
    requirements = PEERS / name / "requirements.txt"
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True, stderr=subprocess.DEVNULL)


@contextmanager
def peer(name: str, url: URL) -> Iterator[tuple[Server, list[bytes]]]:
    """Fill its database, and start it on the servers' cores."""
    programs, port = KEPT / name / "bin", free_port()
    environment = os.environ | {"DATABASE_URL": url.render_as_string(hide_password=False)}
    seeded = subprocess.run(
        [programs / "python", "seed.py", str(USERS), str(TASKS_EACH)],
        cwd=PEERS / name,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    gets = [request("GET", "/tasks/", bearer(token)) for token in seeded.stdout.split()]
    words = [word.format(port=port) for word in COMMANDS[name]]
    with on(SERVER_CORES):
        process = subprocess.Popen(
            [programs / words[0], *words[1:]],
            cwd=PEERS / name,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    with process:
        try:
            wait_until_up(f"http://127.0.0.1:{port}/tasks/", process)
            yield Server(name, process.pid, port), gets
        finally:
            kill(process)


def wait_until_up(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Wait until it answers 401 to a request without a token."""
    while process.poll() is None:
        with suppress(httpx2.TransportError):
            if httpx2.get(url).status_code == 401:
                return
    raise AssertionError(f"{url} did not come up")


def drive(place: Server, gets: Sequence[bytes], connections: int, seconds: float) -> Run:
    each = len(gets) // connections

    def script(number: int) -> Script:
        for get in cycle(gets[number * each : (number + 1) * each]):  # noqa: UP028 - `cycle` takes nothing in return
            yield get

    ask(place.port, script, connections, seconds / 10)
    before = cpu_seconds(place.pid)
    load = ask(place.port, script, connections, seconds)
    return Run(load, (cpu_seconds(place.pid) - before) / load.requests)


def show(rounds: Sequence[Mapping[str, Run]]) -> None:
    table = Table("20 tasks with a token", "x service", "range", "x floor", "µs", "req/s", "p50 ms", "p99 ms", "errors")
    for name in rounds[0]:
        runs = [run[name] for run in rounds]
        ratios = sorted(run[name].cpu / run["service"].cpu for run in rounds)
        floors = median(run[name].cpu / run["floor"].cpu for run in rounds)
        rate, p50, p99 = (
            median(figures)
            for figures in zip(*((run.load.rate, run.load.p50, run.load.p99) for run in runs), strict=True)
        )
        table.add_row(
            name,
            f"{median(ratios):.2f}",
            f"{ratios[0]:.2f}-{ratios[-1]:.2f}",
            f"{floors:.2f}",
            f"{median(run.cpu for run in runs) * 1e6:.0f}",
            f"{rate:.0f}",
            f"{p50 * 1e3:.1f}",
            f"{p99 * 1e3:.1f}",
            str(sum(run.load.errors for run in runs)),
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
