"""kill -9 under load: nothing that was acknowledged is lost, nothing is half done, and it serves again at once."""

import random
import signal
from collections.abc import Callable, Sequence
from statistics import median

import pytest
from sqlalchemy import make_url

from tests.conftest import execute
from tests.support.load import assert_nothing_is_lost, load, running, wait_until_written
from tests.support.own_server import durable_database, own_server

READY_SECONDS = 2
TABLES = ["users", "sessions", "tasks", "throttle"]


@pytest.mark.parametrize(("kills", "workers"), [(1, 1), pytest.param(50, 2, marks=pytest.mark.long)])
def test_sqlite_survives_kill_9(sqlite_url: str, kills: int, workers: int) -> None:
    crash(sqlite_url, workers, [lambda: None] * kills)

    assert execute(make_url(sqlite_url), "PRAGMA integrity_check") == [("ok",)]
    assert execute(make_url(sqlite_url), "PRAGMA foreign_key_check") == []


@pytest.mark.parametrize(("kills", "workers"), [(1, 1), pytest.param(100, 2, marks=pytest.mark.long)])
def test_postgresql_survives_kill_9(kills: int, workers: int) -> None:
    """It survives the end of the service alone, and of service and server."""

    def kill_server() -> None:
        server.stop(signal.SIGKILL)
        server.start()

    with own_server() as server, durable_database(server) as url:
        crash(url, workers, ([kill_server, lambda: None] * kills)[:kills])

        for table in TABLES:
            execute(make_url(url), f"SELECT row.* FROM {table} row")


def crash(url: str, workers: int, casualties: Sequence[Callable[[], None]]) -> None:
    """Kill all processes of the service under load, and start it again each time."""
    starts: list[float] = []
    with running(url, workers, refresh_grace=60) as service:
        with load(service.url) as writers:
            for kill_more in casualties:
                wait_until_written(writers, random.randint(2, 10))
                service.kill()
                kill_more()
                starts.append(service.start())
            wait_until_written(writers, 1)
        assert_nothing_is_lost(service.url, writers)
    tasks, logouts = sum(len(writer.tasks) for writer in writers), sum(len(writer.ended) for writer in writers)
    print(f"{len(starts)} kills, none of {tasks} tasks, as many refreshes and {logouts} logouts lost;", end=" ")
    print(f"ready after {median(starts):.2f} s (median), {max(starts):.2f} s (longest)")
    assert len(starts) == 1 or median(starts) < READY_SECONDS
