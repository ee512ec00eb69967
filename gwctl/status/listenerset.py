"""ListenerSets and their listeners: let in by their Gateway, accepted, and served by HAProxy.

In: an Outcome. Out: the statuses that may have changed. The surprising fact: a ListenerSet whose Gateway is gone is
told so once, by who knew it as ours; for others it belongs to nobody, as any whose Gateway never was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from gwctl.api.ref import Ref
from gwctl.graph.node import GatewayNode, ListenerKey, ListenerNode, ListenerSetNode, Problem
from gwctl.status.condition import Condition, judge, select, with_notes
from gwctl.status.gateway import (
    UNKNOWN_ADDRESSES,
    Declared,
    build_listeners,
    declared_by,
    find_refusal,
    find_waiting,
    is_same,
    name_listeners,
    served_by,
    sources_of,
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
        if node.listener_sets and (before is None or _sources(before, node) != _sources(outcome, node)):
            yield from _build_sets(outcome, node)


def _sources(outcome: Outcome, gateway: GatewayNode) -> tuple[object, ...]:
    stale = tuple(outcome.stale.get(node.ref) for node in gateway.listener_sets) if outcome.stale else ()
    return (*sources_of(outcome, gateway.ref), stale)


def _build_sets(outcome: Outcome, node: GatewayNode) -> Iterator[tuple[Ref, Status]]:
    applied = outcome.applied.gateways.get(node.ref) if outcome.applied is not None else None
    served, declared = served_by(applied), declared_by(node)
    for listener_set in node.listener_sets:
        yield listener_set.ref, _build_set(outcome, listener_set, declared[listener_set.ref], served)


def _build_orphan(node: ListenerSetNode) -> Status:
    accepted = judge("Accepted", select(node.problems, "Accepted"), "")
    return Status(
        node.resource.metadata.uid, node.resource.metadata.generation, (accepted, replace(accepted, type="Programmed"))
    )


def _build_set(
    outcome: Outcome, node: ListenerSetNode, declared: Declared, served: Mapping[ListenerKey, ListenerNode]
) -> Status:
    accepted = _accept(node, declared, outcome.stale_problems(node.ref))
    programmed = _program(outcome, node, declared, served, accepted)
    listeners = build_listeners(outcome, declared, served, accepted.message if node.problems else "")
    metadata = node.resource.metadata
    generation = outcome.generation(node.ref, metadata.generation)
    return Status(metadata.uid, generation, (accepted, programmed), listeners=listeners)


def _accept(node: ListenerSetNode, declared: Declared, stale: Sequence[Problem]) -> Condition:
    """Judge a ListenerSet. Without any listener that can be served it is not accepted (ListenersNotValid)."""
    if node.problems:
        return judge("Accepted", select(node.problems, "Accepted"), "")
    standing = {listener.key for listener in declared.standing()}
    if not standing:
        message = name_listeners("no listener can be served: see ", declared.listeners)
        return Condition("Accepted", "False", "ListenersNotValid", message)
    message = with_notes("the ListenerSet is accepted", stale)
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
        return replace(accepted, type="Programmed")
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
