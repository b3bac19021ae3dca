"""Tell systemd what the service does: sd_notify(3)."""

import os
import re
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Send a state, such as `READY=1`. Only a unit of `Type=notify` has the socket to send it to."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode(), re.sub("^@", "\0", path))
