"""A PostgreSQL server that a test stops and starts."""

import asyncio
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL, make_url

from tests.conftest import execute, migrate, new_database
from tests.support import postgres
from tests.support.processes import PATIENCE


@dataclass
class Server:
    """A PostgreSQL server of our own, that can be stopped and started."""

    url: URL
    process: "subprocess.Popen[bytes] | None" = None
    is_running: bool = True

    def __post_init__(self) -> None:
        self.command = shlex.split((self.data / "postmaster.opts").read_text())

    @property
    def data(self) -> Path:
        return Path(str(self.url.query["host"]))

    @property
    def port(self) -> int:
        return int(str(self.url.query["port"]))

    @property
    def address(self) -> str:
        """The server listens here, if its settings say so."""
        return f"127.0.0.1:{self.port}"

    def stop(self, how: signal.Signals) -> None:
        """SIGINT is PostgreSQL's fast shutdown, SIGQUIT its immediate one, SIGKILL a crash of all its processes."""
        self.is_running = False
        first = (self.data / "postmaster.pid").read_text().partition("\n")[0]
        others = subprocess.run(["pgrep", "-P", first], check=True, capture_output=True, text=True).stdout.split()
        for pid in map(int, [first, *others] if how is signal.SIGKILL else [first]):
            with suppress(ProcessLookupError):
                os.kill(pid, how)
        if self.process:
            self.process.wait(PATIENCE)
        else:
            os.waitpid(int(first), 0)

    def start(self) -> None:
        user = self.data.stat().st_uid if os.geteuid() == 0 else None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.process = subprocess.Popen(self.command, user=user, group=user, stderr=subprocess.DEVNULL)
            while self.process.poll() is None and time.monotonic() < deadline:
                with suppress(asyncpg.PostgresError, OSError):
                    execute(self.url, "SELECT 1")
                    self.is_running = True
                    return
                time.sleep(0.01)
        raise AssertionError("PostgreSQL did not start again")


@contextmanager
def own_server(primary: Server | None = None, **settings: Any) -> Iterator[Server]:
    """Run a server, with `settings` of its own. With `primary` it is a standby of that one."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(postgres.server(str(primary.url) if primary else None, **settings))
        except FileNotFoundError as error:
            (pytest.fail if "CI" in os.environ else pytest.skip)(f"no PostgreSQL of our own: {error}")
        server = Server(make_url(url))
        try:
            yield server
        finally:
            if server.is_running:
                server.stop(signal.SIGQUIT)


@contextmanager
def durable_database(server: Server) -> Iterator[str]:
    """A migrated database whose commits survive the server's end, which those of the suite's servers need not."""
    with new_database(server.url) as url:
        asyncio.run(migrate(url))
        yield url.update_query_dict({"options": "-csynchronous_commit=on"}).render_as_string(hide_password=False)
