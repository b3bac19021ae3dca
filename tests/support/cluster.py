"""A PostgreSQL primary with a standby, and names that clients reach them by."""

import asyncio
import ctypes
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple, Protocol

import pytest

from tests.conftest import execute, migrate
from tests.support import postgres
from tests.support.own_server import Server, own_server
from tests.support.processes import PATIENCE, free_port, wait_for

DATABASE = "tasks"
CLONE_NEWNET = 0x40000000  # of sched.h


@contextmanager
def cluster() -> Iterator[tuple[Server, Server]]:
    """A primary with a migrated database, and its synchronous standby. Commits survive the end of either.

    They talk by sockets in their folders, and to others by a port of this host.
    """

    def start(primary: Server | None = None) -> AbstractContextManager[Server]:
        usual = {"listen_addresses": "127.0.0.1", "synchronous_commit": "on"}
        return own_server(primary, port=free_port(), **usual)

    with start() as primary:
        execute(primary.url, f"CREATE DATABASE {DATABASE}")
        asyncio.run(migrate(primary.url.set(database=DATABASE)))
        with start(primary) as standby:
            execute(primary.url, "ALTER SYSTEM SET synchronous_standby_names = '*'")
            execute(primary.url, "SELECT pg_reload_conf()")
            wait_for(lambda: execute(primary.url, "SELECT sync_state FROM pg_stat_replication") == [("sync",)])
            yield primary, standby


def promote(standby: Server) -> None:
    """Make it a primary. It takes writes when this returns."""
    assert execute(standby.url, "SELECT pg_promote()") == [(True,)]


def follow(server: Server, primary: Server) -> None:
    """Have a server come back as a standby of another, with a copy of its data."""
    if server.is_running:
        server.stop(signal.SIGQUIT)
    for path in server.data.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    postgres.copy_primary(str(primary.url), server.data)
    server.start()


class Place(Protocol):
    @property
    def address(self) -> str: ...


def database_at(*places: Place) -> str:
    """The URL of the cluster's database, by each of these hosts."""
    return f"postgresql://postgres@{','.join(place.address for place in places)}/{DATABASE}"


class Network:
    """A network namespace behind a cable of its own. A name that listens there is reached at `host`."""

    def __init__(self) -> None:
        key, subnet = secrets.token_hex(4), f"198.18.{secrets.randbelow(256)}"  # RFC 2544 §C.2.2: for tests
        self.name, self.host = f"tasks-{key}", f"{subnet}.2"
        self._ends = End([], f"t{key}", f"{subnet}.1"), End(["-n", self.name], f"t{key}-in", self.host)

    @contextmanager
    def laid(self) -> Iterator["Network"]:
        """Lay the cable. Skips the test of a user who may not."""
        here, there = self._ends
        try:
            ip("netns", "add", self.name)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a network namespace needs root and iproute2: {error}")
        try:
            ip("link", "add", here.cable, "type", "veth", "peer", "name", there.cable, "netns", self.name)
            for end in self._ends:
                ip(*end.where, "addr", "add", f"{end.address}/24", "dev", end.cable)
                ip(*end.where, "link", "set", end.cable, "up")
            yield self
        finally:
            ip("netns", "del", self.name)

    def drop(self) -> None:
        """Lose all packets in both directions. Nobody is told: each end sends to a card that does not exist."""
        self._neighbours("replace", "lladdr", "02:00:00:00:00:01", "nud", "permanent")

    def heal(self) -> None:
        self._neighbours("del")

    def _neighbours(self, verb: str, *card: str) -> None:
        here, there = self._ends
        for end, other in (here, there), (there, here):
            ip(*end.where, "neigh", verb, other.address, *card, "dev", end.cable)


class End(NamedTuple):
    """Of a cable: the options of `ip` that name its network, its device, and its address."""

    where: list[str]
    cable: str
    address: str


class Name:
    """A name for a server that may move to another, as one in DNS does: open connections stay where they are.

    It listens in a network, if one is given, and hands what comes to the socket in the server's folder.
    """

    def __init__(self, server: Server, network: Network | None = None) -> None:
        self.server = server
        self._network = network
        self._host, self._port = network.host if network else "127.0.0.1", free_port()
        self._open = set[asyncio.StreamWriter]()

    @property
    def address(self) -> str:
        return f"{self._host}:{self._port}"

    @contextmanager
    def listening(self) -> Iterator["Name"]:
        listens = Event()
        thread = Thread(target=lambda: asyncio.run(self._serve(listens)))
        thread.start()
        try:
            assert listens.wait(PATIENCE)
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._ends.set)
            thread.join()

    async def _serve(self, listens: Event) -> None:
        self._loop, self._ends = asyncio.get_running_loop(), asyncio.Event()
        if self._network:
            enter(self._network.name)
        server = await asyncio.start_server(self._forward, self._host, self._port)
        listens.set()
        await self._ends.wait()
        server.close()
        while self._open:
            for writer in self._open:
                writer.transport.abort()
            await asyncio.sleep(0)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = self.server
        try:
            there = await asyncio.open_unix_connection(server.data / f".s.PGSQL.{server.port}")
        except OSError:
            writer.close()
        else:
            ends = {writer, there[1]}
            self._open |= ends
            await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))
            self._open -= ends


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def enter(namespace: str) -> None:
    """Move this thread into a network namespace."""
    with Path("/run/netns", namespace).open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
