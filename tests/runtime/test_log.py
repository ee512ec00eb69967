"""Log lines: one each, whatever is in them."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from gwctl.api.sensitive import Sensitive
from gwctl.runtime.log import JsonFormatter, TextFormatter, set_up_logging


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "gwctl.x", "levelname": "INFO", "msg": message, "created": 0.5})
    made.__dict__.update(fields)
    return made


def test_text() -> None:
    line = TextFormatter().format(
        record("applying plan", rows=3, plan='+ a "b"\n- c', empty="", secret=Sensitive("s3"))
    )
    assert line == (
        '1970-01-01T00:00:00.500Z INFO applying plan rows=3 plan="+ a \\"b\\"\\n- c" empty="" secret=[redacted]'
    )


def test_json() -> None:
    line = JsonFormatter().format(record("applying plan", rows=3, secret=Sensitive("s3")))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.500Z",
        "level": "info",
        "logger": "gwctl.x",
        "message": "applying plan",
        "rows": 3,
        "secret": "[redacted]",
    }


def test_levels_and_chatty_libraries(stream: io.StringIO) -> None:
    set_up_logging("info", "text", stream)
    logging.getLogger("gwctl.y").debug("hidden")
    logging.getLogger("httpx").info("hidden")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("gwctl.y").exception("failed")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert "ERROR failed exception=" in lines[0]
    assert "ValueError: broken" in lines[0]
