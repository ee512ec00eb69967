"""Which Secrets and ConfigMaps must be known to serve the Gateways of our classes, existing or not."""

from __future__ import annotations

from gwctl.api.ref import Ref
from gwctl.graph.certificateref import find_secrets
from gwctl.snapshot import Snapshot

REFERRING = frozenset({"GatewayClass", "Gateway", "ReferenceGrant"})
"""The kinds that refer to them, or say whether that is allowed."""


def find_referenced(snapshot: Snapshot, controller_name: str) -> frozenset[Ref]:
    """Find what must be known. Of the snapshot only the kinds of `REFERRING` matter."""
    return find_secrets(snapshot, controller_name)
