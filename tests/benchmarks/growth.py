"""The cost of requests as the tables grow: the time of each at 1,000 tasks, and how many times that with more.

    python -m tests.benchmarks.growth [TASKS …]

Each size has its own database and service. There are a tenth as many users as tasks, each with a session, and one user
has a tenth of the tasks. All services stay up and are asked in turn, over one connection. The figures are medians of
the time that an answer takes, database included. The ratios are to the first size. PostgreSQL is ANALYZEd, and SQLite
has no statistics, as the service runs it.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import cycle
from statistics import median
from urllib.parse import urlencode

import httpx2
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import URL

from tests.benchmarks.compare import Server, databases, refresh, serving
from tests.benchmarks.load import OTHER_CORES, Script, ask, on, request
from tests.benchmarks.seed import Person, seed
from tests.conftest import execute
from tests.support.accounts import bearer

SIZES = (1_000, 100_000, 1_000_000)
ROUNDS = 7
SECONDS = 0.4
DEPTH = 1_000  # pages

Work = Callable[[Sequence[Person]], Script]


def listing(path: str, **query: str) -> Work:
    """Ask for a page of the public tasks, or of the first user's, which are many."""

    def ask_for_it(people: Sequence[Person]) -> Script:
        headers = bearer(people[0].access_token)
        while True:
            yield request("GET", f"{path}?{urlencode(query)}", headers)

    return ask_for_it


def use(people: Sequence[Person]) -> Script:
    for person in cycle(people):
        yield request("GET", "/users/me", bearer(person.access_token))


def read_one(people: Sequence[Person]) -> Script:
    for person in cycle(people):
        yield request("GET", f"/tasks/{person.task_id}", bearer(person.access_token))


MINE, PUBLIC = "/tasks/mine", "/tasks/public"
RANGE = {"due_after": "2026-12-01T00:00:00Z", "due_before": "2099-01-01T00:00:00Z"}
WORKS: dict[str, Work] = {
    "mine": listing(MINE),
    "mine, by due_at": listing(MINE, sort="due_at"),
    "mine, latest change first": listing(MINE, sort="-updated_at"),
    "mine, status": listing(MINE, status="done"),
    "mine, status, by due_at": listing(MINE, status="done", sort="due_at"),
    "mine, due in a range": listing(MINE, **RANGE),
    "mine, due in a range, by due_at": listing(MINE, sort="due_at", **RANGE),
    "mine, a word of all": listing(MINE, q="task"),
    "mine, a word of each thousandth": listing(MINE, q="lot17", sort="due_at"),
    "public": listing(PUBLIC),
    "public, by due_at": listing(PUBLIC, sort="due_at"),
    "public, status, latest change first": listing(PUBLIC, status="doing", sort="-updated_at"),
    "public, a word of all": listing(PUBLIC, q="task"),
    "public, a word of each thousandth": listing(PUBLIC, q="lot17", sort="-updated_at"),
    "one task": read_one,
    "session and user": use,
    "refresh": refresh,
}


def main() -> None:
    sizes = [*map(int, sys.argv[1:])] or SIZES
    with ExitStack() as stack, on(OTHER_CORES):
        for kind in "postgresql", "sqlite":
            places = [stack.enter_context(databases([kind]))[kind] for _ in sizes]
            show(kind, sizes, places)


def show(kind: str, sizes: Sequence[int], places: Sequence[URL]) -> None:
    table = Table(kind, *(f"{size:,} tasks" for size in sizes), *(f"x at {size:,}" for size in sizes[1:]))
    with ExitStack() as stack, Progress(console=Console(file=sys.stderr)) as progress:
        bar = progress.add_task(f"{kind}: filling", total=len(sizes) + len(WORKS) * ROUNDS + 1)
        people, servers = [], []
        for size, url in zip(sizes, places, strict=True):
            people.append(asyncio.run(seed(url, size // 10, 9, many=size // 10)))
            if kind == "postgresql":
                execute(url, "VACUUM ANALYZE")
            servers.append(stack.enter_context(serving(url, ["service"]))[0])
            progress.advance(bar)
        works = WORKS | {f"mine, page {DEPTH:,}": None, f"public, page {DEPTH:,}": None}
        for name, work in works.items():
            progress.update(bar, description=f"{kind}: {name}")
            scripts = [work or deep(name, server, of) for server, of in zip(servers, people, strict=True)]
            times: list[list[float]] = [[] for _ in sizes]
            for _ in range(ROUNDS):
                for server, script, of, found in zip(servers, scripts, people, times, strict=True):
                    found.append(ask(server.port, lambda _, s=script, p=of: s(p), 1, SECONDS).p50)  # type: ignore[misc]
                progress.advance(bar)
            ratios = [median(x / first for x, first in zip(more, times[0], strict=True)) for more in times[1:]]
            table.add_row(name, *(f"{median(x) * 1e3:.2f} ms" for x in times), *(f"{ratio:.2f}" for ratio in ratios))
    Console(width=160).print(table)


def deep(name: str, server: Server, people: Sequence[Person]) -> Work:
    """Follow the links once to the page at that depth, or to the last one of a shorter list."""
    path = MINE if name.startswith("mine") else PUBLIC
    cursor = ""
    with httpx2.Client(base_url=f"http://127.0.0.1:{server.port}", headers=bearer(people[0].access_token)) as client:
        for _ in range(DEPTH - 1):
            page = client.get(path, params={"limit": 20} | ({"cursor": cursor} if cursor else {})).json()
            if page["next_cursor"] is None:
                break
            cursor = page["next_cursor"]
    return listing(path, limit="20", cursor=cursor)


if __name__ == "__main__":
    main()
