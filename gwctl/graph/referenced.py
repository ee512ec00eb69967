"""Which Secrets and ConfigMaps must be known to serve the Gateways of our classes, existing or not.

In: a snapshot. Out: `Referents`. The surprising fact: whoever may write policies in a namespace may have us follow as
many ConfigMaps as they like, so of those only some are followed: each costs a connection to the API server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gwctl.api.backendtlspolicy import BackendTLSPolicy
from gwctl.api.ref import Ref
from gwctl.api.wire import is_subdomain
from gwctl.graph.backendtls import find_config_maps
from gwctl.graph.certificateref import find_referents
from gwctl.snapshot import Snapshot

REFERRING = frozenset({"GatewayClass", "Gateway", "ListenerSet", "ReferenceGrant", "BackendTLSPolicy", "Namespace"})
"""The kinds that refer to them, or say whether that is allowed."""

MOST_CONFIG_MAPS = 128
"""How many ConfigMaps are followed for the policies of one namespace."""


class Referents(NamedTuple):
    """What must be known; ``left_out``: how many ConfigMaps of a namespace are too many to be followed."""

    refs: frozenset[Ref]
    left_out: Mapping[str, int]


def find_referenced(snapshot: Snapshot, controller_name: str) -> Referents:
    """Find what must be known. Of the snapshot only the kinds of `REFERRING` matter.

    Whether a policy is for a Service of ours is not asked: that would take all routes, and ConfigMaps are no secrets.
    A name that no object can have is left out: nobody may put it into a question to the API server.
    """
    found = {ref for ref in find_referents(snapshot, controller_name) if is_subdomain(ref.name)}
    by_namespace: dict[str, list[BackendTLSPolicy]] = {}
    for policy in snapshot.backend_tls_policies.values():
        by_namespace.setdefault(policy.ref.namespace, []).append(policy)
    left_out: dict[str, int] = {}
    for namespace, policies in by_namespace.items():
        wanted = _config_maps(policies)
        if len(wanted) > MOST_CONFIG_MAPS:
            wanted = _config_maps(sorted(policies, key=lambda item: item.age))
        kept = wanted[:MOST_CONFIG_MAPS]
        found.update(kept)
        if others := set(wanted) - found:
            left_out[namespace] = len(others)
    return Referents(frozenset(found), left_out)


def _config_maps(policies: Iterable[BackendTLSPolicy]) -> list[Ref]:
    """Give what policies refer to and may exist, in their order, each once."""
    return list(dict.fromkeys(ref for ref in find_config_maps(policies) if is_subdomain(ref.name)))
