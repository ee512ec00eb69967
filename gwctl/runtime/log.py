"""Log lines: a constant message and fields, as text or as JSON, one line each.

In: records whose ``extra`` are the fields. The surprising fact: nothing but messages and fields is ever
written, so what must stay secret only has to have a type that prints as ``[redacted]``.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TextIO

_RESERVED = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_BARE = re.compile(r"[!#-<>-~]+")
_CHATTY = ("httpx", "httpcore", "asyncio")


def set_up_logging(level: str, form: Literal["text", "json"], stream: TextIO | None = None) -> None:
    """Send all log records of ``level`` and above to a stream (standard error unless told)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123Z INFO reloading HAProxy reason="first start"``."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line of a record."""
        parts = [_time(record), record.levelname, record.getMessage()]
        parts += (f"{name}={_quote(value)}" for name, value in _fields(self, record).items())
        return " ".join(parts)


class JsonFormatter(logging.Formatter):
    """One JSON object for each record: ``time``, ``level``, ``logger``, ``message``, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line of a record."""
        head = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps({**_fields(self, record), **head}, default=str)


def _time(record: logging.LogRecord) -> str:
    time = datetime.fromtimestamp(record.created, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(formatter: logging.Formatter, record: logging.LogRecord) -> Mapping[str, object]:
    fields = {name: value for name, value in record.__dict__.items() if name not in _RESERVED}
    if record.exc_info:
        fields["exception"] = formatter.formatException(record.exc_info)
    return fields


def _quote(value: object) -> str:
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)
