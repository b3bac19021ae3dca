"""A worker: one of several processes that serve the same port. `Worker` is what the first process knows of it."""

import asyncio
import os
import signal
import socket
from contextlib import ExitStack, suppress
from typing import Final

from app.server.server import ChildProcess, Config, Server

BEAT_SECONDS: Final = 1
MAX_SILENCE: Final = 60  # seconds between two beats
MAX_START: Final = 300  # seconds to the first beat: on a busy host the imports alone may take minutes


class WorkerServer(Server):
    """The server of a worker. Its event loop sends a beat each second. When the link is shut it stops without drain."""

    def __init__(self, config: Config, link: socket.socket) -> None:
        super().__init__(config)
        self._link = link
        link.setblocking(False)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(self._link, self._stop)
        self._beat()

    def _beat(self) -> None:
        with suppress(OSError):  # the first process has ended, or does not read
            self._link.send(b".")
        asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def _stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._link)
        self.should_exit = True


def work(config: Config, listeners: list[socket.socket], link: socket.socket) -> None:
    """Serve, in a child process. Only the first process tells systemd, and SIGHUP is for that one."""
    os.environ.pop("NOTIFY_SOCKET", None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    config.configure_logging()
    with suppress(KeyboardInterrupt):  # uvicorn raises SIGINT again when it has shut down
        WorkerServer(config, link).run(listeners)


class Worker:
    """A process that serves once it has sent a beat. Raises OSError if the machine can start none."""

    is_serving = False
    is_leaving = False
    _reason = ""
    _silence = 0.0

    def __init__(self, config: Config, listeners: list[socket.socket], generation: int, now: float) -> None:
        self.generation = generation
        self.started = now
        self._link, theirs = socket.socketpair()
        self._link.setblocking(False)
        self._process = ChildProcess(target=work, args=(config, listeners, theirs))
        with theirs, ExitStack() as undo:
            undo.enter_context(self._link)
            self._process.start()
            undo.pop_all()

    @property
    def has_ended(self) -> bool:
        return self._process.exitcode is not None

    @property
    def exit_code(self) -> int:
        """Minus the number of the signal that killed it, if one did."""
        return self._process.exitcode or 0

    def fate(self) -> str:
        """Say how it ended."""
        code = self.exit_code
        if code >= 0:
            return f"worker {self._process.pid} ended with exit code {code}"
        name = signal.Signals(-code).name if -code in list(signal.Signals) else signal.strsignal(-code)
        reason = self._reason or (": perhaps memory ran out" if code == -signal.SIGKILL else "")
        return f"worker {self._process.pid} was killed by signal {-code} ({name}){reason}"

    def hear(self, seconds: float) -> None:
        """Read the beats of the last seconds, and kill it if it has been silent for too long."""
        self._silence += seconds
        with suppress(OSError):  # there is none
            if self._link.recv(4096):
                self.is_serving, self._silence = True, 0.0
        patience = MAX_SILENCE if self.is_serving else MAX_START
        if self._silence > patience:
            self._reason = f": nothing was heard of it for {patience} seconds"
            self._process.kill()

    def terminate(self) -> None:
        """Tell it to drain and stop. A worker that does not serve yet ends at once."""
        self.is_leaving = True
        self._process.terminate()

    def leave(self) -> None:
        """Tell it to stop without a drain."""
        with suppress(OSError):  # it has ended
            self._link.shutdown(socket.SHUT_WR)
        if self.is_serving:
            self.is_leaving = True
        else:
            self.terminate()

    def close(self) -> None:
        self._link.close()
        self._process.close()
