"""The time between SIGTERM and the stop, in which load balancers learn that they must ask another process."""

import asyncio
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import current_process
from types import FrameType

from app.server.server import ChildProcess

logger = logging.getLogger(__name__)


class Drain:
    """Delays SIGTERM for the server. Until the stop `/health/ready` answers 503, and every other request is served."""

    has_begun = False

    @contextmanager
    def before_stop(self, seconds: int) -> Iterator[None]:
        """Stand between SIGTERM and the server, whose handler is there when the application starts.

        The second SIGTERM reaches the server at once, and so does Ctrl-C. A worker takes no second one: where SIGTERM
        goes to all processes of the service, as systemd does by default, the first process sends it another.
        """
        stop = signal.getsignal(signal.SIGTERM)
        if not seconds or threading.current_thread() is not threading.main_thread() or not callable(stop):
            yield
            return
        loop = asyncio.get_running_loop()
        is_worker = isinstance(current_process(), ChildProcess)

        def handle(number: int, frame: FrameType | None) -> None:
            if not self.has_begun:
                self.has_begun = True
                loop.call_soon_threadsafe(begin, number, frame)  # a handler must not write to the log
            elif not is_worker:
                stop(number, frame)

        def begin(number: int, frame: FrameType | None) -> None:
            logger.info("SIGTERM: /health/ready answers 503, and the service stops in %d seconds", seconds)
            loop.call_later(seconds, stop, number, frame)

        signal.signal(signal.SIGTERM, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, stop)
