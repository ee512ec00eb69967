"""ListenerSets: which of them a Gateway lets in, and which belong to nobody.

In: Gateways, ListenerSets and the labels of namespaces. The surprising fact: by default a Gateway lets in none, not
even those of its own namespace.
"""

from __future__ import annotations

from collections.abc import Iterator

from gwctl.api.gateway import Gateway
from gwctl.api.listenerset import ListenerSet
from gwctl.api.ref import Ref
from gwctl.graph import problem
from gwctl.graph.listener import selector_fits
from gwctl.graph.node import ListenerSetNode
from gwctl.snapshot import Snapshot


def lets_in(gateway: Gateway, listener_set: ListenerSet, snapshot: Snapshot) -> bool:
    """Tell whether a Gateway takes listeners from a ListenerSet that names it (Gateway.spec.allowedListeners)."""
    allowed = gateway.spec.allowed_listeners
    if allowed is None:
        return False
    match allowed.namespaces.from_:
        case "All":
            return True
        case "Same":
            return listener_set.ref.namespace == gateway.ref.namespace
        case "Selector":
            labels = snapshot.namespace_labels(listener_set.ref.namespace)
            return selector_fits(allowed.namespaces.selector, labels)
        case "None":
            return False


def find_orphans(snapshot: Snapshot) -> dict[Ref, ListenerSetNode]:
    """Find the ListenerSets whose Gateway does not exist. Nobody knows whose they would be."""
    return {node.ref: node for node in _orphans(snapshot)}


def _orphans(snapshot: Snapshot) -> Iterator[ListenerSetNode]:
    for ref, listener_set in snapshot.listener_sets.items():
        parent = listener_set.parent
        if parent is not None and parent not in snapshot.gateways:
            missing = problem.parent_not_accepted(ref, f"there is no {parent}")
            yield ListenerSetNode(ref, listener_set, parent, attached=False, problems=(missing,))
