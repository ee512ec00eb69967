"""Which Secrets and ConfigMaps must be known to serve the Gateways of our classes, existing or not."""

from __future__ import annotations

from gwctl.api.ref import Ref
from gwctl.api.wire import is_subdomain
from gwctl.graph.backendtls import find_config_maps
from gwctl.graph.certificateref import find_referents
from gwctl.snapshot import Snapshot

REFERRING = frozenset({"GatewayClass", "Gateway", "ListenerSet", "ReferenceGrant", "BackendTLSPolicy", "Namespace"})
"""The kinds that refer to them, or say whether that is allowed."""


def find_referenced(snapshot: Snapshot, controller_name: str) -> frozenset[Ref]:
    """Find what must be known. Of the snapshot only the kinds of `REFERRING` matter.

    Whether a policy is for a Service of ours is not asked: that would take all routes, and ConfigMaps are no secrets.
    A name that no object can have is left out: nobody may put it into a question to the API server.
    """
    config_maps = frozenset(find_config_maps(snapshot.backend_tls_policies.values()))
    found = find_referents(snapshot, controller_name) | config_maps
    return frozenset(ref for ref in found if is_subdomain(ref.name))
