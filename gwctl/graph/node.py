"""The nodes of the resource graph: frozen values, each tied to the resource it was built from.

The words are those of the Gateway API. Nothing here knows about HAProxy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from gwctl.api.backendtlspolicy import BackendTLSPolicy
from gwctl.api.gateway import Gateway, GatewayClass, Listener
from gwctl.api.grpcroute import GRPCRoute, GRPCRouteMatch
from gwctl.api.httproute import (
    HTTPRoute,
    HTTPRouteFilter,
    HTTPRouteMatch,
    HTTPRouteRetry,
    HTTPRouteTimeouts,
    SessionPersistence,
)
from gwctl.api.listenerset import ListenerSet
from gwctl.api.ref import Ref
from gwctl.api.sensitive import Sensitive
from gwctl.api.tcproute import TCPRoute
from gwctl.api.tlsroute import TLSRoute
from gwctl.snapshot import Snapshot


def _empty() -> MappingProxyType[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a user must fix.

    ``field`` is the path inside the object (``spec.rules[0].backendRefs[1]``), ``condition`` the status
    condition that tells it (``Accepted``, ``ResolvedRefs``, ``PartiallyInvalid``, ``Programmed``,
    ``Conflicted``), ``reason`` the specification's reason. ``parent`` is the index of the route's parentRef
    it is about (None: all of them), ``listener`` the name of the subject's listener it is about.
    """

    subject: Ref
    field: str
    condition: str
    reason: str
    message: str
    parent: int | None = None
    listener: str | None = None

    @property
    def order(self) -> tuple[Ref, str, str, str, str, int, str]:
        """What problems are sorted by."""
        parent = -1 if self.parent is None else self.parent
        return (
            self.subject,
            self.field,
            self.condition,
            self.reason,
            self.message,
            parent,
            self.listener or "",
        )


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Sort problems, so that they do not depend on what was looked at first."""
    return tuple(sorted(problems, key=lambda item: item.order))


class ListenerKey(NamedTuple):
    """Names one listener of one Gateway.

    ``listener_set`` is ``namespace/name`` of the ListenerSet that declares it, empty where the Gateway does.
    """

    namespace: str
    gateway: str
    listener: str
    listener_set: str = ""

    @property
    def owner(self) -> Ref:
        """The object that declares the listener: the Gateway or a ListenerSet."""
        if not self.listener_set:
            return Ref("Gateway", self.namespace, self.gateway)
        namespace, _, name = self.listener_set.partition("/")
        return Ref("ListenerSet", namespace, name)

    def __str__(self) -> str:
        """``namespace/gateway/listener``; for a ListenerSet's the last part is ``namespace:name:listener``."""
        listener = ":".join((*self.listener_set.split("/"), self.listener)) if self.listener_set else self.listener
        return f"{self.namespace}/{self.gateway}/{listener}"


@dataclass(frozen=True, slots=True)
class ListenerNode:
    """A listener, which its Gateway or a ListenerSet declares.

    ``hostname`` is empty when any host is meant; ``addresses`` is empty for all addresses. ``slot`` is the port of
    the pods to which the Gateway's Service leads, 0 while it has none; None where there are no such Services and
    listeners bind their own ports. ``tls`` is None where there is no TLS; ``overlaps``: another one with TLS on the
    port has names in common with it. ``resource`` is what declares it, at place ``index`` of its owner's listeners.
    """

    key: ListenerKey
    port: int
    protocol: str
    hostname: str
    addresses: tuple[str, ...]
    kinds: tuple[str, ...]
    accepted: bool
    attached_routes: int = 0
    slot: int | None = None
    tls: Literal["Terminate", "Passthrough"] | None = None
    overlaps: bool = False
    index: int = field(default=0, kw_only=True, repr=False)
    resource: Listener = field(kw_only=True, repr=False)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that can be served, with its key, as a Secret holds them.

    ``identity`` is a hash of the certificate and its chain, so an unchanged one keeps it whatever else of the Secret
    changes. ``hostnames`` are the names that it is for, wildcards included. The times are seconds since 1970. ``pem``
    is what HAProxy reads: certificate, chain, key.
    """

    secret: Ref
    identity: str
    algorithm: Literal["rsa", "ecdsa"]
    hostnames: tuple[str, ...]
    not_before: int
    not_after: int
    pem: Sensitive = field(repr=False)


@dataclass(frozen=True, slots=True)
class ListenerSetNode:
    """A ListenerSet of one of our Gateways. ``attached``: whether the Gateway lets it in, so that it has listeners.

    ``problems`` are about the whole; those of its listeners are with the Gateway's.
    """

    ref: Ref
    resource: ListenerSet
    gateway: Ref
    attached: bool
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayNode:
    """A Gateway of one of our classes.

    ``accepted``: a listener of its own stands, if only one that lets nobody in for want of authorities. ``listeners``
    are its own and, in the order of precedence, those that ListenerSets add; ``problems`` are about all of these.
    ``listener_sets`` are those that name the Gateway, in the same order.
    """

    ref: Ref
    resource: Gateway
    accepted: bool
    listeners: tuple[ListenerNode, ...]
    problems: tuple[Problem, ...] = ()
    listener_sets: tuple[ListenerSetNode, ...] = ()

    @property
    def owners(self) -> tuple[Gateway | ListenerSet, ...]:
        """What declares its listeners."""
        return (self.resource, *(node.resource for node in self.listener_sets if node.attached))

    @property
    def own_listeners(self) -> tuple[ListenerNode, ...]:
        """The listeners that the Gateway itself declares."""
        return tuple(node for node in self.listeners if not node.key.listener_set)


@dataclass(frozen=True, slots=True)
class Authorities:
    """A set of certificate authorities that others are verified by.

    ``identity`` is a hash of them, so sets of the same certificates are one, whatever objects they come from. ``pem``
    is what HAProxy reads.
    """

    identity: str
    pem: str = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class BackendTLS:
    """How connections to backends are TLS: the name that is sent and verified, and by which authorities.

    ``authorities`` None: those of the system.
    """

    hostname: str
    authorities: Authorities | None

    def __str__(self) -> str:
        return f"tls:{self.hostname}"


REFUSED = BackendTLS("", None)
"""Connections must not be made, but by clients whose TLS is passed through."""


class ServicePort(NamedTuple):
    """One port of a Service that exists: what a backendRef resolves to. ``tls`` None: connections are plain."""

    namespace: str
    name: str
    port: int
    app_protocol: str = ""
    tls: BackendTLS | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a Service's port. ``draining``: it terminates, but still serves what it has."""

    address: str
    port: int
    draining: bool = False


@dataclass(frozen=True, slots=True)
class FilterNode:
    """A filter of a rule or of a backendRef.

    ``service``: where a RequestMirror or an ExternalAuth leads, None for nowhere.
    """

    resource: HTTPRouteFilter
    service: ServicePort | None = None


@dataclass(frozen=True, slots=True)
class BackendNode:
    """A backendRef. ``service`` is None when it is invalid, forbidden or missing: its share answers 500."""

    weight: int
    service: ServicePort | None
    filters: tuple[FilterNode, ...] = ()


@dataclass(frozen=True, slots=True)
class HTTPRuleNode:
    """A rule that stands. ``index`` is its place in the resource; refused rules are left out, but for closed ones.

    ``closed``: it is refused, and answers its requests with 500 because no other rule may have them; it has neither
    filters nor backends. ``unfit`` are the places of those of its matches of which only the path can be looked at.
    """

    index: int
    name: str
    matches: tuple[HTTPRouteMatch, ...]
    filters: tuple[FilterNode, ...]
    backends: tuple[BackendNode, ...]
    timeouts: HTTPRouteTimeouts | None = None
    retry: HTTPRouteRetry | None = None
    session: SessionPersistence | None = None
    closed: bool = False
    unfit: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class GRPCRuleNode:
    """A rule of a GRPCRoute that stands or is closed, as with HTTPRoutes."""

    index: int
    name: str
    matches: tuple[GRPCRouteMatch, ...]
    filters: tuple[FilterNode, ...]
    backends: tuple[BackendNode, ...]
    session: SessionPersistence | None = None
    closed: bool = False
    unfit: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class TCPRuleNode:
    """The rule of a TCPRoute or a TLSRoute."""

    index: int
    name: str
    backends: tuple[BackendNode, ...]


Route = HTTPRoute | GRPCRoute | TCPRoute | TLSRoute
Rules = tuple[HTTPRuleNode, ...] | tuple[GRPCRuleNode, ...] | tuple[TCPRuleNode, ...]


@dataclass(frozen=True, slots=True)
class Attachment:
    """A route at a listener.

    ``hostnames``: the intersection of both sides' names; ``*`` means any; empty for TCP.
    """

    parent: int
    listener: ListenerKey
    hostnames: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RouteNode:
    """A route, what it is attached to and what stands of it.

    ``attachments`` are where it serves: accepted listeners only, and nowhere when it has no rules. If all that it has
    are closed, it is not accepted and serves nevertheless.
    ``attached`` are the listeners that count it, which may be refused ones, or a TCP or TLS listener where an older
    route has all. ``forbidden`` are those of its references that no ReferenceGrant permits.
    """

    ref: Ref
    resource: Route
    attachments: tuple[Attachment, ...]
    rules: Rules
    references: frozenset[Ref]
    problems: tuple[Problem, ...]
    attached: tuple[ListenerKey, ...] = ()
    forbidden: frozenset[Ref] = frozenset()


class Loss(NamedTuple):
    """What an older route keeps from another at a listener: some host names, or all that there is (None).

    From a route that is not accepted a younger one keeps host names too.
    """

    older: Ref
    hostnames: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class PolicyNode:
    """A BackendTLSPolicy for Services that our Gateways may use.

    ``ancestors`` are the Gateways of ours that have routes to one of its Services, the oldest first; ``tls`` what it
    asks for, None where that cannot be had.
    """

    ref: Ref
    resource: BackendTLSPolicy
    ancestors: tuple[Ref, ...]
    tls: BackendTLS | None
    problems: tuple[Problem, ...]


Verdicts = Mapping[str, BackendTLS | None]
"""By the name of a Service's port, empty for all: how connections are TLS; None: there must not be any."""


@dataclass(frozen=True, slots=True)
class Policies:
    """What all policies come to: verdicts by Service; what each asks for and its problems; the policies by Service."""

    verdicts: Mapping[Ref, Verdicts] = field(default_factory=_empty)
    judged: Mapping[Ref, tuple[BackendTLS | None, tuple[Problem, ...]]] = field(default_factory=_empty)
    by_service: Mapping[Ref, tuple[Ref, ...]] = field(default_factory=_empty)

    def is_plain(self, service: Ref, port: str) -> bool:
        """Tell whether no policy is for a port of a Service."""
        verdicts = self.verdicts.get(service, {})
        return port not in verdicts and "" not in verdicts

    def tls(self, service: Ref, port: str) -> BackendTLS | None:
        """Give how connections to a port are TLS, None where no policy is for it or that cannot be honoured."""
        verdicts = self.verdicts.get(service, {})
        return verdicts[port] if port in verdicts else verdicts.get("")


class Claim(NamedTuple):
    """What routes of one kind want: a listener."""

    listener: ListenerKey
    kind: str


@dataclass(frozen=True)
class Index:
    """What the next graph is built from, besides the nodes. Others read nothing of it but ``snapshot``.

    ``alone``: the node of each route as if there were no other; ``claims``: the routes that attach to a listener;
    ``losers``: those from which an older one keeps something of it.
    """

    snapshot: Snapshot
    controller_name: str
    service_namespace: str | None
    referrers: MappingProxyType[Ref, frozenset[Ref]] = field(default_factory=_empty)
    users: MappingProxyType[ServicePort, int] = field(default_factory=_empty)
    alone: MappingProxyType[Ref, RouteNode] = field(default_factory=_empty)
    claims: MappingProxyType[Claim, frozenset[Ref]] = field(default_factory=_empty)
    losers: MappingProxyType[ListenerKey, Mapping[Ref, Loss]] = field(default_factory=_empty)
    policies: Policies = field(default_factory=Policies)


@dataclass(frozen=True)
class Graph:
    """The whole.

    ``listeners`` holds the accepted and the refused. ``routes`` holds the routes that name one of our
    Gateways or one that does not exist; those of other controllers are left out. ``endpoints`` has every
    ServicePort that an attached route refers to: sorted tuples, empty when there is none ready. ``certificates`` has
    every listener that terminates TLS, with those that can be served, in the order of its references;
    ``client_certificates`` every Gateway that shows one to backends, ``client_authorities`` every listener whose
    clients must show one. ``orphans`` are the ListenerSets whose Gateway does not exist, ``unlisted`` has the Gateways
    for which the status of a policy has no place. The order of a mapping means nothing.

    ``changed_routes`` and ``changed_endpoints`` are what differs from the graph that this one was built upon,
    what is gone included; None means that anything may. ``base`` are the routes of that graph, by which one can tell
    which it was.
    """

    classes: Mapping[Ref, GatewayClass]
    gateways: Mapping[Ref, GatewayNode]
    listeners: Mapping[ListenerKey, ListenerNode]
    routes: Mapping[Ref, RouteNode]
    endpoints: Mapping[ServicePort, tuple[Endpoint, ...]]
    class_problems: tuple[Problem, ...] = ()
    certificates: Mapping[ListenerKey, tuple[Certificate, ...]] = field(default_factory=dict)
    client_certificates: Mapping[Ref, Certificate] = field(default_factory=dict)
    client_authorities: Mapping[ListenerKey, Authorities] = field(default_factory=dict)
    policies: Mapping[Ref, PolicyNode] = field(default_factory=dict)
    orphans: Mapping[Ref, ListenerSetNode] = field(default_factory=dict)
    unlisted: Mapping[Ref, tuple[Problem, ...]] = field(default_factory=dict)
    changed_routes: frozenset[Ref] | None = field(default=None, compare=False)
    changed_endpoints: frozenset[ServicePort] | None = field(default=None, compare=False)
    index: Index | None = field(default=None, compare=False, repr=False)
    base: Mapping[Ref, RouteNode] | None = field(default=None, compare=False, repr=False)

    @cached_property
    def listener_sets(self) -> Mapping[Ref, ListenerSetNode]:
        """The ListenerSets of our Gateways."""
        return {node.ref: node for gateway in self.gateways.values() for node in gateway.listener_sets}

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """Every problem, sorted. Computed when it is first asked for."""
        found = list(self.class_problems)
        for gateway in self.gateways.values():
            found += gateway.problems
        for listener_set in (*self.listener_sets.values(), *self.orphans.values()):
            found += listener_set.problems
        for route in self.routes.values():
            found += route.problems
        for policy in self.policies.values():
            found += policy.problems
        for problems in self.unlisted.values():
            found += problems
        return tuple(sorted(found, key=lambda problem: problem.order))
