"""Which Secrets and ConfigMaps must be known to serve the Gateways of our classes, existing or not."""

from __future__ import annotations

from gwctl.api.ref import Ref
from gwctl.graph.backendtls import find_config_maps
from gwctl.graph.certificateref import find_referents
from gwctl.snapshot import Snapshot

REFERRING = frozenset({"GatewayClass", "Gateway", "ListenerSet", "ReferenceGrant", "BackendTLSPolicy", "Namespace"})
"""The kinds that refer to them, or say whether that is allowed."""


def find_referenced(snapshot: Snapshot, controller_name: str) -> frozenset[Ref]:
    """Find what must be known. Of the snapshot only the kinds of `REFERRING` matter.

    Whether a policy is for a Service of ours is not asked: that would take all routes, and ConfigMaps are no secrets.
    """
    config_maps = frozenset(find_config_maps(snapshot.backend_tls_policies.values()))
    return find_referents(snapshot, controller_name) | config_maps
