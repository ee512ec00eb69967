"""Routes that want the same of one listener: which of them get it.

In: the routes that attach to a listener, as if each were alone. Out: those that lose, with an older route that has what
they want. HTTPRoutes and GRPCRoutes share no host name (GRPCRouteSpec.hostnames), TLSRoutes neither, and a TCP listener
has one route. The surprising facts: an HTTPRoute or GRPCRoute that has lost takes no host name from a younger one, so
who loses depends on all that are older; and one that is not accepted, but closes its hosts, gives way to any that is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from gwctl.api.ref import Ref
from gwctl.graph.node import ListenerKey, ListenerNode, Loss, RouteNode

ANY_HOST = "*"

RIVALS = {"HTTPRoute": "GRPCRoute", "GRPCRoute": "HTTPRoute"}
"""The kinds of routes that cannot share a host name, each with the other."""


def find_losers(nodes: Iterable[RouteNode], listener: ListenerKey) -> dict[Ref, Loss]:
    """Of the HTTPRoutes and GRPCRoutes of a listener, give those that lose: to one of the other kind, and all.

    Routes of which no rule stands come last, and lose only names that another's cover; they keep the rest closed.
    """
    taken = {kind: _Hosts() for kind in RIVALS}
    losers: dict[Ref, Loss] = {}
    for node in sorted(nodes, key=lambda node: (listener not in node.attached, node.resource.age, node.ref.kind)):
        hostnames, rivals = hostnames_at(node, listener), taken[RIVALS[node.ref.kind]]
        if listener in node.attached:
            winner = next((ref for ref in map(rivals.find, hostnames) if ref is not None), None)
            if winner is not None:
                losers[node.ref] = Loss(winner)
                continue
        else:
            covered = {name: ref for name in hostnames if (ref := rivals.find_covering(name)) is not None}
            if covered:
                losers[node.ref] = Loss(next(iter(covered.values())), tuple(covered))
            hostnames = [name for name in hostnames if name not in covered]
        for hostname in hostnames:
            taken[node.ref.kind].add(hostname, node.ref)
    return losers


def find_tcp_losers(nodes: Collection[RouteNode]) -> dict[Ref, Loss]:
    """Of the TCPRoutes of a listener, give all but the oldest."""
    oldest = min(nodes, key=lambda node: node.resource.age).ref
    return {node.ref: Loss(oldest) for node in nodes if node.ref != oldest}


def find_tls_losers(nodes: Iterable[RouteNode], listener: ListenerKey) -> dict[Ref, Loss]:
    """Of the TLSRoutes of a listener, give those that do not get all of their host names."""
    taken: dict[str, Ref] = {}
    losers: dict[Ref, Loss] = {}
    for node in sorted(nodes, key=lambda node: node.resource.age):
        names = hostnames_at(node, listener)
        lost = tuple(dict.fromkeys(name for name in names if name in taken))
        if lost:
            losers[node.ref] = Loss(taken[lost[0]], lost)
        taken.update((name, node.ref) for name in names if name not in lost)
    return losers


def mark_overlaps(listeners: Iterable[ListenerNode]) -> Iterator[ListenerNode]:
    """Give listeners of a Gateway, those marked whose TLS is for names that another of the port covers too."""
    nodes = list(listeners)
    names: dict[int, list[str]] = {}
    for node in nodes:
        if node.accepted and node.tls is not None:
            names.setdefault(node.port, []).append(node.hostname or ANY_HOST)
    overlapping = {(port, name) for port, of_port in names.items() for name in _find_overlaps(of_port)}
    for node in nodes:
        is_marked = node.accepted and node.tls is not None and (node.port, node.hostname or ANY_HOST) in overlapping
        yield replace(node, overlaps=True) if is_marked else node


def _find_overlaps(names: Collection[str]) -> Iterator[str]:
    known = set(names)
    for name in known:
        wider = {f"*{suffix}" for suffix in _suffixes(name)} & known - {name}
        if wider:
            yield name
            yield from wider


def hostnames_at(node: RouteNode, listener: ListenerKey) -> list[str]:
    """The names under which a route serves at a listener."""
    return [name for item in node.attachments if item.listener == listener for name in item.hostnames]


def overlap(one: str, other: str) -> bool:
    """Whether two host names, exact, ``*.suffix`` or ``*``, mean a host in common."""
    return one == other or _covers(one, other) or _covers(other, one)


def _covers(wide: str, narrow: str) -> bool:
    return wide == ANY_HOST or (wide.startswith("*.") and narrow.endswith(wide[1:]))


class _Hosts:
    """Host names that are taken, with who has taken them first."""

    def __init__(self) -> None:
        self._at: dict[str, Ref] = {}
        self._below: dict[str, Ref] = {}

    def add(self, hostname: str, route: Ref) -> None:
        self._at.setdefault(hostname, route)
        for suffix in _suffixes(hostname):
            self._below.setdefault(suffix, route)

    def find(self, hostname: str) -> Ref | None:
        """Give a route with a name that overlaps."""
        if hostname == ANY_HOST:
            return self._below.get("")
        found = self._at.get(hostname)
        if found is None and hostname.startswith("*."):
            found = self._below.get(hostname[1:])
        return found or self.find_covering(hostname)

    def find_covering(self, hostname: str) -> Ref | None:
        """Give a route with a name that means every host that this one means."""
        names = (hostname, *(f"*{suffix}" for suffix in _suffixes(hostname)))
        return next((self._at[name] for name in names if name in self._at), None)


def _suffixes(hostname: str) -> Iterator[str]:
    """Yield what follows each label, with its dot: ``.a.com`` and ``.com`` of ``x.a.com``; at last nothing."""
    start = hostname.find(".")
    while start >= 0:
        yield hostname[start:]
        start = hostname.find(".", start + 1)
    yield ""
