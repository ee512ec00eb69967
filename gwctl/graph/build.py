"""Snapshot in, Graph out.

The surprising fact: upon a previous graph only what the change can reach is built again, and the result is
the same. Routes are reached by their own change and by that of a Service they refer to, which need not exist, or of a
policy for it; EndpointSlices reach one Service's endpoints; Secrets and ConfigMaps reach the Gateways and policies that
refer to them; a Gateway, a ListenerSet, a GatewayClass or a ReferenceGrant reaches everything.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from gwctl.api.backendtlspolicy import ANCESTORS_LIMIT
from gwctl.api.endpointslice import EndpointSlice
from gwctl.api.gateway import GatewayClass
from gwctl.api.ref import Ref
from gwctl.api.service import Service
from gwctl.graph import problem
from gwctl.graph.attach import find_parents
from gwctl.graph.backendtls import find_config_maps, judge_policies, services_of
from gwctl.graph.certificateref import Resolved, referents_of, resolve_certificates
from gwctl.graph.conflict import RIVALS, find_losers, find_tcp_losers, find_tls_losers, hostnames_at, overlap
from gwctl.graph.endpoints import resolve_endpoints
from gwctl.graph.gateway import build_gateways
from gwctl.graph.gatewayclass import check_class, own_classes
from gwctl.graph.gatewayservice import owner_of, slots_of
from gwctl.graph.listenerset import find_orphans
from gwctl.graph.node import (
    REFUSED,
    Attachment,
    Claim,
    Endpoint,
    GatewayNode,
    Graph,
    Index,
    ListenerKey,
    ListenerNode,
    Loss,
    Policies,
    PolicyNode,
    Problem,
    Route,
    RouteNode,
    ServicePort,
    in_order,
)
from gwctl.graph.route import build_route
from gwctl.snapshot import Snapshot

_ROUTES = frozenset({"HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"})
_REACHES_ALL = frozenset({"GatewayClass", "Gateway", "ListenerSet", "ReferenceGrant"})
_FEW = 8

Key = TypeVar("Key", Ref, Claim)
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
    resolved = resolve_certificates(built.values(), snapshot)
    policies = judge_policies(snapshot)
    index = Index(snapshot, controller_name, service_namespace, policies=policies)
    draft = _Draft(snapshot, index, resolved)
    routes = (snapshot.http_routes, snapshot.grpc_routes, snapshot.tcp_routes, snapshot.tls_routes)
    parents = find_parents(resolved.gateways.values())
    for route in (route for of_kind in routes for route in of_kind.values()):
        draft.set_route(route.ref, build_route(route, snapshot, parents, policies))
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
    return "Namespace" in kinds and any(map(_selects_namespaces, gateways.values()))


def _selects_namespaces(gateway: GatewayNode) -> bool:
    allowed = gateway.resource.spec.allowed_listeners
    if allowed is not None and allowed.namespaces.from_ == "Selector":
        return True
    return any(node.resource.allowed_routes.namespaces.from_ == "Selector" for node in gateway.listeners)


def _allocation(service: Service | None) -> tuple[Ref | None, dict[int, int]]:
    owner = owner_of(service) if service is not None else None
    return owner, slots_of(service) if service is not None and owner is not None else {}


def _rebuild(snapshot: Snapshot, previous: Graph, index: Index, changed: set[Ref]) -> Graph:
    routes = {ref for ref in changed if ref.kind in _ROUTES}
    services = {ref for ref in changed if ref.kind == "Service"}
    for ref in services:
        routes |= index.referrers.get(ref, frozenset())
    policies = _judge_changed(snapshot, index, changed)
    for ref in index.policies.verdicts.keys() | policies.verdicts.keys() if policies is not index.policies else ():
        if index.policies.verdicts.get(ref) != policies.verdicts.get(ref):
            routes |= index.referrers.get(ref, frozenset())
    dirty = set(services)
    for ref in changed:
        if ref.kind == "EndpointSlice":
            for entry in (index.snapshot.get(ref), snapshot.get(ref)):
                if isinstance(entry, EndpointSlice) and entry.service is not None:
                    dirty.add(entry.service)
    resolved = _resolve_changed(snapshot, previous, changed)
    draft = _Draft(snapshot, replace(index, snapshot=snapshot, policies=policies), resolved, previous)
    parents = find_parents(resolved.gateways.values()) if routes else {}
    for ref in sorted(routes):
        route = snapshot.get(ref)
        if isinstance(route, Route):
            draft.set_route(ref, build_route(route, snapshot, parents, policies))
        else:
            draft.set_route(ref, None)
    draft.settle()
    draft.refresh(dirty)
    return draft.finish(previous.classes, previous)


def _judge_changed(snapshot: Snapshot, index: Index, changed: set[Ref]) -> Policies:
    """Judge the policies anew where something has changed that they depend on."""
    kinds = {ref.kind for ref in changed}
    if "BackendTLSPolicy" in kinds or not index.policies.by_service.keys().isdisjoint(changed):
        return judge_policies(snapshot)
    if "ConfigMap" in kinds and not changed.isdisjoint(find_config_maps(snapshot.backend_tls_policies.values())):
        return judge_policies(snapshot)
    return index.policies


def _resolve_changed(snapshot: Snapshot, previous: Graph, changed: set[Ref]) -> Resolved:
    """Resolve the certificates of the Gateways that refer to a Secret or a ConfigMap which has changed."""
    before = Resolved(
        previous.gateways, previous.certificates, previous.client_certificates, previous.client_authorities
    )
    referents = {ref for ref in changed if ref.kind in ("Secret", "ConfigMap")}
    if not referents:
        return before
    reached = [
        gateway
        for gateway in previous.gateways.values()
        if any(not referents.isdisjoint(referents_of(owner, snapshot)) for owner in gateway.owners)
    ]
    return before.updated(resolve_certificates(reached, snapshot)) if reached else before


class _Draft:
    """A graph in the making: copies of the previous tables, changed in place, frozen at the end."""

    def __init__(
        self,
        snapshot: Snapshot,
        index: Index,
        resolved: Resolved,
        previous: Graph | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.index = index
        self.gateways = resolved.gateways
        self.certificates = resolved.certificates
        self.client_certificates = resolved.client_certificates
        self.client_authorities = resolved.client_authorities
        self.routes: dict[Ref, RouteNode] = _thaw(previous.routes) if previous else {}
        self.endpoints: dict[ServicePort, tuple[Endpoint, ...]] = _thaw(previous.endpoints) if previous else {}
        self.users: dict[ServicePort, int] = index.users.copy()
        self.alone: dict[Ref, RouteNode] = index.alone.copy()
        self.losers: dict[ListenerKey, Mapping[Ref, Loss]] = index.losers.copy()
        # Sets of these two are copied when they are first touched.
        self.referrers: dict[Ref, set[Ref]] = {}
        self.claims: dict[Claim, set[Ref]] = {}
        self.unsettled: dict[Ref, RouteNode | None] = {}
        self.counts: Counter[ListenerKey] = Counter()
        self.changed_routes: set[Ref] = set()
        self.changed_endpoints: set[ServicePort] = set()

    def set_route(self, ref: Ref, node: RouteNode | None) -> None:
        """Put a route's new node, as if it were alone; None takes it away. It waits for ``settle``."""
        old = self.alone.get(ref)
        self.unsettled.setdefault(ref, old)
        for item in old.attachments if old else ():
            self._claimants(Claim(item.listener, ref.kind)).discard(ref)
        for item in node.attachments if node else ():
            self._claimants(Claim(item.listener, ref.kind)).add(ref)
        if node is None:
            self.alone.pop(ref, None)
        else:
            self.alone[ref] = node

    def settle(self) -> None:
        """Decide between the routes that want the same of a listener, of which the oldest gets it."""
        again = set(self.unsettled)
        for listener in self._contested():
            before, after = self.losers.pop(listener, {}), self._judge(listener)
            if after:
                self.losers[listener] = after
            again |= {ref for ref in before.keys() | after.keys() if before.get(ref) != after.get(ref)}
        for ref in sorted(again):
            node = self.alone.get(ref)
            self._put(ref, self._settled(node) if node is not None else None)

    def refresh(self, services: Iterable[Ref]) -> None:
        """Resolve the endpoints of Services anew."""
        for ref in services:
            service = self.snapshot.services.get(ref)
            for port in service.spec.ports if service is not None else ():
                for tls in (self.index.policies.tls(ref, port.name), REFUSED):
                    found = ServicePort(ref.namespace, ref.name, port.port, port.app_protocol or "", tls)
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
            alone=MappingProxyType(self.alone),
            claims=_freeze(self.index.claims, self.claims),
            losers=MappingProxyType(self.losers),
        )
        policies = self._build_policies(previous)
        return Graph(
            MappingProxyType(dict(classes)),
            MappingProxyType(gateways),
            MappingProxyType({node.key: node for gateway in gateways.values() for node in gateway.listeners}),
            MappingProxyType(self.routes),
            MappingProxyType(self.endpoints),
            previous.class_problems if previous else _check_classes(classes),
            self.certificates,
            self.client_certificates,
            self.client_authorities,
            policies,
            previous.orphans if previous else find_orphans(self.snapshot),
            _find_unlisted(policies) if previous is None or policies is not previous.policies else previous.unlisted,
            _differing(self.changed_routes, previous.routes, self.routes) if previous else None,
            _differing(self.changed_endpoints, previous.endpoints, self.endpoints) if previous else None,
            index,
            previous.routes if previous else None,
        )

    def _build_policies(self, previous: Graph | None) -> Mapping[Ref, PolicyNode]:
        """The nodes of the policies whose Services our Gateways have routes to."""
        policies = self.index.policies
        old = previous.policies if previous is not None else {}
        if previous is None or previous.index is None or previous.index.policies is not policies:
            touched = {*old, *policies.judged}
        elif not policies.judged or not self.changed_routes:
            return old
        else:
            routes = [table.get(ref) for ref in self.changed_routes for table in (previous.routes, self.routes)]
            services = {ref for node in routes if node is not None for ref in node.references}
            touched = {ref for service in services for ref in policies.by_service.get(service, ())}
        nodes = dict(old)
        for ref in touched:
            node = self._build_policy(ref)
            if node is None:
                nodes.pop(ref, None)
            elif nodes.get(ref) != node:
                nodes[ref] = node
        return MappingProxyType(nodes)

    def _build_policy(self, ref: Ref) -> PolicyNode | None:
        policy = self.snapshot.backend_tls_policies.get(ref)
        if policy is None:
            return None
        ancestors = {
            Ref("Gateway", key.namespace, key.gateway)
            for service in services_of(policy)
            for node in (self.routes[route] for route in self._who_refers(service))
            # Who must not use a Service has no say in the status of its policies.
            if service not in node.forbidden
            for key in (*node.attached, *(item.listener for item in node.attachments))
        }
        tls, problems = self.index.policies.judged[ref]
        oldest_first = sorted(ancestors, key=lambda gateway: self.gateways[gateway].resource.age)
        return PolicyNode(ref, policy, tuple(oldest_first), tls, problems) if ancestors else None

    def _who_refers(self, service: Ref) -> Collection[Ref]:
        return self.referrers[service] if service in self.referrers else self.index.referrers.get(service, ())

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

    def _claimants(self, claim: Claim) -> set[Ref]:
        if claim not in self.claims:
            self.claims[claim] = set(self.index.claims.get(claim, ()))
        return self.claims[claim]

    def _who_claims(self, listener: ListenerKey, kind: str) -> Collection[Ref]:
        claim = Claim(listener, kind)
        return self.claims[claim] if claim in self.claims else self.index.claims.get(claim, ())

    def _contested(self) -> set[ListenerKey]:
        """The listeners where a change may decide anew who loses; of the rest none is looked at twice."""
        found: set[ListenerKey] = set()
        changes: defaultdict[Claim, list[str]] = defaultdict(list)
        for ref, old in self.unsettled.items():
            for node in (old, self.alone.get(ref)):
                for item in node.attachments if node else ():
                    changes[Claim(item.listener, ref.kind)] += item.hostnames
        for (listener, kind), hostnames in changes.items():
            if kind not in RIVALS or listener in self.losers:
                found.add(listener)
                continue
            rivals = self._who_claims(listener, RIVALS[kind])
            # Beyond a few, comparing each with all is no faster than beginning anew.
            if rivals and (len(hostnames) > _FEW or self._meet(hostnames, rivals, listener)):
                found.add(listener)
        return found

    def _meet(self, hostnames: Iterable[str], routes: Iterable[Ref], listener: ListenerKey) -> bool:
        names = {name for ref in routes for name in hostnames_at(self.alone[ref], listener)}
        return any(overlap(one, other) for one in hostnames for other in names)

    def _judge(self, listener: ListenerKey) -> dict[Ref, Loss]:
        """Of the routes that want a listener give those that do not get all they want."""
        if tcp := self._claimants_of(listener, "TCPRoute"):
            return find_tcp_losers(tcp)
        if tls := self._claimants_of(listener, "TLSRoute"):
            return find_tls_losers(tls, listener)
        return find_losers((node for kind in RIVALS for node in self._claimants_of(listener, kind)), listener)

    def _claimants_of(self, listener: ListenerKey, kind: str) -> list[RouteNode]:
        return [self.alone[ref] for ref in self._who_claims(listener, kind)]

    def _settled(self, node: RouteNode) -> RouteNode:
        """What is left of a route beside the others."""
        lost = {
            item.listener: self.losers[item.listener][node.ref]
            for item in node.attachments
            if node.ref in self.losers.get(item.listener, ())
        }
        if not lost:
            return node
        left = (_left(item, lost.get(item.listener)) for item in node.attachments)
        kept = tuple(item for item in left if item is not None)
        attached, problems = node.attached, list(node.problems)
        serving = {item.parent for item in kept}
        for item in node.attachments:
            if item.listener not in lost:
                continue
            where, (older, names) = (node.ref, item.parent, item.listener.listener), lost[item.listener]
            if node.ref.kind == "TCPRoute":
                problems.append(problem.conflict_with_older_route(*where, older))
            elif node.ref.kind == "TLSRoute":
                problems.append(problem.hostnames_of_older_route(*where, names or (), older))
            elif names is not None:
                problems.append(problem.hostnames_not_closed(*where, names, older))
            else:
                problems.append(problem.hostname_of_other_kind(*where, older, elsewhere=item.parent in serving))
        if node.ref.kind in RIVALS:
            attached = tuple(key for key in attached if key not in lost)
        return replace(node, attachments=kept, attached=attached, problems=in_order(problems))

    def _count(self, listener: ListenerNode) -> ListenerNode:
        delta = self.counts[listener.key]
        return replace(listener, attached_routes=listener.attached_routes + delta) if delta else listener


def _left(attachment: Attachment, loss: Loss | None) -> Attachment | None:
    if loss is None:
        return attachment
    names = tuple(name for name in attachment.hostnames if loss.hostnames is not None and name not in loss.hostnames)
    return replace(attachment, hostnames=names) if names else None


def _check_classes(classes: Mapping[Ref, GatewayClass]) -> tuple[Problem, ...]:
    found = (check_class(resource) for resource in classes.values())
    return in_order(item for item in found if item is not None)


def _find_unlisted(policies: Mapping[Ref, PolicyNode]) -> Mapping[Ref, tuple[Problem, ...]]:
    """Give the Gateways for which the status of a policy has no place, with what is told of that."""
    found: defaultdict[Ref, list[Problem]] = defaultdict(list)
    for ref, policy in policies.items():
        for gateway in policy.ancestors[ANCESTORS_LIMIT:]:
            found[gateway].append(problem.no_place_in_policy(gateway, ref, ANCESTORS_LIMIT))
    return {gateway: in_order(problems) for gateway, problems in found.items()}


def _used(node: RouteNode | None) -> set[ServicePort]:
    """The Services that a route sends requests to, where it serves at all."""
    if node is None or not node.attachments:
        return set()
    used: set[ServicePort | None] = set()
    for rule in node.rules:
        used |= {backend.service for backend in rule.backends}
        filters = [item for backend in rule.backends for item in backend.filters]
        used |= {item.service for item in (*filters, *getattr(rule, "filters", ()))}
    return {service for service in used if service is not None}


def _differing(keys: Iterable[Name], old: Mapping[Name, object], new: Mapping[Name, object]) -> frozenset[Name]:
    return frozenset(key for key in keys if old.get(key) != new.get(key))


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
