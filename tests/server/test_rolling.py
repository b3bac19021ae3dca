"""Hosts that restart one after the other behind nginx, and a migration under old code: nobody notices."""

import asyncio
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest

from app.db.migrations import newest
from tests.conftest import SECRET, migrate, new_database
from tests.support.load import Service, assert_nothing_is_lost, load, running, wait_until_written
from tests.support.own_server import durable_database, own_server
from tests.support.processes import ROOT, environment, free_port, wait_for
from tests.support.readme import DEPLOY, blocks

HOSTS = ["10.0.0.11:8000", "10.0.0.12:8000"]
AROUND = """
user root;
worker_processes 2;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {shown}
}}
"""

pytestmark = pytest.mark.long


@contextmanager
def nginx(services: Sequence[Service], folder: Path) -> Iterator[str]:
    """Run it before these services as the README shows it, but for TLS; yields its URL."""
    program = shutil.which("nginx")
    if program is None:
        pytest.skip("nginx is not installed")
    listen = f"127.0.0.1:{free_port()}"
    (block,) = blocks("nginx", "nginx", DEPLOY)
    shown = re.sub(r" +ssl_.*\n", "", block)
    here = [f"127.0.0.1:{service.port}" for service in services]
    for there, instead in zip(["443 ssl", *HOSTS], [listen, *here], strict=True):
        assert shown.count(there) == 1
        shown = shown.replace(there, instead)
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder, shown=shown))
    with subprocess.Popen([program, "-c", folder / "nginx.conf", "-e", folder / "nginx.log"]) as process:
        try:
            wait_for((folder / "nginx.pid").exists)
            yield f"http://{listen}"
        finally:
            process.terminate()


def test_a_rolling_restart_behind_nginx_fails_no_request(tmp_path: Path) -> None:
    behind = {"public_url": "https://tasks.example.com", "trusted_proxies": "127.0.0.1", "allowed_hosts": "127.0.0.1"}
    with (
        own_server() as server,
        durable_database(server) as url,
        running(url, 2, **behind) as one,
        running(url, 2, **behind) as other,
        nginx([one, other], tmp_path) as front,
    ):
        with load(front) as writers:
            for host in [one, other] * 2:
                wait_until_written(writers, 5)
                host.stop()
                host.start()
            wait_until_written(writers, 5)

        answers = sum((writer.answers for writer in writers), Counter[int]())
        print(f"answers: {answers}")
        assert answers.keys() == {200, 201}
        assert sum(writer.breaks for writer in writers) == 0
        assert_nothing_is_lost(front, writers)


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
            assert not old.is_ready()
            wait_until_written(writers, 20)

        with running(url) as new:
            assert_nothing_is_lost(new.url, writers)
