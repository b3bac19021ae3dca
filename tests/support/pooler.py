"""PgBouncer before a PostgreSQL server of our own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from socket import create_connection

import pytest

from tests.support.own_server import Server
from tests.support.processes import PATIENCE, free_port, wait_for

PROGRAM = shutil.which("pgbouncer")
CONFIGURATION = """
[databases]
* = host={server.data} port={server.port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 30
{lines}
"""
LINES = "ignore_startup_parameters = extra_float_digits, statement_timeout, idle_in_transaction_session_timeout"


@dataclass
class Pooler:
    """PgBouncer on a port of this host."""

    server: Server
    mode: str = "session"
    lines: str = LINES
    port: int = field(default_factory=free_port)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator["Pooler"]:
        """Run it until the context ends. Skips the test where it is not installed, but for CI."""
        if PROGRAM is None:
            (pytest.fail if "CI" in os.environ else pytest.skip)("pgbouncer is not installed")
        self.start()
        try:
            yield self
        finally:
            self.kill()

    def start(self) -> None:
        assert PROGRAM
        path = self.server.data.parent / f"pgbouncer-{self.port}.ini"
        path.write_text(CONFIGURATION.format(server=self.server, mode=self.mode, port=self.port, lines=self.lines))
        user = self.server.data.stat().st_uid if os.geteuid() == 0 else None  # it refuses to run as root
        self.process = subprocess.Popen([PROGRAM, "-q", path], user=user, group=user, stderr=subprocess.DEVNULL)
        wait_for(self._listens)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def _listens(self) -> bool:
        assert self.process.poll() is None, "pgbouncer did not start"
        with suppress(OSError), closing(create_connection(("127.0.0.1", self.port))):
            return True
        return False
