"""The primary fails, moves, falls silent or loses its pooler: no write is lost, no 500, served again within seconds.

One process of the service has each host in its URL, another one a name that moves.
"""

import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from tests.conftest import execute
from tests.support.cluster import DATABASE, Name, Network, cluster, database_at, follow, promote
from tests.support.load import Writer, assert_nothing_is_lost, load, running, wait_until_written
from tests.support.own_server import Server
from tests.support.pooler import Pooler
from tests.support.processes import wait_for
from tests.support.watch import Watch, watching

RECOVERY = 5  # seconds from the database's return to the last refusal
PARTITION = 20  # seconds

pytestmark = pytest.mark.long


@dataclass
class Scene:
    """Processes of the service on one database, under load and watched."""

    writers: Sequence[Writer]
    watches: Sequence[Watch]

    def wait_until_refused(self, times: int = 1) -> None:
        """Wait until each process has refused so many writes more."""
        goals = [refusals(watch) + times for watch in self.watches]
        wait_for(lambda: all(refusals(watch) >= goal for watch, goal in zip(self.watches, goals, strict=True)))


def refusals(watch: Watch) -> int:
    return sum(answer.status == 503 for answer in watch.writes)


@contextmanager
def served(*database_urls: str) -> Iterator[Scene]:
    """Serve a database by each of its URLs, and find out at the end what its clients were told."""
    with ExitStack() as stack:
        urls = [stack.enter_context(running(url)).url for url in database_urls]
        with load(*urls) as writers, watching(*urls) as watches:
            wait_until_written(writers, 5)
            yield Scene(writers, watches)

        answers = sum((writer.answers for writer in writers), Counter[int]())
        tasks, logouts = sum(len(writer.tasks) for writer in writers), sum(len(writer.ended) for writer in writers)
        print(f"{answers}; {tasks} tasks, as many refreshes and {logouts} logouts acknowledged")
        for watch in watches:
            ready, longest = Counter(each.status for each in watch.ready), max(each.seconds for each in watch.ready)
            print(f"{watch.url}: ready {ready}, in {longest:.1f} s at most")
        assert [writer.breaks for writer in writers if writer.breaks] == []
        for watch in watches:
            watch.assert_truthful()
        for url in urls:
            assert_nothing_is_lost(url, writers)


def assert_back(watch: Watch, since: float) -> None:
    """The process serves again within seconds of a moment, and then refuses nothing."""
    wait_for(lambda: watch.writes[-1].asked > since + RECOVERY + 1)
    print(f"{watch.url} was back {watch.recovered(since):.2f} s after")
    assert watch.recovered(since) < RECOVERY


def assert_stored(server: Server, scene: Scene) -> None:
    rows = {str(id_) for (id_,) in execute(server.url.set(database=DATABASE), "SELECT id FROM tasks")}
    assert set.union(*[watch.created for watch in scene.watches]) <= rows


def test_a_primary_is_killed_and_its_standby_promoted() -> None:
    with (
        cluster() as (one, other),
        Name(one).listening() as name,
        served(database_at(one, other), database_at(name)) as scene,
    ):
        hosts, moves = scene.watches
        one.stop(signal.SIGKILL)
        scene.wait_until_refused(3)
        promote(other)
        returned = time.monotonic()
        assert_back(hosts, returned)
        name.server = other
        assert_back(moves, time.monotonic())

        follow(one, other)
        execute(other.url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{DATABASE}'")
        wait_until_written(scene.writers, 5)
        assert_stored(other, scene)


def test_a_switchover_behind_a_name_that_moves_late() -> None:
    """The demoted primary is a standby before the name moves: all connections that are made by then lead there."""
    with (
        cluster() as (one, other),
        Name(one).listening() as name,
        served(database_at(one, other), database_at(name)) as scene,
    ):
        hosts, moves = scene.watches
        one.stop(signal.SIGINT)
        promote(other)
        returned = time.monotonic()
        follow(one, other)
        assert_back(hosts, returned)
        name.server = other
        assert_back(moves, time.monotonic())
        assert_stored(other, scene)


def test_packets_are_dropped_for_a_while() -> None:
    with (
        cluster() as (one, other),
        Network().laid() as network,
        Name(one, network).listening() as name,
        served(database_at(name, other), database_at(name)) as scene,
    ):
        network.drop()
        time.sleep(PARTITION)
        network.heal()
        returned = time.monotonic()
        for watch in scene.watches:
            assert_back(watch, returned)
        assert_stored(one, scene)


def test_a_primary_loses_power_and_its_standby_is_promoted() -> None:
    """Nothing tells the processes that the connections they have are dead, nor that nobody answers at that address."""
    with (
        cluster() as (one, other),
        Network().laid() as network,
        Name(one, network).listening() as name,
        served(database_at(name, other), database_at(other, name)) as scene,
    ):
        network.drop()
        one.stop(signal.SIGKILL)
        scene.wait_until_refused()
        promote(other)
        returned = time.monotonic()
        for watch in scene.watches:
            assert_back(watch, returned)
        assert_stored(other, scene)


def test_a_pooler_is_killed() -> None:
    """The process that knows another pooler goes on with that one."""
    with (
        cluster() as (server, _),
        Pooler(server).running() as one,
        Pooler(server).running() as other,
        served(database_at(one, other), database_at(one)) as scene,
    ):
        hosts, alone = scene.watches
        one.kill()
        killed = time.monotonic()
        assert_back(hosts, killed)
        one.start()
        assert_back(alone, time.monotonic())
        assert_stored(server, scene)
