"""The number of open files: raised as far as the system allows, with a warning before it is reached."""

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import main
from app.server import open_files
from tests.support.processes import command, free_port, wait_until_ready
from tests.support.scene import Play, Scene, arrival


@pytest.fixture
def few_files() -> Iterator[int]:
    """Lower the limit of open files to a little more than there are; the limit."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(file.name) for file in Path("/proc/self/fd").iterdir())
    gaps = [os.dup(0)]  # the free numbers below the highest: with them taken, the next file has the next number
    while gaps[-1] <= highest:
        gaps.append(os.dup(0))
    os.close(lowest := gaps.pop())
    few = lowest + open_files.RESERVE
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
    yield few
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    for gap in gaps:
        os.close(gap)


def test_connections_that_run_out_are_logged_once_a_minute(
    play: Play, few_files: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(scene: Scene) -> None:
        assert len(caplog.messages) == 1
        host, port = scene.client.writer.get_extra_info("peername")
        _, writer = await asyncio.open_connection(host, port)
        await arrival()
        assert len(caplog.messages) == 1
        scene.loop.move(60)
        _, another = await asyncio.open_connection(host, port)
        await arrival()
        writer.close()
        another.close()

    play(story)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert str(few_files) in caplog.messages[0]


@pytest.fixture
def fresh_app(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`app.main` makes its `app` when that is asked for, as `serve` and uvicorn ask."""
    monkeypatch.delitem(vars(main), "app", raising=False)
    yield
    vars(main).pop("app", None)


def test_a_process_may_open_as_many_files_as_the_system_lets_it(few_files: int, fresh_app: None) -> None:
    _ = main.app

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard > few_files


@pytest.mark.long
@pytest.mark.parametrize("words", [["app", "serve"], ["uvicorn", "app.main:app"]], ids=["serve", "uvicorn"])
def test_a_served_process_may_open_as_many_files(sqlite_url: str, few_files: int, words: list[str]) -> None:
    port = free_port()
    with command(*words, "--port", str(port), database_url=sqlite_url, stdout=subprocess.DEVNULL) as process:
        wait_until_ready(f"http://127.0.0.1:{port}", process)
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        assert soft == hard > few_files


def test_no_limit_of_open_files_is_raised_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.setitem(sys.modules, "resource", None)

    open_files.raise_limit()
