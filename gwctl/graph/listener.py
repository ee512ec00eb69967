"""Gateways and their listeners: which are accepted, what each lets in, and which fight over a port.

In: a snapshot and our classes. Out: one `GatewayNode` for each Gateway of these. The surprising fact: whether a
listener is accepted may depend on other Gateways, since without Services of their own they all bind real ports of
one machine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gwctl.api.gateway import Gateway, GatewayClass, Listener
from gwctl.api.ref import Ref
from gwctl.api.wire import GATEWAY_GROUP, LabelSelector
from gwctl.graph import problem
from gwctl.graph.gatewayclass import check_class
from gwctl.graph.gatewayservice import read_slots, slot_fits
from gwctl.graph.node import GatewayNode, ListenerKey, ListenerNode, Problem
from gwctl.graph.validate import hostname_error
from gwctl.snapshot import Snapshot

# The protocols that we serve and the kinds of routes that each can take.
_HTTP_KINDS = ("HTTPRoute", "GRPCRoute")
SUPPORTED_KINDS: Mapping[str, tuple[str, ...]] = {
    "HTTP": _HTTP_KINDS,
    "HTTPS": _HTTP_KINDS,
    "TLS": ("TLSRoute",),
    "TCP": ("TCPRoute",),
}

# Protocols of one line can share a port when their host names differ.
_SHARING = {"HTTP": "HTTP", "HTTPS": "TLS", "TLS": "TLS", "TCP": "TCP", "UDP": "UDP"}
_OPERATORS = frozenset({"In", "NotIn", "Exists", "DoesNotExist"})


@dataclass
class _Claims:
    """Which Gateway holds which port on which addresses (none: on all)."""

    shares_ports: bool
    held: dict[int, list[tuple[tuple[str, ...], Ref]]] = field(default_factory=dict)

    def holder(self, gateway: Ref, port: int, addresses: tuple[str, ...]) -> Ref | None:
        if self.shares_ports:
            return None
        for taken, holder in self.held.get(port, ()):
            if holder != gateway and addresses_overlap(taken, addresses):
                return holder
        return None

    def add(self, gateway: Ref, port: int, addresses: tuple[str, ...]) -> None:
        self.held.setdefault(port, []).append((addresses, gateway))


def build_gateways(
    snapshot: Snapshot, classes: Mapping[Ref, GatewayClass], service_namespace: str | None
) -> dict[Ref, GatewayNode]:
    """The nodes of the Gateways of our classes.

    Without Services of their own (``service_namespace`` None) Gateways bind their ports on one machine, and the older
    Gateway keeps a port that two want.
    """
    ours: list[tuple[Gateway, GatewayClass]] = []
    for gateway in sorted(snapshot.gateways.values(), key=lambda item: item.age):
        resource = classes.get(Ref("GatewayClass", "", gateway.spec.gateway_class_name))
        if resource is not None:
            ours.append((gateway, resource))
    if service_namespace is None:
        claims = _Claims(shares_ports=False)
        return {gateway.ref: _build_gateway(gateway, resource, claims, None) for gateway, resource in ours}
    claims = _Claims(shares_ports=True)
    slots = read_slots((gateway.ref for gateway, _ in ours), snapshot, service_namespace)
    return {
        gateway.ref: _build_gateway(gateway, resource, claims, slots.get(gateway.ref, {})) for gateway, resource in ours
    }


def _build_gateway(
    gateway: Gateway, resource: GatewayClass, claims: _Claims, slots: Mapping[int, int] | None
) -> GatewayNode:
    ref = gateway.ref
    addresses, wrong = _read_addresses(gateway)
    bound = addresses if slots is None else ()
    if check_class(resource) is not None:
        message = f"{resource.ref} is not accepted"
        wrong.append(problem.invalid_parameters(ref, "spec.gatewayClassName", message))
    infrastructure = gateway.spec.infrastructure
    if infrastructure is not None and infrastructure.parameters_ref is not None:
        message = "parameters are not supported"
        wrong.append(problem.invalid_parameters(ref, "spec.infrastructure.parametersRef", message))
    found = list(wrong)
    if gateway.spec.default_scope == "All":
        message = "default Gateways are not supported"
        found.append(problem.unsupported_gateway_field(ref, "spec.defaultScope", message))
    conflicts = _find_conflicts(gateway)
    listeners = []
    for index, listener in enumerate(gateway.spec.listeners):
        kinds, notes = _read_kinds(gateway, index, listener)
        refusals = _check_listener(gateway, index, listener) + conflicts.get(index, [])
        if not refusals and not wrong:
            holder = claims.holder(ref, listener.port, bound)
            if holder is not None:
                path = f"spec.listeners[{index}]"
                refusals = [problem.port_unavailable(ref, path, listener.name, listener.port, holder)]
        accepted = not refusals and not wrong
        if accepted:
            claims.add(ref, listener.port, bound)
        found += notes + refusals + _check_options(ref, index, listener)
        listeners.append(
            ListenerNode(
                ListenerKey(ref.namespace, ref.name, listener.name),
                listener.port,
                listener.protocol,
                (listener.hostname or "").lower(),
                bound,
                kinds,
                accepted,
                slot=None if slots is None else _slot(listener, slots),
                tls=_tls_mode(listener),
            )
        )
    accepted = any(node.accepted for node in listeners)
    if not accepted and not wrong:
        found.append(problem.listeners_not_valid(ref))
    return GatewayNode(ref, gateway, accepted, tuple(listeners), tuple(sorted(found, key=lambda item: item.order)))


def _check_options(gateway: Ref, index: int, listener: Listener) -> list[Problem]:
    return [
        problem.unsupported_gateway_field(
            gateway, f"spec.listeners[{index}].tls.options[{key}]", "options of TLS are not supported"
        )
        for key in sorted(listener.tls.options if listener.tls is not None else ())
    ]


def _tls_mode(listener: Listener) -> Literal["Terminate", "Passthrough"] | None:
    if listener.tls is not None:
        return listener.tls.mode
    return "Terminate" if listener.protocol == "HTTPS" else None


def _slot(listener: Listener, slots: Mapping[int, int]) -> int:
    slot = slots.get(listener.port, 0)
    return slot if slot_fits(slot, listener.protocol) else 0


def _read_addresses(gateway: Gateway) -> tuple[tuple[str, ...], list[Problem]]:
    addresses: set[str] = set()
    found: list[Problem] = []
    for index, address in enumerate(gateway.spec.addresses):
        if address.type != "IPAddress":
            message = f"addresses of type {address.type} are not supported, only IPAddress"
            found.append(problem.unsupported_address(gateway.ref, f"spec.addresses[{index}].type", message))
        elif address.value:
            addresses.add(str(ipaddress.ip_address(address.value)))
    return tuple(sorted(addresses)), found


def _check_listener(gateway: Gateway, index: int, listener: Listener) -> list[Problem]:
    path = f"spec.listeners[{index}]"
    found: list[Problem] = []
    if listener.protocol not in SUPPORTED_KINDS:
        if listener.protocol == "UDP":
            message = "HAProxy proxies no UDP"
        else:
            message = f"{listener.protocol} is not a protocol that is supported"
        found.append(problem.unsupported_protocol(gateway.ref, path, listener.name, message))
    hostname = hostname_error(listener.hostname or "")
    if hostname is not None:
        found.append(problem.unsupported_listener_value(gateway.ref, f"{path}.hostname", listener.name, hostname))
    namespaces = listener.allowed_routes.namespaces
    if namespaces.from_ == "Selector" and namespaces.selector is not None:
        for place, wanted in enumerate(namespaces.selector.match_expressions):
            where = f"{path}.allowedRoutes.namespaces.selector.matchExpressions[{place}]"
            if wanted.operator not in _OPERATORS:
                message = f"must be In, NotIn, Exists or DoesNotExist, not {wanted.operator!r}"
                found.append(
                    problem.unsupported_listener_value(gateway.ref, f"{where}.operator", listener.name, message)
                )
            elif (wanted.operator in ("In", "NotIn")) != bool(wanted.values):
                message = "must be given for In and NotIn, and for these only"
                found.append(problem.unsupported_listener_value(gateway.ref, f"{where}.values", listener.name, message))
    return found


def _read_kinds(gateway: Gateway, index: int, listener: Listener) -> tuple[tuple[str, ...], list[Problem]]:
    supported = SUPPORTED_KINDS.get(listener.protocol, ())
    wanted = listener.allowed_routes.kinds
    if not wanted:
        return supported, []
    kinds: list[str] = []
    found: list[Problem] = []
    for place, item in enumerate(wanted):
        if item.group == GATEWAY_GROUP and item.kind in supported:
            if item.kind not in kinds:
                kinds.append(item.kind)
        else:
            path = f"spec.listeners[{index}].allowedRoutes.kinds[{place}]"
            name = f"{item.group}/{item.kind}" if item.group else item.kind
            message = f"a listener with protocol {listener.protocol} takes no {name}"
            found.append(problem.invalid_route_kinds(gateway.ref, path, listener.name, message))
    return tuple(kinds), found


def _find_conflicts(gateway: Gateway) -> dict[int, list[Problem]]:
    """The listeners that are not distinct, by place. No one of them wins (Gateway.spec.listeners)."""
    by_port: dict[tuple[bool, int], list[int]] = {}
    listeners = gateway.spec.listeners
    for index, listener in enumerate(listeners):
        if listener.protocol in _SHARING:
            by_port.setdefault((listener.protocol == "UDP", listener.port), []).append(index)
    found: dict[int, list[Problem]] = {}
    for indices in by_port.values():
        for index in indices:
            listener = listeners[index]
            path = f"spec.listeners[{index}]"
            others = [listeners[other] for other in indices if other != index]
            line = _SHARING[listener.protocol]
            strangers = sorted(other.name for other in others if _SHARING[other.protocol] != line)
            same = sorted(
                other.name
                for other in others
                if _SHARING[other.protocol] == line and (other.hostname or "") == (listener.hostname or "")
            )
            if strangers:
                message = f"port {listener.port} has another protocol at {', '.join(strangers)}"
                found.setdefault(index, []).append(problem.protocol_conflict(gateway.ref, path, listener.name, message))
            elif same and line in ("TCP", "UDP"):
                message = f"port {listener.port} is also that of {', '.join(same)}"
                found.setdefault(index, []).append(problem.protocol_conflict(gateway.ref, path, listener.name, message))
            elif same:
                message = f"port and hostname are also those of {', '.join(same)}"
                found.setdefault(index, []).append(problem.hostname_conflict(gateway.ref, path, listener.name, message))
    return found


def addresses_overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two sets of bind addresses share one. Empty is all; so are ``::`` and, of IPv4, ``0.0.0.0``."""
    if not one or not other:
        return True
    return any(_covers(a, b) or _covers(b, a) for a in one for b in other)


def _covers(wide: str, address: str) -> bool:
    return wide in (address, "::") or (wide == "0.0.0.0" and ":" not in address)


def selector_fits(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Whether labels fit a selector.

    None fits nothing, an empty selector everything (meta/v1 LabelSelector).
    """
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in selector.match_labels.items()):
        return False
    for wanted in selector.match_expressions:
        value = labels.get(wanted.key)
        match wanted.operator:
            case "In":
                fits = value is not None and value in wanted.values
            case "NotIn":
                fits = value is None or value not in wanted.values
            case "Exists":
                fits = value is not None
            case "DoesNotExist":
                fits = value is None
            case _:
                fits = False
        if not fits:
            return False
    return True
