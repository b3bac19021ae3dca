"""What a process writes to standard error: a line each, of JSON for machines, or for people.

What is not printable is escaped in both, so that nobody's words can begin a line of their own.
"""

import json
import logging
import re
from datetime import UTC, datetime

from app.config import LogFormat

PLAIN = re.compile(r"[!#-<>-~]+")


class Line(dict[str, object]):
    """What happened, as a message for `logging`: its text is JSON. It has a `time` and an `event`."""

    def __str__(self) -> str:
        return json.dumps(self)


class JSONFormatter(logging.Formatter):
    """Lines as they are; of what others log, the same: `time`, `level`, `logger`, `message`, `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.msg, Line):
            return str(record.msg)
        said = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage().rstrip(),
        }
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said)


class ConsoleFormatter(logging.Formatter):
    """Lines as `time event name=value …`; the lines of a traceback are indented."""

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.msg, Line):
            time, event, *facts = record.msg.items()
            named = [f"{name}={_value(str(value))}" for name, value in facts if value not in {None, ""}]
            return " ".join([str(time[1]), str(event[1]), *named])
        message = f"{_time(record)} {record.levelname} {record.name}: {_printable(record.getMessage().rstrip())}"
        traceback = self.formatException(record.exc_info) if record.exc_info else ""
        return "\n    ".join([message, *map(_printable, traceback.splitlines())])


FORMATTERS: dict[LogFormat, type[logging.Formatter]] = {"json": JSONFormatter, "console": ConsoleFormatter}


def configure_logging(log_format: LogFormat) -> None:
    """Write to standard error what the service logs, and uvicorn in the same way, less the URLs that it would.

    Where the root logger has handlers, by uvicorn's `--log-config`, it is somebody else's to say.
    """
    logging.getLogger("app").setLevel(logging.INFO)
    if logging.getLogger().handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATTERS[log_format]())
    logging.getLogger().addHandler(handler)
    for uvicorn in logging.getLogger("uvicorn"), logging.getLogger("uvicorn.access"):
        uvicorn.handlers.clear()
    logging.getLogger("uvicorn").propagate = True


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat()


def _value(text: str) -> str:
    return text if PLAIN.fullmatch(text) else json.dumps(text)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
