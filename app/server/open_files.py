"""How many files this process may have open: each connection is one."""

import logging
import sys
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


def limit() -> int:
    try:
        resource = import_module("resource")
    except ImportError:
        return sys.maxsize
    soft: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


class Warner:
    """Warns when connections run out, at most once a minute.

    The event loop closes the connections beyond the limit, and says nothing. A process gets the lowest number that is
    free, so that a new connection with one of the last numbers means that there are hardly any more.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def see(self, number: int, now: float) -> None:
        """See the number of a new connection's file."""
        most = limit()
        if number >= most - RESERVE and now >= self._next:
            self._next = now + WARNING_SECONDS
            logger.warning("connections run out: this process may open %d files, see LimitNOFILE or ulimit -n", most)
