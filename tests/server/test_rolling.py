"""Hosts that restart one after the other behind a proxy, and a migration under old code: nobody notices."""

import asyncio
import re
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path

import pytest

from app.db.migrations import newest
from tests.conftest import SECRET, migrate, new_database
from tests.support.load import Service, Writer, assert_nothing_is_lost, load, running, wait_until_written
from tests.support.own_server import durable_database, own_server
from tests.support.processes import ROOT, environment, wait_for
from tests.support.proxies import PROXIES, installed, proxy
from tests.support.readme import DEPLOY, blocks

SERVE = "tests.support.cheap_serve", "serve"


@contextmanager
def two_hosts(url: str, *options: str) -> Iterator[list[Service]]:
    """Two services that share a database, with the drain that the README has them take before a stop."""
    environment_file = "\n".join(blocks("ini", "Deployment", DEPLOY))
    settings = {
        "drain_seconds": re.findall(r"^DRAIN_SECONDS=(\d+)$", environment_file, re.MULTILINE)[0],
        "public_url": "https://tasks.example.com",
        "allowed_hosts": "localhost,127.0.0.1",
        "trusted_proxies": "127.0.0.1",
        "log_requests": True,
    }
    with (
        running(url, 1, [*SERVE, *options], "one.log", **settings) as one,
        running(url, 1, [*SERVE, *options], "other.log", **settings) as other,
    ):
        yield [one, other]


def restart(host: Service, writers: Sequence[Writer]) -> None:
    """Restart it under load, and wait until each proxy asks it again."""
    wait_until_written(writers, 5)
    host.stop()
    old = host.log.stat().st_size
    host.start()
    wait_for(lambda: names(host.log.read_bytes()[old:].decode()) >= {writer.name for writer in writers})


def names(log: str) -> set[str]:
    """Those of the writers whose requests are in the log."""
    return set(re.findall(r'"request_id": "(writer-\d+)"', log))


def assert_all_succeeded(writers: Sequence[Writer]) -> None:
    for writer in writers:
        assert writer.answers.keys() == {200, 201}, f"{writer.url}: {writer.answers}"
        assert not writer.breaks, f"{writer.url}: {writer.breaks}"


def test_a_rolling_restart_fails_no_request_behind_any_proxy(sqlite_url: str, tmp_path: Path) -> None:
    """All proxies stand before the same two hosts."""
    with two_hosts(sqlite_url) as hosts, ExitStack() as stack:
        ports = [host.port for host in hosts]
        fronts = [stack.enter_context(proxy(name, ports, tmp_path / name)) for name in installed()]
        with load(*fronts) as writers:
            for host in hosts:
                restart(host, writers)
            wait_until_written(writers, 5)

        assert_all_succeeded(writers)
        assert_nothing_is_lost(fronts[0], writers)


@pytest.mark.long
@pytest.mark.parametrize("name", PROXIES)
def test_a_rolling_restart_fails_none_of_2000_requests(name: str, tmp_path: Path) -> None:
    with (
        own_server() as server,
        durable_database(server) as url,
        two_hosts(url, "--workers", "2") as hosts,
        proxy(name, [host.port for host in hosts], tmp_path / name) as front,
    ):
        with load(front) as writers:
            while sum(len(writer.successes) for writer in writers) < 2_000:
                for host in hosts:
                    restart(host, writers)
            wait_until_written(writers, 5)

        print(f"{name}: {sum((writer.answers for writer in writers), Counter[int]())}")
        assert_all_succeeded(writers)
        assert_nothing_is_lost(front, writers)


@pytest.mark.long
def test_sighup_under_load_fails_no_request(sqlite_url: str) -> None:
    with running(sqlite_url, 1, [*SERVE, "--workers", "2"]) as service, load(service.url) as writers:
        wait_until_written(writers, 5)
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "every worker has been replaced" in service.log.read_text(), 300)
        wait_until_written(writers, 5)

        print(sum((writer.answers for writer in writers), Counter[int]()))
        assert_all_succeeded(writers)


@pytest.fixture
def old_code(tmp_path: Path) -> Path:
    """The code from before the newest migration."""
    versions = (ROOT / "alembic" / "versions").glob("*.py")
    (migration,) = [path for path in versions if f'\nrevision = "{newest()}"' in path.read_text()]
    log = ["git", "log", "--diff-filter=A", "--format=%H", "--", str(migration)]
    added = subprocess.run(log, cwd=ROOT, check=False, capture_output=True, text=True).stdout.strip()
    archive = ["git", "archive", f"{added}^"]
    packed = subprocess.run(archive, cwd=ROOT, check=False, capture_output=True).stdout
    if not packed:
        pytest.skip("there is no history from before the newest migration")
    with tarfile.open(fileobj=BytesIO(packed)) as tree:
        tree.extractall(tmp_path / "old", filter="data")
    return tmp_path / "old"


@pytest.mark.long
def test_old_code_serves_on_the_newest_schema(old_code: Path) -> None:
    """New code takes over while the old code serves."""
    with own_server() as server, new_database(server.url) as database:
        url = database.render_as_string(hide_password=False)
        subprocess.run(
            [sys.executable, "-m", "app", "migrate"],
            env=environment(database_url=url, secret_key=SECRET, pythonpath=old_code),
            check=True,
        )
        with running(url, pythonpath=old_code) as old, load(old.url) as writers:
            wait_until_written(writers, 5)
            asyncio.run(migrate(database))
            assert old.is_ready()
            wait_until_written(writers, 20)

        with running(url) as new:
            assert_nothing_is_lost(new.url, writers)
