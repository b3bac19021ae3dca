"""Services forked from a process that has imported the application already: its imports are most of a start."""

import multiprocessing
import os
import runpy
import signal
import sys
import time
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from tempfile import mkstemp

import coverage

ROOT = Path(__file__).parents[2]
PRELOADED = ["alembic.command", "app.cli.serve", "app.db.postgresql", "app.main", "httptools", "uvicorn", "uvloop"]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOADED)


class Fork:
    """`python -m …` in a session of its own. Its output goes to files: to one of its own where none is given.

    A terminal for its standard input becomes its controlling terminal.
    """

    def __init__(
        self,
        *words: str,
        environ: dict[str, str],
        stdin: Path = Path(os.devnull),
        stdout: Path | None = None,
        stderr: Path | None = None,
    ):
        self._output: Path | None = None
        if stdout is None:
            descriptor, name = mkstemp()
            os.close(descriptor)
            stdout = self._output = Path(name)
        given = words, environ, Path.cwd(), (stdin, stdout, stderr or stdout)
        _start_server()
        self._process = _context.Process(target=_run, args=given, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise TimeoutError(f"process {self.pid} did not end in {timeout} seconds")
        return code

    def kill(self) -> None:
        """Kill it with its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()  # it may not have had a group yet
        self._process.join()

    def output(self) -> str:
        return self._output.read_text() if self._output else ""

    def close(self) -> None:
        """End it as a supervisor would."""
        try:
            self.terminate()
            self.wait(30)
        finally:
            self.kill()
            if self._output:
                self._output.unlink()


def _start_server() -> None:
    """It finds the project whatever the folder is."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _measure() -> coverage.Coverage | None:
    """Measure this process as coverage does each that is started."""
    if "COVERAGE_PROCESS_CONFIG" not in os.environ:
        return None
    return coverage.process_startup(force=True)


def _run(words: tuple[str, ...], environ: dict[str, str], folder: Path, streams: tuple[Path, Path, Path]) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    _open(*streams)
    multiprocessing.current_process().daemon = False  # or it could have no workers
    measurement = _measure()
    sys.argv = [words[0], *words[1:]]
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    finally:
        if measurement:
            measurement.stop()
            measurement.save()


def _open(stdin: Path, stdout: Path, stderr: Path) -> None:
    os.dup2(os.open(stdin, os.O_RDONLY), 0)
    for path, descriptor in (stdout, 1), (stderr, 2):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), descriptor)
    sys.stdin = os.fdopen(0)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1) for descriptor in (1, 2))
