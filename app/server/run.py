"""Run the service with uvicorn: as one process, as several workers, or restarted when the code changes."""

import asyncio
import os
import signal
import socket
import sys
import time
from contextlib import nullcontext, suppress
from functools import partial
from multiprocessing import get_context, resource_tracker
from multiprocessing.context import SpawnProcess
from typing import Final

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import ChangeReload, Multiprocess, multiprocess

from app.observe.metrics import shared_folder
from app.server.protocol import Protocol

MAX_TEXT: Final = 4096
ACCEPT_SECONDS: Final = 0.1  # until the loop has made connections of what it has accepted
POLL_SECONDS: Final = 0.1
GRACEFUL_SHUTDOWN: Final = 12  # seconds for requests in flight: a slow body has 10
EXPORT_SECONDS: Final = "2"  # with OpenTelemetry's 10, Ctrl-C took 20 when there was no collector


async def bind(host: str, port: int) -> list[socket.socket]:
    """Bind the port on every address of the host. Nothing is accepted yet."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    listeners = [listener.dup() for listener in server.sockets]
    server.close()
    return listeners


def serve(listeners: list[socket.socket], workers: int, announcement: str, *, reload: bool, metrics: bool) -> None:
    """Serve until SIGTERM or SIGINT. Print the announcement once connections are accepted.

    With `metrics`, several workers count together.
    """
    os.environ.setdefault("OTEL_EXPORTER_OTLP_TIMEOUT", EXPORT_SECONDS)
    get_context("spawn").Process = ChildProcess  # type: ignore[misc] # uvicorn offers no other way to choose
    config = Config(
        "app.main:app",
        workers=workers,
        reload=reload,
        http=Protocol,
        ws="none",
        log_config=None,
        log_level="info",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN,
    )
    sender, config.announcement = socket.socketpair(type=socket.SOCK_DGRAM)
    sender.send(announcement.encode())
    if reload:
        ChangeReload(config, Server(config).run, listeners).run()
    elif workers == 1:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # uvicorn raises SIGTERM again when it has shut down
        with suppress(KeyboardInterrupt):
            Server(config).run(listeners)
    else:
        with shared_folder() if metrics else nullcontext():
            Workers(config, listeners).run()


class Config(uvicorn.Config):
    """uvicorn's, with a socket that has the announcement: the first process that accepts connections takes it."""

    announcement: socket.socket | None = None


class ChildProcess(SpawnProcess):
    """A worker. Ctrl-C waits until its server handles it, and does not interrupt its imports with a traceback.

    To unpickle this object, the child imports this module, so it runs the `Server` below.
    """

    def start(self) -> None:
        resource_tracker.ensure_running()  # to start the tracker would unblock SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the child inherits the mask
        super().start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class Server(uvicorn.Server):
    """uvicorn's, which also serves the connections that were waiting to be accepted when it was told to stop.

    A refused client tries elsewhere. A client that is cut off cannot tell whether its request was carried out.
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
        await super().startup(sockets)
        if self.config.announcement and not self.should_exit:
            with suppress(BlockingIOError):  # another worker has taken it
                print(self.config.announcement.recv(MAX_TEXT, socket.MSG_DONTWAIT).decode(), flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
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


multiprocess.Server = Server  # type: ignore[attr-defined] # uvicorn offers no other way to choose


class Workers(Multiprocess):
    """uvicorn's, but it stops listening at once when it is told to stop: new clients are refused, and try elsewhere."""

    def terminate_all(self) -> None:
        for listener in self.sockets:
            listener.close()
        super().terminate_all()

    def join_all(self) -> None:
        """Wait for the workers, and pass on a second signal: it ends their drain."""
        while any(worker.process.is_alive() for worker in self.processes):
            if self.signal_queue:
                self.signal_queue.clear()
                super().terminate_all()
            time.sleep(POLL_SECONDS)
