"""ListenerSets and their listeners: let in by their Gateway, accepted, and served by HAProxy.

In: an Outcome. Out: the statuses that may have changed. The surprising fact: a ListenerSet whose Gateway is gone is
told so once, by who knew it as ours; for others it belongs to nobody, as any whose Gateway never was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from gwctl.api.ref import Ref
from gwctl.graph.node import GatewayNode, ListenerKey, ListenerNode, ListenerSetNode, Problem
from gwctl.status.condition import Condition, about, judge, select, with_notes
from gwctl.status.gateway import (
    UNKNOWN_ADDRESSES,
    Declared,
    build_listeners,
    declared_by,
    find_refusal,
    find_waiting,
    is_same,
    listeners_about,
    name_listeners,
)
from gwctl.status.outcome import Outcome
from gwctl.status.status import Status


def build_listener_sets(outcome: Outcome, before: Outcome | None) -> Iterator[tuple[Ref, Status | None]]:
    """The status of every ListenerSet that may have changed; None for one that is no longer ours."""
    graph = outcome.graph
    if before is not None:
        for ref in before.graph.listener_sets.keys() - graph.listener_sets.keys():
            orphan = graph.orphans.get(ref)
            yield ref, _build_orphan(orphan) if orphan is not None else None
        for ref in before.graph.orphans.keys() - graph.orphans.keys() - graph.listener_sets.keys():
            yield ref, None
    for node in graph.gateways.values():
        if node.listener_sets:
            affected = _find_affected(outcome, before, node)
            if affected is None or affected:
                yield from _build_sets(outcome, node, affected)


def _find_affected(outcome: Outcome, before: Outcome | None, node: GatewayNode) -> frozenset[str] | None:
    """Find the ListenerSets of a Gateway whose statuses may have changed; None for all.

    A route that comes or goes makes another node of each listener that counts it, and leaves all others as they are.
    """
    old = before.graph.gateways.get(node.ref) if before is not None else None
    if (
        before is None
        or old is None
        or old.listener_sets is not node.listener_sets
        or old.problems is not node.problems
    ):
        return None
    refs = [item.ref for item in node.listener_sets] if outcome.stale or before.stale else []
    if any(outcome.stale.get(ref) != before.stale.get(ref) for ref in refs):
        return None
    served, was_served = _applied(outcome, node.ref), _applied(before, node.ref)
    is_same_size = len(node.listeners) == len(old.listeners) and len(served) == len(was_served)
    if not is_same_size or outcome.addresses.get(node.ref) != before.addresses.get(node.ref):
        return None
    pairs = (*zip(node.listeners, old.listeners, strict=True), *zip(served, was_served, strict=True))
    changed = {key for now, was in pairs if now is not was for key in (now.key, was.key)}
    changed |= {key for key, _ in outcome.refused.items() ^ before.refused.items()}
    return frozenset(key.listener_set for key in changed)


def _applied(outcome: Outcome, gateway: Ref) -> tuple[ListenerNode, ...]:
    node = outcome.applied.gateways.get(gateway) if outcome.applied is not None else None
    return node.listeners if node is not None else ()


def _build_sets(outcome: Outcome, node: GatewayNode, affected: frozenset[str] | None) -> Iterator[tuple[Ref, Status]]:
    served = {listener.key: listener for listener in _applied(outcome, node.ref)}
    declared = declared_by(node)
    for item in node.listener_sets:
        if affected is None or f"{item.ref.namespace}/{item.ref.name}" in affected:
            yield item.ref, _build_set(outcome, item, declared[item.ref], served)


def _build_orphan(node: ListenerSetNode) -> Status:
    accepted = judge("Accepted", select(node.problems, "Accepted"), "")
    return Status(node.resource.metadata.uid, node.resource.metadata.generation, (accepted, _follow(accepted)))


def _follow(accepted: Condition) -> Condition:
    """Give ``Programmed`` where a ListenerSet is not accepted: for the same reason."""
    reason = "ParentNotProgrammed" if accepted.reason == "ParentNotAccepted" else accepted.reason
    return replace(accepted, type="Programmed", reason=reason)


def _build_set(
    outcome: Outcome, node: ListenerSetNode, declared: Declared, served: Mapping[ListenerKey, ListenerNode]
) -> Status:
    accepted = _accept(node, declared, outcome.stale_problems(node.ref))
    programmed = _program(outcome, node, declared, served, accepted)
    listeners = build_listeners(outcome, declared, served, accepted.message if node.problems else "")
    metadata = node.resource.metadata
    earlier = outcome.earlier(node.ref, metadata.generation)
    return Status(
        metadata.uid,
        outcome.generation(node.ref, metadata.generation),
        (accepted, *about((programmed,), earlier)),
        listeners=listeners_about(listeners, earlier),
    )


def _accept(node: ListenerSetNode, declared: Declared, stale: Sequence[Problem]) -> Condition:
    """Judge a ListenerSet. Without any listener that can be served it is not accepted (ListenersNotValid)."""
    if node.problems:
        return judge("Accepted", select(node.problems, "Accepted"), "")
    standing = {listener.key for listener in declared.standing()}
    if not standing:
        message = name_listeners("no listener can be served: see ", declared.listeners)
        return Condition("Accepted", "False", "ListenersNotValid", message)
    message = with_notes("the ListenerSet is accepted", [*stale, *declared.of_itself()])
    refused = [listener for listener in declared.listeners if listener.key not in standing]
    if refused:
        return Condition("Accepted", "True", "ListenersNotValid", name_listeners(f"{message}, without ", refused))
    return Condition("Accepted", "True", "Accepted", message)


def _program(
    outcome: Outcome,
    node: ListenerSetNode,
    declared: Declared,
    served: Mapping[ListenerKey, ListenerNode],
    accepted: Condition,
) -> Condition:
    if accepted.status == "False":
        return _follow(accepted)
    if refusal := find_refusal(outcome, declared.listeners):
        return refusal
    if waiting := find_waiting(declared.listeners):
        return waiting
    if not all(is_same(listener, served.get(listener.key)) for listener in declared.listeners):
        return Condition("Programmed", "False", "Pending", "HAProxy does not serve this generation yet")
    addresses = outcome.addresses.get(node.gateway, UNKNOWN_ADDRESSES)
    if addresses.reason or not addresses.addresses:
        message = f"{node.gateway}: {addresses.message or 'the Gateway has no address yet'}"
        return Condition("Programmed", "False", "ParentNotProgrammed", message)
    return Condition("Programmed", "True", "Programmed", "HAProxy serves the listeners of the ListenerSet")
