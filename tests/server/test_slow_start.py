"""A start on a slow or busy host: no worker is killed because it needs long."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.support.processes import ROOT, command, free_port, wait_for

SLEEP = 'import sys, time\nif "spawn_main" in " ".join(sys.orig_argv): time.sleep(30)\n'
SERVES = "Application startup complete"
DEATH = "app.server.supervisor: worker"

pytestmark = pytest.mark.long


@pytest.fixture
def slow_imports(tmp_path: Path) -> str:
    """A PYTHONPATH with which each worker sleeps for 30 seconds before it imports anything."""
    (tmp_path / "sitecustomize.py").write_text(SLEEP)
    return f"{tmp_path}:{ROOT}"


@pytest.fixture
def busy_host() -> Iterator[str]:
    """Ten processes that want all of the processor, for as long as the test takes; the usual PYTHONPATH."""
    with ExitStack() as stack:
        for _ in range(10):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(process.kill)
        yield str(ROOT)


@pytest.mark.parametrize(("host", "count"), [("slow_imports", 2), ("busy_host", 4)])
def test_workers_that_start_slowly_come_to_serve(
    request: pytest.FixtureRequest, sqlite_url: str, host: str, count: int
) -> None:
    pythonpath, port, log = request.getfixturevalue(host), free_port(), Path("log")
    words = "app", "serve", "--port", str(port), "--workers", str(count)
    settings = {"database_url": sqlite_url, "log_format": "console", "pythonpath": pythonpath}
    with log.open("w") as file, command(*words, stdout=file, stderr=file, **settings):
        wait_for(lambda: log.read_text().count(SERVES) == count or DEATH in log.read_text(), 300)

        assert httpx2.get(f"http://127.0.0.1:{port}/health/ready", timeout=60).status_code == 200
    assert DEATH not in log.read_text()
