"""The log on standard error: a line of JSON for each message, or a line for people.

Both escape what is not printable, so that nothing that was sent can begin a line of its own.
"""

import json
import logging
import re
from datetime import UTC, datetime

from app.config import LogFormat

PLAIN = re.compile(r"[!#-<>-~]+")
MAX_SEGMENT = 40


class Line(dict[str, object]):
    """A message for `logging`: its text is JSON. It begins with a `time` and an `event`."""

    path = ""
    """The path that was sent, where no route matched. Only people see it, and only its first segment."""

    def __str__(self) -> str:
        return json.dumps(self)


class JSONFormatter(logging.Formatter):
    """Writes a `Line` as JSON, and the messages of others with `time`, `level`, `logger`, `message`, `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.msg, Line):
            return str(record.msg)
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage().rstrip(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class ConsoleFormatter(logging.Formatter):
    """Writes a `Line` as `time event name=value …`. The lines of a traceback are indented."""

    def format(self, record: logging.LogRecord) -> str:
        time = self.formatTime(record, "%H:%M:%S")
        if isinstance(record.msg, Line):
            _, (_, event), *facts = record.msg.items()
            if record.msg.path:
                segment = record.msg.path.lstrip("/").partition("/")[0]
                facts.append(("path", f"/{segment[:MAX_SEGMENT]}"))
            named = [f"{name}={_value(str(value))}" for name, value in facts if value not in {None, ""}]
            return " ".join([time, str(event), *named])
        message = f"{time} {record.levelname} {record.name}: {_printable(record.getMessage().rstrip())}"
        traceback = self.formatException(record.exc_info) if record.exc_info else ""
        return "\n    ".join([message, *map(_printable, traceback.splitlines())])


FORMATTERS: dict[LogFormat, type[logging.Formatter]] = {"json": JSONFormatter, "console": ConsoleFormatter}


def configure_logging(log_format: LogFormat) -> None:
    """Write the messages of the service and of uvicorn to standard error, but not uvicorn's lines with URLs.

    If the root logger has handlers, uvicorn's `--log-config` has configured it, and it stays so.
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


def _value(text: str) -> str:
    return text if PLAIN.fullmatch(text) else json.dumps(text)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
