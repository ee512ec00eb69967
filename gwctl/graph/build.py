"""Snapshot in, Graph out.

The surprising fact: upon a previous graph only what the change can reach is built again, and the result is
the same. Routes are reached by their own change and by that of a Service they refer to, which need not exist;
EndpointSlices reach one Service's endpoints; Secrets reach the certificates of listeners; a Gateway, a GatewayClass
or a ReferenceGrant reaches everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from gwctl.api.endpointslice import EndpointSlice
from gwctl.api.gateway import GatewayClass
from gwctl.api.httproute import HTTPRoute, HTTPRouteFilter
from gwctl.api.ref import Ref
from gwctl.api.service import Service
from gwctl.api.tcproute import TCPRoute
from gwctl.graph import problem
from gwctl.graph.attach import attach_route
from gwctl.graph.backendref import resolve_backend
from gwctl.graph.certificateref import resolve_certificates, secrets_of
from gwctl.graph.endpoints import resolve_endpoints
from gwctl.graph.gatewayclass import check_class, own_classes
from gwctl.graph.gatewayservice import owner_of, slots_of
from gwctl.graph.listener import build_gateways
from gwctl.graph.node import (
    Attachment,
    BackendNode,
    Certificate,
    Endpoint,
    FilterNode,
    GatewayNode,
    Graph,
    HTTPRuleNode,
    Index,
    ListenerKey,
    ListenerNode,
    Problem,
    RouteNode,
    ServicePort,
    TCPRuleNode,
)
from gwctl.graph.validate import Refusal, check_rule, first_of_equal_headers, first_of_equal_names
from gwctl.snapshot import Snapshot

_ROUTES = frozenset({"HTTPRoute", "TCPRoute"})
_REACHES_ALL = frozenset({"GatewayClass", "Gateway", "ReferenceGrant"})

Key = TypeVar("Key", Ref, ListenerKey)
Name = TypeVar("Name", Ref, ServicePort)


def build_graph(
    snapshot: Snapshot,
    controller_name: str,
    previous: Graph | None = None,
    changed: frozenset[Ref] | None = None,
    *,
    service_namespace: str | None = None,
) -> Graph:
    """Build the graph of a snapshot.

    With ``previous`` and ``changed``, the objects that differ from what ``previous`` was built from, only
    what they reach is built again. ``service_namespace``: where each Gateway has a Service of its own, which leads
    to listener slots, so that two Gateways may have one port; None: listeners bind their own ports.
    """
    if previous is not None and previous.index is not None and changed is not None:
        index = previous.index
        same_settings = (index.controller_name, index.service_namespace) == (controller_name, service_namespace)
        differing = {ref for ref in changed if index.snapshot.get(ref) != snapshot.get(ref)}
        if same_settings and not _reaches_all(differing, previous.gateways, (index.snapshot, snapshot)):
            return _rebuild(snapshot, previous, index, differing)
    classes = own_classes(snapshot, controller_name)
    built = build_gateways(snapshot, classes, service_namespace)
    gateways, certificates = resolve_certificates(built.values(), snapshot)
    draft = _Draft(snapshot, Index(snapshot, controller_name, service_namespace), gateways, certificates)
    routes: list[HTTPRoute | TCPRoute] = [*snapshot.http_routes.values(), *snapshot.tcp_routes.values()]
    for route in routes:
        draft.set_route(route.ref, _build_route(route, snapshot, gateways))
    draft.settle()
    return draft.finish(classes, previous=None)


def _reaches_all(changed: set[Ref], gateways: Mapping[Ref, GatewayNode], snapshots: tuple[Snapshot, Snapshot]) -> bool:
    kinds = {ref.kind for ref in changed}
    if kinds & _REACHES_ALL:
        return True
    for ref in changed:
        before, after = (snapshot.services.get(ref) for snapshot in snapshots)
        if _allocation(before) != _allocation(after):
            return True
    return "Namespace" in kinds and any(
        listener.allowed_routes.namespaces.from_ == "Selector"
        for node in gateways.values()
        for listener in node.resource.spec.listeners
    )


def _allocation(service: Service | None) -> tuple[Ref | None, dict[int, int]]:
    owner = owner_of(service) if service is not None else None
    return owner, slots_of(service) if service is not None and owner is not None else {}


def _rebuild(snapshot: Snapshot, previous: Graph, index: Index, changed: set[Ref]) -> Graph:
    routes = {ref for ref in changed if ref.kind in _ROUTES}
    services = {ref for ref in changed if ref.kind == "Service"}
    for ref in services:
        routes |= index.referrers.get(ref, frozenset())
    dirty = set(services)
    for ref in changed:
        if ref.kind == "EndpointSlice":
            for entry in (index.snapshot.get(ref), snapshot.get(ref)):
                if isinstance(entry, EndpointSlice) and entry.service is not None:
                    dirty.add(entry.service)
    gateways, certificates = _resolve_changed(snapshot, previous, changed)
    draft = _Draft(snapshot, replace(index, snapshot=snapshot), gateways, certificates, previous)
    for ref in sorted(routes):
        route = snapshot.get(ref)
        if isinstance(route, HTTPRoute | TCPRoute):
            draft.set_route(ref, _build_route(route, snapshot, gateways))
        else:
            draft.set_route(ref, None)
    draft.settle()
    draft.refresh(dirty)
    return draft.finish(previous.classes, previous)


def _resolve_changed(
    snapshot: Snapshot, previous: Graph, changed: set[Ref]
) -> tuple[Mapping[Ref, GatewayNode], Mapping[ListenerKey, tuple[Certificate, ...]]]:
    """Resolve the certificates of the Gateways that refer to a Secret which has changed."""
    secrets = {ref for ref in changed if ref.kind == "Secret"}
    if not secrets:
        return previous.gateways, previous.certificates
    reached = [node for node in previous.gateways.values() if not secrets.isdisjoint(secrets_of(node, snapshot))]
    gateways, certificates = resolve_certificates(reached, snapshot)
    return {**previous.gateways, **gateways}, {**previous.certificates, **certificates}


class _Draft:
    """A graph in the making: copies of the previous tables, changed in place, frozen at the end."""

    def __init__(
        self,
        snapshot: Snapshot,
        index: Index,
        gateways: Mapping[Ref, GatewayNode],
        certificates: Mapping[ListenerKey, tuple[Certificate, ...]],
        previous: Graph | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.index = index
        self.gateways = gateways
        self.certificates = certificates
        self.routes: dict[Ref, RouteNode] = _thaw(previous.routes) if previous else {}
        self.endpoints: dict[ServicePort, tuple[Endpoint, ...]] = _thaw(previous.endpoints) if previous else {}
        self.users: dict[ServicePort, int] = index.users.copy()
        self.tcp_nodes: dict[Ref, RouteNode] = index.tcp_nodes.copy()
        # Sets of these two are copied when they are first touched.
        self.referrers: dict[Ref, set[Ref]] = {}
        self.tcp_claims: dict[ListenerKey, set[Ref]] = {}
        self.counts: Counter[ListenerKey] = Counter()
        self.tcp_dirty: set[Ref] = set()
        self.changed_routes: set[Ref] = set()
        self.changed_endpoints: set[ServicePort] = set()

    def set_route(self, ref: Ref, node: RouteNode | None) -> None:
        """Put a route's new node; None takes it away. TCPRoutes wait for ``settle``."""
        if ref.kind != "TCPRoute":
            self._put(ref, node)
            return
        old = self.tcp_nodes.get(ref)
        self.tcp_dirty.add(ref)
        for key in old.attached if old else ():
            self._claims(key).discard(ref)
            self.tcp_dirty |= self._claims(key)
        for key in node.attached if node else ():
            self._claims(key).add(ref)
            self.tcp_dirty |= self._claims(key)
        if node is None:
            self.tcp_nodes.pop(ref, None)
        else:
            self.tcp_nodes[ref] = node

    def settle(self) -> None:
        """Give each TCP listener to the oldest of the TCPRoutes that attach to it."""
        for ref in sorted(self.tcp_dirty):
            node = self.tcp_nodes.get(ref)
            self._put(ref, self._settle(node) if node is not None else None)

    def refresh(self, services: Iterable[Ref]) -> None:
        """Resolve the endpoints of Services anew."""
        for ref in services:
            service = self.snapshot.services.get(ref)
            for port in service.spec.ports if service is not None else ():
                found = ServicePort(ref.namespace, ref.name, port.port, port.app_protocol or "")
                if found in self.users:
                    self._resolve(found)

    def finish(self, classes: Mapping[Ref, GatewayClass], previous: Graph | None) -> Graph:
        gateways = dict(self.gateways)
        for ref in {Ref("Gateway", key.namespace, key.gateway) for key, delta in self.counts.items() if delta}:
            counted = tuple(self._count(listener) for listener in gateways[ref].listeners)
            gateways[ref] = replace(gateways[ref], listeners=counted)
        index = replace(
            self.index,
            referrers=_freeze(self.index.referrers, self.referrers),
            users=MappingProxyType(self.users),
            tcp_nodes=MappingProxyType(self.tcp_nodes),
            tcp_claims=_freeze(self.index.tcp_claims, self.tcp_claims),
        )
        return Graph(
            MappingProxyType(dict(classes)),
            MappingProxyType(gateways),
            MappingProxyType({node.key: node for gateway in gateways.values() for node in gateway.listeners}),
            MappingProxyType(self.routes),
            MappingProxyType(self.endpoints),
            previous.class_problems if previous else _check_classes(classes),
            self.certificates,
            _differing(self.changed_routes, previous.routes, self.routes) if previous else None,
            _differing(self.changed_endpoints, previous.endpoints, self.endpoints) if previous else None,
            index,
            previous.routes if previous else None,
        )

    def _put(self, ref: Ref, node: RouteNode | None) -> None:
        old = self.routes.get(ref)
        if old == node:
            return
        self.changed_routes.add(ref)
        if node is None:
            del self.routes[ref]
        else:
            self.routes[ref] = node
        self.counts.subtract(old.attached if old else ())
        self.counts.update(node.attached if node else ())
        self._refer(ref, old.references if old else frozenset(), node.references if node else frozenset())
        before, after = _used(old), _used(node)
        for service in before - after:
            self.users[service] -= 1
            if not self.users[service]:
                del self.users[service]
                del self.endpoints[service]
                self.changed_endpoints.add(service)
        for service in after - before:
            self.users[service] = self.users.get(service, 0) + 1
            if service not in self.endpoints:
                self._resolve(service)

    def _resolve(self, service: ServicePort) -> None:
        found = resolve_endpoints(self.snapshot, service)
        if self.endpoints.get(service) != found:
            self.endpoints[service] = found
            self.changed_endpoints.add(service)

    def _refer(self, route: Ref, before: frozenset[Ref], after: frozenset[Ref]) -> None:
        for ref in before - after:
            if ref.kind == "Service":
                self._referrers(ref).discard(route)
        for ref in after - before:
            if ref.kind == "Service":
                self._referrers(ref).add(route)

    def _referrers(self, service: Ref) -> set[Ref]:
        if service not in self.referrers:
            self.referrers[service] = set(self.index.referrers.get(service, ()))
        return self.referrers[service]

    def _claims(self, listener: ListenerKey) -> set[Ref]:
        if listener not in self.tcp_claims:
            self.tcp_claims[listener] = set(self.index.tcp_claims.get(listener, ()))
        return self.tcp_claims[listener]

    def _settle(self, node: RouteNode) -> RouteNode:
        kept: list[Attachment] = []
        lost: list[Problem] = []
        for attachment in node.attachments:
            claims = self.tcp_claims.get(attachment.listener, self.index.tcp_claims.get(attachment.listener, ()))
            oldest = min(claims, key=lambda ref: self.tcp_nodes[ref].resource.age)
            if oldest == node.ref:
                kept.append(attachment)
            else:
                name = attachment.listener.listener
                lost.append(problem.conflict_with_older_route(node.ref, attachment.parent, name, oldest))
        if not lost:
            return node
        return replace(node, attachments=tuple(kept), problems=_sorted((*node.problems, *lost)))

    def _count(self, listener: ListenerNode) -> ListenerNode:
        delta = self.counts[listener.key]
        return replace(listener, attached_routes=listener.attached_routes + delta) if delta else listener


def _build_route(
    route: HTTPRoute | TCPRoute, snapshot: Snapshot, gateways: Mapping[Ref, GatewayNode]
) -> RouteNode | None:
    """The node of a route, as if it were alone; None when all its parents are those of others."""
    attached = attach_route(route, gateways, snapshot)
    if not attached.is_ours:
        return None
    problems = list(attached.problems)
    references = set(attached.references)
    rules: tuple[HTTPRuleNode, ...] | tuple[TCPRuleNode, ...]
    if isinstance(route, HTTPRoute):
        rules = tuple(_build_http_rules(route, snapshot, problems, references))
    else:
        rules = tuple(_build_tcp_rules(route, snapshot, problems, references))
    if route.spec.use_default_gateways == "All":
        message = "default Gateways are not supported"
        problems.append(problem.unsupported_route_field(route.ref, "spec.useDefaultGateways", message))
    return RouteNode(
        route.ref,
        route,
        attached.attachments if rules else (),
        rules,
        frozenset(references),
        _sorted(problems),
        # Only accepted routes are counted (ListenerStatus.attachedRoutes).
        attached.listeners if rules else (),
    )


def _build_http_rules(
    route: HTTPRoute, snapshot: Snapshot, problems: list[Problem], references: set[Ref]
) -> list[HTTPRuleNode]:
    rules: list[HTTPRuleNode] = []
    refused: list[tuple[int, Refusal]] = []
    for index, rule in enumerate(route.spec.rules):
        refusals = check_rule(rule)
        if refusals:
            refused += ((index, refusal) for refusal in refusals)
            continue
        backends: list[BackendNode] = []
        for place, ref in enumerate(rule.backend_refs):
            field = f"spec.rules[{index}].backendRefs[{place}]"
            resolved = resolve_backend(snapshot, route.ref, ref, field)
            backends.append(replace(resolved.node, filters=_build_filters(ref.filters)))
            if resolved.reference is not None:
                references.add(resolved.reference)
            if resolved.problem is not None:
                problems.append(resolved.problem)
        matches = first_of_equal_names(rule.matches)
        rules.append(HTTPRuleNode(index, rule.name or "", matches, _build_filters(rule.filters), tuple(backends)))
    for index, refusal in refused:
        field = f"spec.rules[{index}].{refusal.field}"
        message = refusal.message if not rules else f"rule {index}: {refusal.message}"
        problems.append(problem.unsupported_value(route.ref, field, message, others_stand=bool(rules)))
    return rules


def _build_filters(filters: tuple[HTTPRouteFilter, ...]) -> tuple[FilterNode, ...]:
    return tuple(FilterNode(first_of_equal_headers(item)) for item in filters)


def _build_tcp_rules(
    route: TCPRoute, snapshot: Snapshot, problems: list[Problem], references: set[Ref]
) -> list[TCPRuleNode]:
    rules: list[TCPRuleNode] = []
    for index, rule in enumerate(route.spec.rules):
        backends: list[BackendNode] = []
        for place, ref in enumerate(rule.backend_refs):
            resolved = resolve_backend(snapshot, route.ref, ref, f"spec.rules[{index}].backendRefs[{place}]")
            backends.append(resolved.node)
            if resolved.reference is not None:
                references.add(resolved.reference)
            if resolved.problem is not None:
                problems.append(resolved.problem)
        rules.append(TCPRuleNode(index, rule.name or "", tuple(backends)))
    return rules


def _check_classes(classes: Mapping[Ref, GatewayClass]) -> tuple[Problem, ...]:
    found = (check_class(resource) for resource in classes.values())
    return _sorted(item for item in found if item is not None)


def _used(node: RouteNode | None) -> set[ServicePort]:
    """The Services that a route sends requests to, where it serves at all."""
    if node is None or not node.attachments:
        return set()
    return {backend.service for rule in node.rules for backend in rule.backends if backend.service is not None}


def _differing(keys: Iterable[Name], old: Mapping[Name, object], new: Mapping[Name, object]) -> frozenset[Name]:
    return frozenset(key for key in keys if old.get(key) != new.get(key))


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda item: item.order))


def _thaw(table: Mapping[Ref, RouteNode] | Mapping[ServicePort, tuple[Endpoint, ...]]) -> dict:  # type: ignore[type-arg]
    # The copy of a mapping proxy is a copy of its dict, made in C.
    return table.copy() if isinstance(table, MappingProxyType) else dict(table)


def _freeze(
    old: MappingProxyType[Key, frozenset[Ref]], touched: Mapping[Key, set[Ref]]
) -> MappingProxyType[Key, frozenset[Ref]]:
    if not touched:
        return old
    table = old.copy()
    for key, refs in touched.items():
        if refs:
            table[key] = frozenset(refs)
        else:
            table.pop(key, None)
    return MappingProxyType(table)
