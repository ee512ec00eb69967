"""The nodes of the resource graph: frozen values, each tied to the resource it was built from.

The words are those of the Gateway API. Nothing here knows about HAProxy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gwctl.api.gateway import Gateway, GatewayClass
from gwctl.api.httproute import HTTPRoute, HTTPRouteFilter, HTTPRouteMatch
from gwctl.api.ref import Ref
from gwctl.api.tcproute import TCPRoute


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a user must fix.

    ``field`` is the path inside the object (``spec.rules[0].backendRefs[1]``), ``condition`` the status condition
    that tells it (``Accepted``, ``ResolvedRefs``, ``PartiallyInvalid``, ``Programmed``, ``Conflicted``), ``reason`` the
    specification's reason. ``parent`` is the index of the route's parentRef it is about (None: all of them),
    ``listener`` the name of the Gateway's listener it is about.
    """

    subject: Ref
    field: str
    condition: str
    reason: str
    message: str
    parent: int | None = None
    listener: str | None = None


class ListenerKey(NamedTuple):
    """Names one listener of one Gateway."""

    namespace: str
    gateway: str
    listener: str


@dataclass(frozen=True, slots=True)
class ListenerNode:
    """A listener. ``hostname`` is empty when any host is meant; ``addresses`` is empty for all addresses."""

    key: ListenerKey
    port: int
    protocol: str
    hostname: str
    addresses: tuple[str, ...]
    kinds: tuple[str, ...]
    accepted: bool
    attached_routes: int = 0


@dataclass(frozen=True, slots=True)
class GatewayNode:
    """A Gateway of one of our classes."""

    ref: Ref
    resource: Gateway
    accepted: bool
    listeners: tuple[ListenerNode, ...]


class ServicePort(NamedTuple):
    """One port of a Service that exists: what a backendRef resolves to."""

    namespace: str
    name: str
    port: int
    app_protocol: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a Service's port. ``draining``: it terminates, but still serves what it has."""

    address: str
    port: int
    draining: bool = False


@dataclass(frozen=True, slots=True)
class BackendNode:
    """A backendRef. ``service`` is None when it is invalid, forbidden or missing: its share answers 500."""

    weight: int
    service: ServicePort | None


@dataclass(frozen=True, slots=True)
class HTTPRuleNode:
    """A rule that stands. ``index`` is its place in the resource; refused rules are left out."""

    index: int
    name: str
    matches: tuple[HTTPRouteMatch, ...]
    filters: tuple[HTTPRouteFilter, ...]
    backends: tuple[BackendNode, ...]


@dataclass(frozen=True, slots=True)
class TCPRuleNode:
    """The rule of a TCPRoute."""

    index: int
    name: str
    backends: tuple[BackendNode, ...]


@dataclass(frozen=True, slots=True)
class Attachment:
    """A route at a listener. ``hostnames``: the intersection of both sides' names; ``*`` means any; empty for TCP."""

    parent: int
    listener: ListenerKey
    hostnames: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RouteNode:
    """A route, what it is attached to and what stands of it."""

    ref: Ref
    resource: HTTPRoute | TCPRoute
    attachments: tuple[Attachment, ...]
    rules: tuple[HTTPRuleNode, ...] | tuple[TCPRuleNode, ...]
    references: frozenset[Ref]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """The whole. ``changed_routes`` is what differs from the graph this one was built upon; None means anything may.

    ``listeners`` holds the accepted and the refused; ``endpoints`` has every ServicePort that an attached route
    refers to, sorted tuples, empty when there is none ready. Problems are sorted.
    """

    classes: Mapping[Ref, GatewayClass]
    gateways: Mapping[Ref, GatewayNode]
    listeners: Mapping[ListenerKey, ListenerNode]
    routes: Mapping[Ref, RouteNode]
    endpoints: Mapping[ServicePort, tuple[Endpoint, ...]]
    problems: tuple[Problem, ...]
    changed_routes: frozenset[Ref] | None = None
