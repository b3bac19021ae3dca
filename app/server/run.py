"""How uvicorn serves the application, and what it does not do by itself."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from typing import Any, Final

import uvicorn
from uvicorn.supervisors import Multiprocess, multiprocess

from app.observe.metrics import shared_folder
from app.server.protocol import Protocol

LET_IN_SECONDS: Final = 0.1  # after which whom the loop has accepted is a connection
GRACEFUL_SHUTDOWN: Final = 12  # seconds for requests in flight: a slow body has 10, and the rest is done within 20


def serve(host: str, port: int, workers: int, *, reload: bool, metrics: bool) -> None:
    """Serve until SIGTERM or SIGINT. `metrics`: whether several workers are to count together."""
    settings: dict[str, Any] = {
        "host": host,
        "port": port,
        "workers": workers,
        "http": Protocol,
        "ws": "none",
        "log_config": None,
        "log_level": "info",
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "timeout_graceful_shutdown": GRACEFUL_SHUTDOWN,
    }
    config = Config("app.main:app", **settings)
    if reload:
        uvicorn.run("app.main:app", reload=True, **settings)
    elif workers == 1:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # which uvicorn raises again when it has done
        with suppress(KeyboardInterrupt):
            Server(config).run()
    else:
        with shared_folder() if metrics else nullcontext():
            Workers(config, [config.bind_socket()]).run()


class Config(uvicorn.Config):
    """uvicorn's. A worker unpickles it, and so imports this module, which has it run the `Server` below."""


class Server(uvicorn.Server):
    """uvicorn's, that serves whoever had been let in when it was told to stop, by the kernel or by the loop.

    Who is refused tries elsewhere; who is cut off cannot tell whether the request was carried out, and may not.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in self._let_in_the_last(sockets or []):
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        await asyncio.sleep(LET_IN_SECONDS)
        await super().shutdown(sockets)

    def _let_in_the_last(self, sockets: Iterable[socket.socket]) -> list[socket.socket]:
        """Stop listening. The kernel resets the connections that nobody has accepted by then: accept them."""
        accepted: list[socket.socket] = []
        for server in self.servers:
            for listener in server.sockets:
                # OSError: nobody waits any more, or no more files may be opened.
                with suppress(OSError), socket.socket(fileno=os.dup(listener.fileno())) as waiting:
                    waiting.setblocking(False)
                    while True:
                        accepted.append(waiting.accept()[0])
            server.close()
        for listener in sockets:
            listener.close()
        return accepted

    def _protocol(self) -> Protocol:
        return Protocol(self.config, self.server_state, self.lifespan.state)


multiprocess.Server = Server  # type: ignore[attr-defined] # there is no other way to choose


class Workers(Multiprocess):
    """uvicorn's, that no longer listens once it is told to stop: who connects is refused, and tries elsewhere."""

    def terminate_all(self) -> None:
        for listener in self.sockets:
            listener.close()
        super().terminate_all()
