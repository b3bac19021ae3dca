"""A command at a terminal, as a person runs it: what it prints there, and Ctrl-C."""

import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.processes import environment, kill

CTRL_C = b"\x03"
SECONDS = 60


class Terminal:
    """A screen and a keyboard. It gives up if nothing comes for a minute."""

    def __init__(self, process: "subprocess.Popen[bytes]", screen: int) -> None:
        self.process = process
        self.shown = ""
        self._screen = screen

    def read_until(self, text: str) -> None:
        while text not in self.shown:
            assert self._read(), f"{text!r} did not come: {self.shown[-2000:]}"

    def press(self, keys: bytes) -> None:
        os.write(self._screen, keys)

    def interrupt(self) -> int:
        """Press Ctrl-C, and read until the process and its children have ended; the exit code."""
        self.press(CTRL_C)
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
def at_terminal(*words: str, **settings: object) -> Iterator[Terminal]:
    """Run `python …` at a terminal of its own."""
    screen, keyboard = pty.openpty()
    take_terminal = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, "
        "[sys.executable, *sys.argv[1:]])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", take_terminal, *words],
        env=environment(**settings),
        stdin=keyboard,
        stdout=keyboard,
        stderr=keyboard,
        start_new_session=True,
    ) as process:
        os.close(keyboard)
        try:
            yield Terminal(process, screen)
        finally:
            kill(process)
            os.close(screen)
