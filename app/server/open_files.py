"""The number of files that this process may have open. Each connection is one."""

import logging
from contextlib import suppress
from importlib import import_module
from typing import Final

RESERVE: Final = 16
WARNING_SECONDS: Final = 60

logger = logging.getLogger(__name__)


def raise_limit() -> None:
    """Raise the soft limit to the hard one. Shells and systemd start a process with 1,024."""
    with suppress(ImportError, OSError, ValueError):  # Windows has no such limit, and macOS refuses some
        resource = import_module("resource")
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Warner:
    """Warns when connections run out, at most once a minute.

    The event loop closes connections beyond the limit, and logs nothing. A new file gets the lowest free number, so a
    connection with one of the last numbers means that almost all are taken.
    """

    _next = 0.0

    def see(self, number: int, now: float) -> None:
        """Look at the file number of a new connection."""
        resource = import_module("resource")
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if now >= self._next and most - RESERVE <= number < most:  # no limit is -1
            self._next = now + WARNING_SECONDS
            logger.warning("connections run out: the limit is %d open files; raise LimitNOFILE or ulimit -n", most)
