"""uvicorn's server, which breaks off no request when it stops, and the process that it runs in."""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from typing import Final

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from app.server.protocol import Protocol
from app.server.systemd import notify

MAX_TEXT: Final = 4096
ACCEPT_SECONDS: Final = 0.1  # until the loop has made connections of what it has accepted

logger = logging.getLogger(__name__)


class Config(uvicorn.Config):
    """uvicorn's, with a socket that has the announcement: the first process that accepts connections takes it."""

    announcement: socket.socket | None = None


class ChildProcess(SpawnProcess):
    """A process that serves. Ctrl-C waits until its server handles it, and interrupts no import with a traceback.

    To unpickle this object, the child imports this module, so it runs the `Server` below.
    """

    def start(self) -> None:
        resource_tracker.ensure_running()  # to start the tracker would unblock SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the child inherits the mask
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class Server(uvicorn.Server):
    """uvicorn's, which also serves the connections that were waiting to be accepted when it was told to stop.

    A refused client tries elsewhere. A client that is cut off cannot tell whether its request was carried out.
    In a child process it also stops when the parent has ended, so that the port is free for the next start.
    """

    config: Config

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        try:
            for listener in sockets or []:
                listener.listen(self.config.backlog)
        except OSError as error:  # another process bound the same port, and listened first
            print(f"error: cannot listen: {error.strerror}", file=sys.stderr)
            sys.exit(STARTUP_FAILURE)
        if parent := multiprocessing.parent_process():
            asyncio.get_running_loop().add_reader(parent.sentinel, self._stop_without_parent, parent.sentinel)
        await super().startup(sockets)
        notify("READY=1")
        if self.config.announcement and not self.should_exit:
            with suppress(BlockingIOError):  # another worker has taken it
                print(self.config.announcement.recv(MAX_TEXT, socket.MSG_DONTWAIT).decode(), flush=True)

    def _stop_without_parent(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        logger.error("the process that started process %d has ended: it stops", os.getpid())
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        notify("STOPPING=1")
        protocol = partial(Protocol, self.config, self.server_state, self.lifespan.state)
        for connection in self._stop_listening(sockets or []):
            await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)
        await asyncio.sleep(ACCEPT_SECONDS)
        await super().shutdown(sockets)

    def _stop_listening(self, sockets: list[socket.socket]) -> list[socket.socket]:
        """Accept the connections that wait, and close the listeners: the kernel would reset what waits by then."""
        accepted: list[socket.socket] = []
        for server in self.servers:
            for listener in server.sockets:
                # OSError: no connection waits, or no more files may be opened.
                with suppress(OSError), socket.socket(fileno=os.dup(listener.fileno())) as waiting:
                    waiting.setblocking(False)
                    while True:
                        accepted.append(waiting.accept()[0])
            server.close()
        for listener in sockets:
            listener.close()
        return accepted
