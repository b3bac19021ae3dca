"""Run the service with uvicorn: as one process, as several workers, or restarted when the code changes."""

import asyncio
import os
import signal
import socket
import sys
from contextlib import nullcontext, suppress
from multiprocessing import get_context
from typing import Final

from uvicorn.supervisors import ChangeReload

from app.observe.metrics import shared_folder
from app.server.protocol import Protocol
from app.server.server import ChildProcess, Config, Server
from app.server.supervisor import Supervisor

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

    With `metrics`, several workers count together. One process takes SIGHUP for SIGTERM: it has no worker to replace.
    """
    os.environ.setdefault("OTEL_EXPORTER_OTLP_TIMEOUT", EXPORT_SECONDS)
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
        get_context("spawn").Process = ChildProcess  # type: ignore[misc] # uvicorn offers no other way to choose
        ChangeReload(config, Server(config).run, listeners).run()
    elif workers == 1:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # uvicorn raises SIGTERM again when it has shut down
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup ignores it
            signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
        with suppress(KeyboardInterrupt):
            Server(config).run(listeners)
    else:
        with shared_folder() if metrics else nullcontext():
            sys.exit(Supervisor(config, listeners, workers).run())
