"""What gwctl stands on: HAProxy and Data Plane API of at least 3.4, which know headers from data."""

from __future__ import annotations

import re

from gwctl.dataplane.client import Client
from gwctl.dataplane.error import UnsupportedVersion

OLDEST = (3, 4)


async def require_supported(client: Client) -> None:
    """Raise `UnsupportedVersion` with one sentence that says what to do when either is too old."""
    api = await client.api_version()
    if parse_version(api) < OLDEST:
        raise UnsupportedVersion(f"the Data Plane API is {api}; gwctl needs 3.4 or newer: install its current release")
    haproxy = (await client.process()).version
    if parse_version(haproxy) < OLDEST:
        raise UnsupportedVersion(f"HAProxy is {haproxy}; gwctl needs 3.4 or newer: install its current release")


def parse_version(text: str) -> tuple[int, int]:
    """Take major and minor number from ``v3.4.2 dev`` or ``3.4.7-1``; (0, 0) where there are none."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
