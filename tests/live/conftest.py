"""What live tests share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from gwctl.runtime.log import JsonFormatter, TextFormatter
from tests.secrecy import find_keys


@pytest.fixture
def no_key_in_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Assert that nothing that gwctl has logged in a test, at any level and in any form, holds a private key."""
    caplog.set_level(logging.DEBUG, "gwctl")
    yield
    records = [record for when in ("setup", "call") for record in caplog.get_records(when)]
    for formatter in (TextFormatter(), JsonFormatter()):
        assert find_keys(map(formatter.format, records)) == []
