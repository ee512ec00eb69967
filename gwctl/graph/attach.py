"""Where a route attaches: its parentRefs against the listeners of our Gateways.

Each parentRef, to a Gateway or a ListenerSet, stands alone. The surprising fact: a parentRef to a Gateway that exists
and is not ours is no problem but simply not for us, so nothing at all is said about it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gwctl.api.grpcroute import GRPCRoute
from gwctl.api.httproute import HTTPRoute
from gwctl.api.ref import Ref
from gwctl.api.tlsroute import TLSRoute
from gwctl.api.wire import GATEWAY_GROUP, ParentReference
from gwctl.graph import problem
from gwctl.graph.listener import selector_fits
from gwctl.graph.node import Attachment, GatewayNode, ListenerKey, ListenerNode, Problem, Route
from gwctl.graph.validate import hostname_error
from gwctl.snapshot import Snapshot

ANY_HOST = "*"

PARENTS = ("Gateway", "ListenerSet")
"""The kinds that a route can attach to."""

Parents = Mapping[Ref, tuple[ListenerNode, ...]]
"""The listeners of each Gateway and each ListenerSet that is ours."""

_NAMED = (HTTPRoute, GRPCRoute, TLSRoute)


@dataclass(frozen=True, slots=True)
class Attached:
    """What a route's parentRefs come to. ``is_ours`` is False when every parent is someone else's.

    ``terminating`` are the places of those by which listeners take it that terminate TLS.
    """

    attachments: tuple[Attachment, ...]
    listeners: tuple[ListenerKey, ...]
    references: frozenset[Ref]
    problems: tuple[Problem, ...]
    is_ours: bool
    terminating: tuple[int, ...]


def find_parents(gateways: Iterable[GatewayNode]) -> Parents:
    """Give what routes can attach to. What a ListenerSet adds to a Gateway is not the Gateway's here."""
    found: dict[Ref, list[ListenerNode]] = {}
    for gateway in gateways:
        found[gateway.ref] = []
        for listener_set in gateway.listener_sets:
            found[listener_set.ref] = []
        for listener in gateway.listeners:
            found[listener.key.owner].append(listener)
    return {ref: tuple(listeners) for ref, listeners in found.items()}


def attach_route(route: Route, parents: Parents, snapshot: Snapshot) -> Attached:
    """Attach a route to every listener that its parentRefs mean, that allows it and whose hostname fits."""
    attachments: list[Attachment] = []
    listeners: dict[ListenerKey, None] = {}
    references: set[Ref] = set()
    problems: list[Problem] = []
    terminating: list[int] = []
    unfit = _find_unfit(route)
    is_ours = False
    for index, parent in enumerate(route.spec.parent_refs):
        if parent.group != GATEWAY_GROUP or parent.kind not in PARENTS:
            continue
        ref = Ref(parent.kind, parent.namespace or route.ref.namespace, parent.name)
        references.add(ref)
        if ref not in parents:
            missing = _find_missing(ref, snapshot)
            if missing is not None:
                is_ours = True
                problems.append(problem.no_matching_parent(route.ref, index, f"there is no {missing}"))
            continue
        is_ours = True
        meant = [node for node in parents[ref] if _is_meant(parent, node)]
        allowed = [node for node in meant if route.kind in node.kinds and _allows_namespace(node, route.ref, snapshot)]
        taken = [(node, names) for node in allowed if (names := _names_at(node, route)) is not None]
        served = [(node, left) for node, names in taken if (left := _without(names, unfit)) or not names]
        for node, names in served:
            listeners[node.key] = None
            if node.accepted:
                attachments.append(Attachment(index, node.key, names))
        if any(node.tls == "Terminate" for node, _ in served):
            terminating.append(index)
        asked = {name for _, names in taken for name in names}
        for place, error in ((place, error) for name, (place, error) in unfit.items() if name in asked):
            problems.append(problem.unsupported_hostname(route.ref, index, place, error, others_stand=bool(served)))
        if not taken:
            problems.append(_refuse(route.ref, index, parent, parents[ref], meant, allowed))
    return Attached(
        tuple(attachments), tuple(listeners), frozenset(references), tuple(problems), is_ours, tuple(terminating)
    )


def _names_at(listener: ListenerNode, route: Route) -> tuple[str, ...] | None:
    """The host names of a route at a listener, of which kinds without names have none; None where no name fits."""
    if not isinstance(route, _NAMED):
        return ()
    return intersect_hostnames(listener.hostname, route.spec.hostnames) or None


def _find_unfit(route: Route) -> dict[str, tuple[int, str]]:
    """Give the host names of a route that cannot be served, each with its place and why."""
    named = route.spec.hostnames if isinstance(route, _NAMED) else ()
    errors = ((name.lower(), place, hostname_error(name)) for place, name in enumerate(named))
    return {name: (place, error) for name, place, error in errors if error is not None}


def _without(names: Iterable[str], unfit: Container[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in unfit)


def _refuse(
    route: Ref,
    index: int,
    reference: ParentReference,
    nodes: Sequence[ListenerNode],
    meant: Sequence[ListenerNode],
    allowed: Sequence[ListenerNode],
) -> Problem:
    """Say why no listener of a parent takes a route, by how far one got: it was meant, or even allows the route."""
    parent = Ref(reference.kind, reference.namespace or route.namespace, reference.name)
    if allowed:
        message = f"no listener of {parent} that allows the route has a hostname that fits"
        return problem.no_matching_listener_hostname(route, index, message)
    if meant:
        message = f"no listener of {parent} that is meant allows a {route.kind} from here"
        return problem.not_allowed_by_listeners(route, index, message)
    if not nodes:
        why = "cannot be read" if parent.kind == "Gateway" else "has no listener: its Gateway does not let it in"
        return problem.no_matching_parent(route, index, f"{parent} {why}")
    name = f" {reference.section_name}" if reference.section_name is not None else ""
    port = f" at port {reference.port}" if reference.port is not None else ""
    return problem.no_matching_parent(route, index, f"{parent} has no listener{name}{port}")


def intersect_hostnames(listener: str, route: tuple[str, ...]) -> tuple[str, ...]:
    """The names that both sides mean, of each pair the more specific, sorted; empty when there is none.

    An empty side means any host. ``*.a.com`` covers ``x.a.com`` and ``x.y.a.com``, not ``a.com``.
    """
    if not route:
        return (listener or ANY_HOST,)
    found: set[str] = set()
    for name in route:
        hostname = name.lower()
        if not listener or _covers(listener, hostname):
            found.add(hostname)
        elif _covers(hostname, listener):
            found.add(listener)
    return tuple(sorted(found))


def _covers(wide: str, narrow: str) -> bool:
    return wide == narrow or (wide.startswith("*.") and narrow.endswith(wide[1:]))


def _find_missing(parent: Ref, snapshot: Snapshot) -> Ref | None:
    """Give what a parent that is not ours lacks to be somebody's: itself, or the Gateway of a ListenerSet."""
    if parent.kind == "ListenerSet":
        listener_set = snapshot.listener_sets.get(parent)
        if listener_set is None:
            return parent
        gateway = listener_set.parent
        return gateway if gateway is not None and gateway not in snapshot.gateways else None
    return None if parent in snapshot.gateways else parent


def _is_meant(parent: ParentReference, listener: ListenerNode) -> bool:
    if parent.section_name is not None and parent.section_name != listener.key.listener:
        return False
    return parent.port is None or parent.port == listener.port


def _allows_namespace(listener: ListenerNode, route: Ref, snapshot: Snapshot) -> bool:
    namespaces = listener.resource.allowed_routes.namespaces
    match namespaces.from_:
        case "All":
            return True
        case "Same":
            return listener.key.owner.namespace == route.namespace
        case "Selector":
            return selector_fits(namespaces.selector, snapshot.namespace_labels(route.namespace))
