"""Rows of filters: what HAProxy gets for what a rule says."""

from __future__ import annotations

import pytest

from gwctl.haproxy.names import Table
from gwctl.haproxy.table import NO_LIMIT
from tests.manifests import Manifest, backend, gateway, gateway_class, http_route, listener, service
from tests.pipeline import build_pipeline


def filters_row(**fields: object) -> str:
    """Give the row in ``filters`` of a rule's; the rule must be one with filters."""
    rule: Manifest = {"backendRefs": [backend("web")], **fields}
    base = [gateway_class(), gateway([listener("http", 80)]), service("web")]
    pipeline = build_pipeline([*base, http_route("r", [rule])])
    assert pipeline.problems == ()
    (row,) = pipeline.tables.rows[Table.FILTERS].values()
    return row


@pytest.mark.parametrize(
    ("timeouts", "field"),
    [
        ({"request": "500ms"}, "500:71"),
        ({"request": "3ms"}, "3:1"),
        ({"request": "13s"}, "13000:1857"),
        ({"request": "14s"}, "14000"),
        ({"backendRequest": "1m30s"}, "90000"),
        ({"request": "10s", "backendRequest": "2s"}, "2000:1428"),
        ({"request": "10s", "backendRequest": "0s"}, "10000:1428"),
        ({"request": "0s", "backendRequest": "5s"}, "5000"),
        ({"request": "0s"}, str(NO_LIMIT)),
        ({"backendRequest": "99999h"}, str(NO_LIMIT)),
    ],
)
def test_timeouts(timeouts: dict[str, str], field: str) -> None:
    assert filters_row(timeouts=timeouts) == f"|||{field}"


@pytest.mark.parametrize(
    ("retry", "timeouts", "field"),
    [
        ({}, {}, "1:0::"),
        ({"attempts": 3, "codes": [503, 500]}, {}, "3:0::500+503"),
        ({"attempts": 100, "backoff": "2s"}, {"request": "10s"}, "100:2000:10000:"),
        ({"codes": [599]}, {"backendRequest": "1s"}, "1:0::599"),
    ],
)
def test_retry(retry: dict[str, object], timeouts: dict[str, str], field: str) -> None:
    assert filters_row(retry=retry, timeouts=timeouts).rpartition("|")[2] == field
