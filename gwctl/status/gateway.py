"""Gateways and their listeners: accepted, served by HAProxy, reachable, and by how many routes used.

In: an Outcome. Out: the statuses that may have changed. The surprising fact: a listener that HAProxy serves may be
programmed while its Gateway is not, as when an address is missing; but no Gateway is programmed before HAProxy was read
back to have all its accepted listeners.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gwctl.api.parse import is_unreadable
from gwctl.api.ref import Ref
from gwctl.graph.node import GatewayNode, ListenerKey, ListenerNode, ListenerSetNode, Problem
from gwctl.status.condition import Condition, about, join, judge, other, select, warn, with_notes
from gwctl.status.outcome import GatewayAddresses, Outcome
from gwctl.status.status import ListenerStatus, Status

GATEWAY_WARNINGS = ("InsecureFrontendValidationMode",)
"""Conditions that are true when something is to be said, and are not there otherwise."""

_OVERLAPPING = Condition(
    "OverlappingTLSConfig",
    "True",
    "OverlappingHostnames",
    "another listener of the port has TLS for names of this one; a request in a connection of the other one is 421",
)

_GATEWAY_CONDITIONS = frozenset({"Accepted", "ResolvedRefs", *GATEWAY_WARNINGS})
_NOT_ACCEPTED = "the Gateway is not accepted"
UNKNOWN_ADDRESSES = GatewayAddresses((), "Pending", "the Gateway has no address yet")


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
    unlisted = outcome.graph.unlisted.get(ref)
    return (id(node), id(applied), refused, unlisted, outcome.addresses.get(ref), outcome.stale.get(ref))


@dataclass(slots=True)
class Declared:
    """What a Gateway or a ListenerSet declares: its listeners, and what is wrong with them and with itself."""

    listeners: list[ListenerNode] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def of_itself(self) -> list[Problem]:
        """The problems that are not about one listener."""
        return [problem for problem in self.problems if problem.listener is None]

    def of_listeners(self) -> Mapping[str, list[Problem]]:
        """The problems of each listener, by name."""
        found: dict[str, list[Problem]] = {}
        for problem in self.problems:
            if problem.listener is not None:
                found.setdefault(problem.listener, []).append(problem)
        return found

    def standing(self) -> list[ListenerNode]:
        """The listeners that are accepted and can be served."""
        hindered = {problem.listener for problem in select(self.problems, "Programmed", "Accepted")}
        return [node for node in self.listeners if node.accepted and node.key.listener not in hindered]

    def refused(self) -> list[ListenerNode]:
        """The listeners that are not accepted."""
        wrong = {problem.listener for problem in select(self.problems, "Accepted")}
        return [node for node in self.listeners if not node.accepted or node.key.listener in wrong]


def declared_by(node: GatewayNode) -> dict[Ref, Declared]:
    """Divide a Gateway's listeners by who declares them: itself, and each of its ListenerSets."""
    found = {ref: Declared() for ref in (node.ref, *(item.ref for item in node.listener_sets))}
    for listener in node.listeners:
        found[listener.key.owner].listeners.append(listener)
    for problem in node.problems:
        found[problem.subject].problems.append(problem)
    for listener_set in node.listener_sets:
        found[listener_set.ref].problems += listener_set.problems
    return found


def is_accepted(listener_set: ListenerSetNode, declared: Declared) -> bool:
    """Tell whether a ListenerSet counts as attached: the Gateway lets it in, and one of its listeners can be served."""
    return not listener_set.problems and bool(declared.standing())


def _build_gateway(outcome: Outcome, node: GatewayNode) -> Status:
    applied = outcome.applied.gateways.get(node.ref) if outcome.applied is not None else None
    addresses = outcome.addresses.get(node.ref, UNKNOWN_ADDRESSES)
    declared = declared_by(node)
    unlisted = outcome.graph.unlisted.get(node.ref, ())
    own = [*outcome.stale_problems(node.ref), *declared[node.ref].of_itself(), *unlisted]
    listeners = build_listeners(
        outcome, declared[node.ref], served_by(applied), parent=_NOT_ACCEPTED if _is_wrong(own) else ""
    )
    metadata = node.resource.metadata
    earlier = outcome.earlier(node.ref, metadata.generation)
    of_served = (
        _program(outcome, node, applied, declared[node.ref], addresses),
        *(() if is_unreadable(node.resource) else (_resolve(own, listeners),)),
        *(item for kind in GATEWAY_WARNINGS for item in warn(kind, select(own, kind))),
    )
    return Status(
        metadata.uid,
        outcome.generation(node.ref, metadata.generation),
        # What cannot be read of a newer generation is told in Accepted.
        conditions=(_accept(declared[node.ref], own), *about(of_served, earlier)),
        addresses=addresses.addresses,
        listeners=listeners_about(listeners, earlier),
        attached_listener_sets=sum(is_accepted(item, declared[item.ref]) for item in node.listener_sets),
    )


def served_by(applied: GatewayNode | None) -> Mapping[ListenerKey, ListenerNode]:
    """Give the listeners that HAProxy was read back to have."""
    return {item.key: item for item in applied.listeners} if applied is not None else {}


def build_listeners(
    outcome: Outcome, declared: Declared, served: Mapping[ListenerKey, ListenerNode], parent: str
) -> tuple[ListenerStatus, ...]:
    """Give the status of each listener. ``parent`` is what keeps all from being accepted, empty for nothing."""
    problems = declared.of_listeners()
    return tuple(
        _build_listener(
            listener,
            problems.get(listener.key.listener, []),
            parent=parent,
            is_served=is_same(listener, served.get(listener.key)),
            refusal=outcome.refused.get(listener.key),
        )
        for listener in declared.listeners
    )


def listeners_about(listeners: tuple[ListenerStatus, ...], earlier: int | None) -> tuple[ListenerStatus, ...]:
    """Say of what generation listeners are, where that is an earlier one than that of their owner's status."""
    if earlier is None:
        return listeners
    return tuple(replace(item, conditions=about(item.conditions, earlier)) for item in listeners)


def _is_wrong(own: Sequence[Problem]) -> bool:
    """Whether the Gateway itself keeps its listeners from being accepted."""
    return any(problem.condition == "Accepted" and problem.reason != "ListenersNotValid" for problem in own)


def is_same(listener: ListenerNode, served: ListenerNode | None) -> bool:
    """Tell whether a listener is the one that is served, whatever routes are at it."""
    return served is not None and replace(served, attached_routes=listener.attached_routes) == listener


def _accept(declared: Declared, own: Sequence[Problem]) -> Condition:
    message = with_notes("the Gateway is accepted", other(own, _GATEWAY_CONDITIONS))
    condition = judge("Accepted", select(own, "Accepted"), message)
    refused = declared.refused()
    if condition.status == "True" and refused:
        return replace(condition, reason="ListenersNotValid", message=name_listeners(f"{message}, without ", refused))
    return condition


def _program(
    outcome: Outcome,
    node: GatewayNode,
    applied: GatewayNode | None,
    declared: Declared,
    addresses: GatewayAddresses,
) -> Condition:
    if not node.accepted:
        return Condition("Programmed", "False", "Invalid", _NOT_ACCEPTED)
    if refusal := find_refusal(outcome, declared.listeners):
        return refusal
    if not declared.standing():
        accepted = [listener for listener in declared.listeners if listener.accepted]
        return Condition("Programmed", "False", "Invalid", name_listeners("see ", accepted))
    if addresses.reason:
        return Condition("Programmed", "False", addresses.reason, addresses.message)
    if waiting := find_waiting(declared.listeners):
        return waiting
    if applied is None or not _is_applied(node, applied):
        return Condition("Programmed", "False", "Pending", "HAProxy does not serve this generation yet")
    if not addresses.addresses:
        return Condition("Programmed", "False", "AddressNotAssigned", "the Gateway has no address yet")
    return Condition("Programmed", "True", "Programmed", "HAProxy serves the Gateway")


def find_refusal(outcome: Outcome, listeners: Iterable[ListenerNode]) -> Condition | None:
    """Tell which of the listeners HAProxy did not take."""
    refused = [
        f"listener {item.key.listener}: {outcome.refused[item.key]}"
        for item in listeners
        if item.key in outcome.refused
    ]
    return Condition("Programmed", "False", "Invalid", join(refused, "HAProxy did not take ")) if refused else None


def find_waiting(listeners: Iterable[ListenerNode]) -> Condition | None:
    """Tell which of the listeners have no listener slot yet."""
    waiting = [item for item in listeners if item.accepted and item.slot == 0]
    message = name_listeners("no listener slot leads yet to ", waiting)
    return Condition("Programmed", "False", "Pending", message) if waiting else None


def _is_applied(node: GatewayNode, applied: GatewayNode) -> bool:
    wanted, served = node.own_listeners, applied.own_listeners
    return (
        applied.resource.metadata.generation == node.resource.metadata.generation
        and len(served) == len(wanted)
        and all(map(is_same, wanted, served))
    )


def _resolve(own: Sequence[Problem], listeners: Sequence[ListenerStatus]) -> Condition:
    problems = select(own, "ResolvedRefs")
    broken = [
        listener.name
        for listener in listeners
        if any(item.type == "ResolvedRefs" and item.status == "False" for item in listener.conditions)
    ]
    if broken and not problems:
        return Condition("ResolvedRefs", "False", "ListenersNotResolved", _list_names("see ", broken))
    return judge("ResolvedRefs", problems, "all references are resolved")


def name_listeners(prefix: str, listeners: Iterable[ListenerNode]) -> str:
    """Give a message that names listeners."""
    return _list_names(prefix, [item.key.listener for item in listeners])


def _list_names(prefix: str, names: Sequence[str]) -> str:
    word = "listener" if len(names) == 1 else "listeners"
    return join([f"{word} {', '.join(names)}"], prefix)


def _build_listener(
    listener: ListenerNode,
    problems: Sequence[Problem],
    *,
    parent: str,
    is_served: bool,
    refusal: str | None,
) -> ListenerStatus:
    accepted = judge("Accepted", select(problems, "Accepted", "Conflicted"), "the listener is accepted")
    if parent:
        programmed = Condition("Programmed", "False", "Invalid", parent)
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
        *warn("Conflicted", select(problems, "Conflicted")),
        *((_OVERLAPPING,) if listener.overlaps else ()),
    )
    return ListenerStatus(listener.key.listener, listener.kinds, listener.attached_routes, conditions)
