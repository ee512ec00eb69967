"""Frontends, the hosts they serve and what each host's paths lead to.

Graph in, `Routing` out. The surprising fact: a host belongs to one listener alone. Of the listeners on a port, the one
with the most specific name takes the request even if none of its routes fits (listener isolation).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from gwctl.api.ref import Ref
from gwctl.graph.clientcertificate import falls_back
from gwctl.graph.gatewayservice import Mode, common_mode, slot_mode_of
from gwctl.graph.node import (
    Authorities,
    Certificate,
    Endpoint,
    Graph,
    ListenerKey,
    ListenerNode,
    RouteNode,
    ServicePort,
)
from gwctl.routing.rule import Candidate, PathKey, Rule, build_candidates, build_tcp_rule

ANY_HOST = "*"

Scheme = Literal["http", "https"]
Inner = Literal["https", "tls"]
"""What lies behind a look at a handshake: TLS is terminated there, for HTTP or for plain connections."""


@dataclass(frozen=True, slots=True)
class Frontend:
    """One port of one Gateway. ``addresses`` is empty for all. ``listeners`` are the accepted ones, in order of
    precedence: the Gateway's own, then those of its ListenerSets, the oldest first.

    ``slot`` is the port of the pods that the Gateway's Service leads to, None where the frontend binds its own port.
    ``falls_back``: clients that are asked for a certificate may show any or none.
    """

    namespace: str
    gateway: str
    port: int
    mode: Mode
    addresses: tuple[str, ...]
    listeners: tuple[ListenerNode, ...]
    slot: int | None = None
    falls_back: bool = False
    _owners: Mapping[str, ListenerKey] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        owners = {node.hostname or ANY_HOST: node.key for node in self.listeners}
        object.__setattr__(self, "_owners", owners)

    @property
    def key(self) -> FrontendKey:
        return FrontendKey(self.namespace, self.gateway, self.port, self.slot)

    @property
    def is_http(self) -> bool:
        """Tell whether it takes HTTP, with or without TLS."""
        return any(node.protocol in ("HTTP", "HTTPS") for node in self.listeners)

    @property
    def terminates(self) -> bool:
        """Tell whether it needs certificates."""
        return any(node.tls == "Terminate" for node in self.listeners)

    @property
    def scheme(self) -> Scheme:
        """Give the scheme of URLs that lead here."""
        return "https" if self.mode in ("https", "tls") else "http"

    def owner(self, host: str) -> ListenerKey | None:
        """Give the listener with the most specific hostname that covers ``host`` (which may be a wildcard itself)."""
        owners = self._owners
        if host in owners:
            return owners[host]
        dot = host.find(".")
        while dot >= 0:
            if (wildcard := f"*{host[dot:]}") in owners:
                return owners[wildcard]
            dot = host.find(".", dot + 1)
        return owners.get(ANY_HOST)

    def is_own(self, host: VirtualHost) -> bool:
        """Tell whether a host is the very hostname of its listener."""
        return self._owners.get(host.host) == host.listener


class FrontendKey(NamedTuple):
    """Names a frontend."""

    namespace: str
    gateway: str
    port: int
    slot: int | None = None


class VirtualHost(NamedTuple):
    """A host name of one listener: exact, ``*.suffix`` or ``*``."""

    listener: ListenerKey
    host: str


Paths = Mapping[PathKey, tuple[Candidate, ...]]


@dataclass(frozen=True, slots=True)
class SniRule:
    """What becomes of connections that ask for a name in their handshake.

    ``inner``: what terminates TLS, None where the Service does (passthrough). ``rule`` is None where connections are
    closed, and for HTTPS, whose requests have rules of their own.
    """

    listener: ListenerKey
    inner: Inner | None
    rule: Rule | None


@dataclass(frozen=True, slots=True)
class Routing:
    """What every request meets.

    ``hosts`` gives each frontend's hosts, ``paths`` each virtual host's candidates in order of precedence by path,
    ``tcp`` the rule of each TCP frontend (None: connections are closed). ``changed`` names the paths that differ from
    the routing this one was built upon; None means anything may. ``certificates`` are those of listeners that terminate
    TLS, ``client_certificates`` what Gateways show to backends, ``client_authorities`` by which the clients of
    listeners are verified. ``sni`` has the names of every frontend of mode
    ``tls``, exact, ``*.suffix`` or ``*``.
    """

    frontends: Mapping[FrontendKey, Frontend]
    hosts: Mapping[FrontendKey, Mapping[str, VirtualHost]]
    paths: Mapping[VirtualHost, Paths]
    tcp: Mapping[FrontendKey, Rule | None]
    endpoints: Mapping[ServicePort, tuple[Endpoint, ...]]
    changed: frozenset[tuple[VirtualHost, PathKey]] | None = None
    contributions: Mapping[Ref, tuple[Contribution, ...]] = field(default_factory=dict, repr=False, compare=False)
    certificates: Mapping[ListenerKey, tuple[Certificate, ...]] = field(default_factory=dict)
    sni: Mapping[FrontendKey, Mapping[str, SniRule]] = field(default_factory=dict)
    client_certificates: Mapping[Ref, Certificate] = field(default_factory=dict)
    client_authorities: Mapping[ListenerKey, Authorities] = field(default_factory=dict)

    def client_certificate(self, frontend: FrontendKey) -> Certificate | None:
        """Give what is shown to backends with TLS that ask for it, of requests that came by a frontend."""
        return self.client_certificates.get(Ref("Gateway", frontend.namespace, frontend.gateway))


class Contribution(NamedTuple):
    """What one route adds at one place."""

    frontend: FrontendKey
    host: VirtualHost
    path: PathKey
    candidate: Candidate


def covers(pattern: str, host: str) -> bool:
    """Tell whether a listener's or route's name covers a host: ``*.a.com`` covers ``x.y.a.com``, not ``a.com``."""
    if pattern in (ANY_HOST, host):
        return True
    return pattern.startswith("*.") and host.endswith(pattern[1:])


def specificity(host: str) -> tuple[bool, int]:
    """Order host names: exact before wildcard, long before short. Greater is more specific."""
    return (not host.startswith("*"), len(host))


def build_routing(graph: Graph, previous: Routing | None = None) -> Routing:
    """Build the routing of a graph; upon ``previous`` only what the graph says has changed is built again."""
    if previous is None or graph.changed_routes is None:
        return _build_all(graph)
    return _build_changed(graph, previous, graph.changed_routes)


def _build_all(graph: Graph) -> Routing:
    frontends = {frontend.key: frontend for frontend in _build_frontends(graph)}
    contributions: dict[Ref, tuple[Contribution, ...]] = {}
    hosts: dict[FrontendKey, dict[str, VirtualHost]] = {}
    paths: dict[VirtualHost, dict[PathKey, list[Candidate]]] = {}
    for key, frontend in frontends.items():
        if frontend.is_http:
            own = (VirtualHost(node.key, node.hostname or ANY_HOST) for node in frontend.listeners)
            hosts[key] = {host.host: host for host in own}
            paths.update((host, {}) for host in hosts[key].values())
    for ref, node in graph.routes.items():
        added = tuple(_contribute(node, frontends, graph))
        if added:
            contributions[ref] = added
        for item in added:
            hosts[item.frontend][item.host.host] = item.host
            paths.setdefault(item.host, {}).setdefault(item.path, []).append(item.candidate)
    ordered = {host: {path: _in_order(found) for path, found in of.items()} for host, of in paths.items()}
    return Routing(
        frontends,
        hosts,
        ordered,
        _build_tcp(graph, frontends),
        graph.endpoints,
        None,
        contributions,
        graph.certificates,
        _build_sni(graph, frontends),
        graph.client_certificates,
        graph.client_authorities,
    )


def _build_changed(graph: Graph, previous: Routing, changed: frozenset[Ref]) -> Routing:
    frontends = previous.frontends
    contributions = dict(previous.contributions)
    hosts = dict(previous.hosts)
    paths = dict(previous.paths)
    touched: set[tuple[VirtualHost, PathKey]] = set()
    copied: set[VirtualHost] = set()
    for ref in sorted(changed):
        node = graph.routes.get(ref)
        old = contributions.pop(ref, ())
        new = tuple(_contribute(node, frontends, graph)) if node is not None else ()
        if new:
            contributions[ref] = new
        if old == new:
            continue
        by_place: dict[tuple[VirtualHost, PathKey], list[Candidate]] = {(i.host, i.path): [] for i in (*old, *new)}
        for item in new:
            by_place[item.host, item.path].append(item.candidate)
        places = {item.host: item.frontend for item in (*old, *new)}
        for (host, path), added in by_place.items():
            if host not in copied:
                paths[host] = dict(paths.get(host, {}))
                copied.add(host)
            of_host = paths[host]
            assert isinstance(of_host, dict)
            kept = [c for c in of_host.get(path, ()) if c.rule.route != ref]
            candidates = _in_order((*kept, *added))
            if candidates:
                of_host[path] = candidates
            else:
                of_host.pop(path, None)
            touched.add((host, path))
        for host, frontend in places.items():
            of_frontend = dict(hosts[frontend])
            if paths[host] or frontends[frontend].is_own(host):
                of_frontend[host.host] = host
            else:
                of_frontend.pop(host.host, None)
                del paths[host]
                copied.discard(host)
            hosts[frontend] = of_frontend
    for gateway in _differing(previous.client_certificates, graph.client_certificates):
        keys = (key for key in hosts if (key.namespace, key.gateway) == gateway[1:])
        touched |= {(host, path) for key in keys for host in hosts[key].values() for path in paths[host]}
    kinds = {ref.kind for ref in changed}
    return Routing(
        frontends,
        hosts,
        paths,
        _build_tcp(graph, frontends) if "TCPRoute" in kinds else previous.tcp,
        graph.endpoints,
        frozenset(touched),
        contributions,
        graph.certificates,
        _build_sni(graph, frontends) if "TLSRoute" in kinds else previous.sni,
        graph.client_certificates,
        graph.client_authorities,
    )


def _differing(before: Mapping[Ref, Certificate], after: Mapping[Ref, Certificate]) -> list[Ref]:
    if before is after:
        return []
    return [ref for ref in before.keys() | after.keys() if before.get(ref) != after.get(ref)]


def _in_order(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    return tuple(sorted(candidates, key=lambda candidate: candidate.order))


def _build_frontends(graph: Graph) -> Iterator[Frontend]:
    for ref in sorted(graph.gateways):
        gateway = graph.gateways[ref]
        by_port: dict[int, list[ListenerNode]] = {}
        for listener in gateway.listeners:
            if gateway.accepted and listener.accepted and listener.slot != 0:
                by_port.setdefault(listener.port, []).append(listener)
        for port, listeners in sorted(by_port.items()):
            slot = listeners[0].slot
            mode = slot_mode_of(slot or 0) or common_mode({node.protocol for node in listeners})
            yield Frontend(
                ref.namespace,
                ref.name,
                port,
                mode,
                listeners[0].addresses,
                tuple(listeners),
                slot,
                falls_back(gateway.resource, port),
            )


def _contribute(node: RouteNode, frontends: Mapping[FrontendKey, Frontend], graph: Graph) -> Iterator[Contribution]:
    if node.ref.kind not in ("HTTPRoute", "GRPCRoute") or not node.attachments:
        return
    candidates = tuple(build_candidates(node))
    seen: set[VirtualHost] = set()
    for attachment in node.attachments:
        listener = graph.listeners[attachment.listener]
        key = FrontendKey(listener.key.namespace, listener.key.gateway, listener.port, listener.slot)
        frontend = frontends.get(key)
        if frontend is None:
            continue
        for hostname in attachment.hostnames:
            host = VirtualHost(listener.key, hostname)
            if host in seen or frontend.owner(hostname) != listener.key:
                continue
            seen.add(host)
            for candidate in candidates:
                yield Contribution(key, host, candidate.place, candidate)


def _build_tcp(graph: Graph, frontends: Mapping[FrontendKey, Frontend]) -> dict[FrontendKey, Rule | None]:
    tcp: dict[FrontendKey, Rule | None] = {key: None for key, item in frontends.items() if item.mode == "tcp"}
    if not tcp:
        return tcp
    by_listener = {item.listeners[0].key: key for key, item in frontends.items() if item.mode == "tcp"}
    nodes = (node for ref, node in graph.routes.items() if ref.kind == "TCPRoute")
    for node in sorted(nodes, key=lambda node: node.resource.age):
        for attachment in node.attachments:
            key = by_listener.get(attachment.listener)
            if key is not None and tcp[key] is None:
                tcp[key] = build_tcp_rule(node)
    return tcp


def _build_sni(graph: Graph, frontends: Mapping[FrontendKey, Frontend]) -> dict[FrontendKey, dict[str, SniRule]]:
    sni: dict[FrontendKey, dict[str, SniRule]] = {}
    frontend_of: dict[ListenerKey, Frontend] = {}
    for key, frontend in frontends.items():
        if frontend.mode == "tls":
            own = ((node.hostname or ANY_HOST, SniRule(node.key, _inner(node), None)) for node in frontend.listeners)
            sni[key] = dict(own)
            frontend_of.update((node.key, frontend) for node in frontend.listeners)
    for ref, node in graph.routes.items() if sni else ():
        if ref.kind == "TLSRoute" and node.attachments:
            rule = build_tcp_rule(node)
            for listener, hostnames in ((item.listener, item.hostnames) for item in node.attachments):
                if listener in frontend_of:
                    at, inner = frontend_of[listener], _inner(graph.listeners[listener])
                    owned = (name for name in hostnames if at.owner(name) == listener)
                    sni[at.key].update((name, SniRule(listener, inner, rule)) for name in owned)
    return sni


def _inner(listener: ListenerNode) -> Inner | None:
    if listener.tls == "Passthrough":
        return None
    return "https" if listener.protocol == "HTTPS" else "tls"
