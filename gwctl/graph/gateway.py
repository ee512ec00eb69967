"""Gateways with their listeners: their own first, then those that ListenerSets add.

In: a snapshot and our classes. Out: one `GatewayNode` for each Gateway of these. The surprising fact: whether a
listener is accepted may depend on other Gateways, since without Services of their own they all bind real ports of
one machine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gwctl.api.gateway import Gateway, GatewayClass, Listener
from gwctl.api.listenerset import ListenerSet
from gwctl.api.ref import Ref
from gwctl.api.unreadable import UnreadableGateway
from gwctl.graph import problem
from gwctl.graph.conflict import mark_overlaps
from gwctl.graph.gatewayclass import check_class
from gwctl.graph.gatewayservice import read_slots
from gwctl.graph.listener import (
    HeldPorts,
    addresses_overlap,
    check_listener,
    check_options,
    check_selector,
    find_conflicts,
    read_kinds,
    slot_of,
    tls_mode,
)
from gwctl.graph.listenerset import lets_in
from gwctl.graph.node import GatewayNode, ListenerKey, ListenerNode, ListenerSetNode, Problem, in_order
from gwctl.snapshot import Snapshot


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
        held = self.held.setdefault(port, [])
        if (addresses, gateway) not in held:
            held.append((addresses, gateway))


def build_gateways(
    snapshot: Snapshot, classes: Mapping[Ref, GatewayClass], service_namespace: str | None
) -> dict[Ref, GatewayNode]:
    """The nodes of the Gateways of our classes.

    Without Services of their own (``service_namespace`` None) Gateways bind their ports on one machine, and the older
    Gateway keeps a port that two want; but no ListenerSet takes one from a Gateway.
    """
    ours: list[tuple[Gateway, GatewayClass]] = []
    for gateway in sorted(snapshot.gateways.values(), key=lambda item: item.age):
        resource = classes.get(Ref("GatewayClass", "", gateway.spec.gateway_class_name))
        if resource is not None:
            ours.append((gateway, resource))
    claims = _Claims(shares_ports=service_namespace is not None)
    slots: Mapping[Ref, Mapping[int, int]] | None = None
    if service_namespace is not None:
        slots = read_slots((gateway.ref for gateway, _ in ours), snapshot, service_namespace)
    drafts: dict[Ref, _Draft] = {}
    for gateway, resource in ours:
        draft = drafts[gateway.ref] = _Draft(gateway, claims, None if slots is None else slots.get(gateway.ref, {}))
        draft.add_own(resource)
    for listener_set in sorted(snapshot.listener_sets.values(), key=lambda item: item.age):
        if listener_set.parent in drafts:
            drafts[listener_set.parent].add_set(listener_set, snapshot)
    return {ref: draft.finish() for ref, draft in drafts.items()}


class _Draft:
    """A Gateway's node in the making."""

    def __init__(self, gateway: Gateway, claims: _Claims, slots: Mapping[int, int] | None) -> None:
        self._gateway = gateway
        self._claims = claims
        self._slots = slots
        self._addresses, self._wrong = _read_addresses(gateway)
        self._bound = self._addresses if slots is None else ()
        self._held = HeldPorts()
        self._listeners: list[ListenerNode] = []
        self._sets: list[ListenerSetNode] = []
        self._problems: list[Problem] = []
        self._accepted = False

    def add_own(self, resource: GatewayClass) -> None:
        """Add the Gateway's own listeners, which decide whether it is accepted."""
        ref, spec, wrong = self._gateway.ref, self._gateway.spec, self._wrong
        if isinstance(self._gateway, UnreadableGateway):
            self._problems += (problem.unreadable_gateway(ref, *told) for told in self._gateway.wrong)
            return
        if check_class(resource) is not None:
            message = f"{resource.ref} is not accepted"
            wrong.append(problem.invalid_parameters(ref, "spec.gatewayClassName", message))
        if spec.infrastructure is not None and spec.infrastructure.parameters_ref is not None:
            message = "parameters are not supported"
            wrong.append(problem.invalid_parameters(ref, "spec.infrastructure.parametersRef", message))
        self._problems += wrong
        if spec.default_scope == "All":
            message = "default Gateways are not supported"
            self._problems.append(problem.unsupported_gateway_field(ref, "spec.defaultScope", message))
        allowed = spec.allowed_listeners
        if allowed is not None and allowed.namespaces.from_ == "Selector":
            path = "spec.allowedListeners.namespaces.selector"
            for where, message in check_selector(allowed.namespaces.selector, path):
                self._problems.append(problem.unsupported_gateway_field(ref, where, message))
        self._add(ref, spec.listeners, find_conflicts(ref, spec.listeners), stands=not wrong)
        # Also those that are not accepted: no ListenerSet takes what the Gateway itself wants.
        for listener in spec.listeners:
            self._held.add(ref, listener)
        self._accepted = any(node.accepted for node in self._listeners)
        if not self._accepted and not wrong:
            self._problems.append(problem.listeners_not_valid(ref))

    def add_set(self, listener_set: ListenerSet, snapshot: Snapshot) -> None:
        """Add the listeners of a ListenerSet, if the Gateway lets it in, after all that are older."""
        ref, gateway, listeners = listener_set.ref, self._gateway.ref, listener_set.spec.listeners
        found: list[Problem] = []
        attached = lets_in(self._gateway, listener_set, snapshot)
        if isinstance(self._gateway, UnreadableGateway):
            found.append(problem.parent_not_accepted(ref, f"{gateway} cannot be read"))
        elif not attached:
            found.append(problem.listener_set_not_allowed(ref, gateway))
        elif not self._accepted:
            found.append(problem.parent_not_accepted(ref, f"{gateway} is not accepted"))
        if attached:
            late = ((index, self._held.find_conflict(ref, index, item)) for index, item in enumerate(listeners))
            conflicts = {index: [conflict] for index, conflict in late if conflict is not None}
            conflicts |= find_conflicts(ref, listeners, lost=conflicts.keys())
            for node in self._add(ref, listeners, conflicts, stands=self._accepted):
                if node.accepted:
                    self._held.add(ref, node.resource)
        self._sets.append(ListenerSetNode(ref, listener_set, gateway, attached, tuple(found)))

    def finish(self) -> GatewayNode:
        return GatewayNode(
            self._gateway.ref,
            self._gateway,
            self._accepted,
            tuple(mark_overlaps(self._listeners)),
            in_order(self._problems),
            tuple(self._sets),
        )

    def _add(
        self, owner: Ref, listeners: Sequence[Listener], conflicts: Mapping[int, list[Problem]], *, stands: bool
    ) -> list[ListenerNode]:
        gateway, added = self._gateway.ref, []
        listener_set = "" if owner == gateway else f"{owner.namespace}/{owner.name}"
        for index, listener in enumerate(listeners):
            kinds, notes = read_kinds(owner, index, listener)
            refusals = check_listener(owner, index, listener) + conflicts.get(index, [])
            if not refusals and stands:
                holder = self._claims.holder(gateway, listener.port, self._bound)
                if holder is not None:
                    path = f"spec.listeners[{index}]"
                    refusals = [problem.port_unavailable(owner, path, listener.name, listener.port, holder)]
            accepted = not refusals and stands
            if accepted:
                self._claims.add(gateway, listener.port, self._bound)
            self._problems += notes + refusals + check_options(owner, index, listener)
            node = ListenerNode(
                ListenerKey(gateway.namespace, gateway.name, listener.name, listener_set),
                listener.port,
                listener.protocol,
                (listener.hostname or "").lower(),
                self._bound,
                kinds,
                accepted,
                slot=None if self._slots is None else slot_of(listener, self._slots),
                tls=tls_mode(listener),
                index=index,
                resource=listener,
            )
            added.append(node)
        self._listeners += added
        return added


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
