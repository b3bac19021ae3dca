"""Workers of an application that starts quickly, and answers with the number of its process."""

import asyncio
import logging
import os
import sys
from typing import Any

from app.server.protocol import Protocol
from app.server.server import Config
from app.server.supervisor import Supervisor

EXIT = "TINY_EXIT"
"""The variable that makes a worker end with this exit code before it serves."""


async def answer(scope: Any, _: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def __getattr__(name: str) -> Any:
    if name == "app":
        if EXIT in os.environ:
            sys.exit(int(os.environ[EXIT]))
        logging.basicConfig(level=logging.INFO)
        return answer
    raise AttributeError(name)


def make_config() -> Config:
    return Config("tests.support.tiny:app", http=Protocol, ws="none", lifespan="off", log_config=None, log_level="info")


if __name__ == "__main__":  # the imports of workers are quicker without these
    from app.server import run

    logging.basicConfig(level=logging.INFO)
    listeners = asyncio.run(run.bind("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
    sys.exit(Supervisor(make_config(), listeners, 2).run())
