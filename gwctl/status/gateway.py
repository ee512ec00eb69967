"""Gateways and their listeners: accepted, served by HAProxy, reachable, and by how many routes used.

In: an Outcome. Out: the statuses that may have changed. The surprising fact: a listener that HAProxy serves may be
programmed while its Gateway is not, as when an address is missing; but no Gateway is programmed before HAProxy was read
back to have all its accepted listeners.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from gwctl.api.ref import Ref
from gwctl.graph.node import GatewayNode, ListenerNode, Problem
from gwctl.status.condition import Condition, join, judge, other, select, warn, with_notes
from gwctl.status.outcome import GatewayAddresses, Outcome
from gwctl.status.status import ListenerStatus, Status

GATEWAY_WARNINGS = ("InsecureFrontendValidationMode",)
LISTENER_WARNINGS = ("Conflicted", "OverlappingTLSConfig")
"""Conditions that are true when something is to be said, and are not there otherwise."""

_GATEWAY_CONDITIONS = frozenset({"Accepted", "ResolvedRefs", *GATEWAY_WARNINGS})
_UNKNOWN = GatewayAddresses((), "Pending", "the Gateway has no address yet")


def build_gateways(outcome: Outcome, before: Outcome | None) -> Iterator[tuple[Ref, Status | None]]:
    """The status of every Gateway that may have changed; None for one that is no longer ours."""
    graph = outcome.graph
    for ref in before.graph.gateways.keys() - graph.gateways.keys() if before is not None else ():
        yield ref, None
    for ref, node in graph.gateways.items():
        if before is None or _sources(before, ref) != _sources(outcome, ref):
            yield ref, _build_gateway(outcome, node)


def _sources(outcome: Outcome, ref: Ref) -> tuple[object, ...]:
    """All that the status of a Gateway is made of; graphs are compared by the identity of their nodes."""
    node = outcome.graph.gateways.get(ref)
    applied = outcome.applied.gateways.get(ref) if outcome.applied is not None else None
    keys = (listener.key for listener in node.listeners) if node is not None and outcome.refused else ()
    refused = tuple(outcome.refused.get(key) for key in keys)
    return (id(node), id(applied), refused, outcome.addresses.get(ref), outcome.stale.get(ref))


def _build_gateway(outcome: Outcome, node: GatewayNode) -> Status:
    applied = outcome.applied.gateways.get(node.ref) if outcome.applied is not None else None
    addresses = outcome.addresses.get(node.ref, _UNKNOWN)
    own = [*outcome.stale_problems(node.ref), *(problem for problem in node.problems if problem.listener is None)]
    by_listener: dict[str, list[Problem]] = {}
    for problem in node.problems:
        if problem.listener is not None:
            by_listener.setdefault(problem.listener, []).append(problem)
    served = {item.key: item for item in applied.listeners} if applied is not None else {}
    listeners = tuple(
        _build_listener(
            listener,
            by_listener.get(listener.key.listener, []),
            gateway_stands=not _is_wrong(own),
            is_served=_is_same(listener, served.get(listener.key)),
            refusal=outcome.refused.get(listener.key),
        )
        for listener in node.listeners
    )
    conditions = (
        _accept(node, own),
        _program(outcome, node, applied, addresses),
        _resolve(own, listeners),
        *(item for kind in GATEWAY_WARNINGS for item in warn(kind, select(own, kind))),
    )
    metadata = node.resource.metadata
    return Status(
        metadata.uid,
        outcome.generation(node.ref, metadata.generation),
        conditions=conditions,
        addresses=addresses.addresses,
        listeners=listeners,
    )


def _is_wrong(own: Sequence[Problem]) -> bool:
    """Whether the Gateway itself keeps its listeners from being accepted."""
    return any(problem.condition == "Accepted" and problem.reason != "ListenersNotValid" for problem in own)


def _is_same(listener: ListenerNode, served: ListenerNode | None) -> bool:
    """Whether a listener is the one that is served, whatever routes are at it."""
    return served is not None and replace(served, attached_routes=listener.attached_routes) == listener


def _accept(node: GatewayNode, own: Sequence[Problem]) -> Condition:
    message = with_notes("the Gateway is accepted", other(own, _GATEWAY_CONDITIONS))
    condition = judge("Accepted", select(own, "Accepted"), message)
    wrong = {problem.listener for problem in select(node.problems, "Accepted")}
    refused = [item.key.listener for item in node.listeners if not item.accepted or item.key.listener in wrong]
    if condition.status == "True" and refused:
        return replace(condition, reason="ListenersNotValid", message=_name(f"{message}, without ", refused))
    return condition


def _program(
    outcome: Outcome, node: GatewayNode, applied: GatewayNode | None, addresses: GatewayAddresses
) -> Condition:
    if not node.accepted:
        return Condition("Programmed", "False", "Invalid", "the Gateway is not accepted")
    refused = [
        f"listener {listener.key.listener}: {outcome.refused[listener.key]}"
        for listener in node.listeners
        if listener.key in outcome.refused
    ]
    if refused:
        return Condition("Programmed", "False", "Invalid", join(refused, "HAProxy did not take "))
    hindered = {problem.listener for problem in select(node.problems, "Programmed", "Accepted")}
    if all(listener.key.listener in hindered for listener in node.listeners if listener.accepted):
        return Condition("Programmed", "False", "Invalid", _name("see ", sorted(filter(None, hindered))))
    if addresses.reason:
        return Condition("Programmed", "False", addresses.reason, addresses.message)
    waiting = [listener.key.listener for listener in node.listeners if listener.accepted and listener.slot == 0]
    if waiting:
        return Condition("Programmed", "False", "Pending", _name("no listener slot leads yet to ", waiting))
    if applied is None or not _is_applied(node, applied):
        return Condition("Programmed", "False", "Pending", "HAProxy does not serve this generation yet")
    if not addresses.addresses:
        return Condition("Programmed", "False", "AddressNotAssigned", "the Gateway has no address yet")
    return Condition("Programmed", "True", "Programmed", "HAProxy serves the Gateway")


def _is_applied(node: GatewayNode, applied: GatewayNode) -> bool:
    return (
        applied.resource.metadata.generation == node.resource.metadata.generation
        and len(applied.listeners) == len(node.listeners)
        and all(map(_is_same, node.listeners, applied.listeners))
    )


def _resolve(own: Sequence[Problem], listeners: Sequence[ListenerStatus]) -> Condition:
    problems = select(own, "ResolvedRefs")
    broken = [
        listener.name
        for listener in listeners
        if any(item.type == "ResolvedRefs" and item.status == "False" for item in listener.conditions)
    ]
    if broken and not problems:
        return Condition("ResolvedRefs", "False", "ListenersNotResolved", _name("see ", broken))
    return judge("ResolvedRefs", problems, "all references are resolved")


def _name(prefix: str, listeners: Sequence[str]) -> str:
    word = "listener" if len(listeners) == 1 else "listeners"
    return join([f"{word} {', '.join(listeners)}"], prefix)


def _build_listener(
    listener: ListenerNode,
    problems: Sequence[Problem],
    *,
    gateway_stands: bool,
    is_served: bool,
    refusal: str | None,
) -> ListenerStatus:
    accepted = judge("Accepted", select(problems, "Accepted", "Conflicted"), "the listener is accepted")
    if not gateway_stands:
        programmed = Condition("Programmed", "False", "Invalid", "the Gateway is not accepted")
    elif not listener.accepted or select(problems, "Accepted"):
        # A conflict is told here too, under its own reason (conformance test ListenerSetProtocolConflict).
        conflicts = select(problems, "Conflicted")
        reason = conflicts[0].reason if conflicts else "Invalid"
        programmed = Condition("Programmed", "False", reason, "the listener is not valid, see its other conditions")
    elif hindrances := select(problems, "Programmed"):
        programmed = judge("Programmed", hindrances, "")
    elif refusal is not None:
        programmed = Condition("Programmed", "False", "Invalid", join([refusal], "HAProxy did not take it: "))
    elif listener.slot == 0:
        programmed = Condition("Programmed", "False", "Pending", "no listener slot leads to the listener yet")
    elif not is_served:
        programmed = Condition("Programmed", "False", "Pending", "HAProxy does not serve the listener yet")
    else:
        programmed = Condition("Programmed", "True", "Programmed", "HAProxy serves the listener")
    conditions = (
        accepted,
        programmed,
        judge("ResolvedRefs", select(problems, "ResolvedRefs"), "all references are resolved"),
        *(item for kind in LISTENER_WARNINGS for item in warn(kind, select(problems, kind))),
    )
    return ListenerStatus(listener.key.listener, listener.kinds, listener.attached_routes, conditions)
