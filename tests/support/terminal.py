"""A command at a terminal, as a person runs it: what it prints there, and Ctrl-C."""

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.support.forks import Fork
from tests.support.processes import environment, kill, wait_for

CTRL_C = b"\x03"
SECONDS = 60
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Terminal:
    """A screen and a keyboard. It gives up if nothing comes for a minute."""

    def __init__(self, process: "subprocess.Popen[bytes] | Fork", screen: int) -> None:
        self.process = process
        self.shown = ""
        self._screen = screen

    def read_until(self, text: str) -> None:
        while text not in self.shown:
            assert self._read(), f"{text!r} did not come: {self.shown[-2000:]}"

    def press(self, keys: bytes) -> None:
        os.write(self._screen, keys)

    def interrupt(self) -> int:
        """Press Ctrl-C, and wait for the end; the exit code."""
        self.press(CTRL_C)
        return self.end()

    def terminate(self) -> int:
        """End it as a supervisor would; the exit code."""
        os.kill(self.process.pid, signal.SIGTERM)
        return self.end()

    def end(self) -> int:
        """Read until the process and its children have ended; the exit code."""
        while self._read():
            pass
        return self.process.wait(SECONDS)

    def _read(self) -> bool:
        data = b""
        assert select.select([self._screen], [], [], SECONDS)[0], f"nothing more came: {self.shown[-2000:]}"
        with suppress(OSError):  # EIO: every process that had the terminal has ended
            data = os.read(self._screen, 1 << 16)
        self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


@contextmanager
def at_terminal(*words: str, options: Sequence[str] = (), **settings: object) -> Iterator[Terminal]:
    """Run `python -m …` at a terminal of its own: as a fork, or as a new process if Python gets options."""
    screen, keyboard = pty.openpty()
    name, environ = Path(os.ttyname(keyboard)), environment(**settings)
    with ExitStack() as stack:
        stack.callback(os.close, screen)
        process: Fork | subprocess.Popen[bytes]
        if options:
            started = subprocess.Popen(
                [sys.executable, "-c", TAKE_TERMINAL, *options, "-m", *words],
                env=environ,
                stdin=keyboard,
                stdout=keyboard,
                stderr=keyboard,
                start_new_session=True,
            )
            process = stack.enter_context(started)
            stack.callback(kill, started)
        else:
            process = fork = Fork(*words, environ=environ, stdin=name, stdout=name)
            stack.callback(fork.kill)
            wait_for(lambda: Path(f"/proc/{fork.pid}/fd/0").readlink() == name)
        os.close(keyboard)
        yield Terminal(process, screen)
