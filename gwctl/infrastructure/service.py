"""The Service that each Gateway has, and the listener slots that its ports lead to.

Graph and Snapshot in; out come the Services to write and to delete. The Service lives in gwctl's own namespace, since
it selects gwctl's pods. The surprising fact: an *alias*, a Service of type ExternalName in the Gateway's namespace,
gives it a name where its users are; it carries no traffic of its own (docs/adr/0004).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gwctl.api.gateway import Gateway, Infrastructure
from gwctl.api.ref import Ref
from gwctl.api.service import Service
from gwctl.api.wire import is_label
from gwctl.graph.gatewayservice import (
    GATEWAY_ANNOTATION,
    SLOT_RANGES,
    SlotRange,
    bounded_name,
    common_mode,
    owner_of,
    service_ref,
    slots_of,
)
from gwctl.graph.node import GatewayNode, Graph, ListenerNode
from gwctl.snapshot import Snapshot

MANAGED_BY = "app.kubernetes.io/managed-by"
GATEWAY_NAME_LABEL = "gateway.networking.k8s.io/gateway-name"
GATEWAY_NAMESPACE_LABEL = "gwctl.io/gateway-namespace"
CONTROLLER_ANNOTATION = "gwctl.io/controller"
CONTENT_ANNOTATION = "gwctl.io/content"
"""Holds a hash of what gwctl wrote, so that a Service is written again only when that would be something else."""

_LONGEST_LABEL_VALUE = 63

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """How Gateways' Services are made.

    ``controller`` tells the Services of one gwctl from those of another. ``namespace``: that of gwctl's pods, which
    ``selector`` selects. ``type``: LoadBalancer, ClusterIP or NodePort.
    ``aliases``: whether a Gateway gets an alias in its own namespace; ``cluster_domain`` completes the name that
    it stands for. ``dual_stack``: ask for addresses of both families where the cluster has both. ``http3``: lead UDP to
    listeners for HTTPS too.
    """

    controller: str
    namespace: str
    selector: Mapping[str, str]
    type: str = "LoadBalancer"
    annotations: Mapping[str, str] = field(default_factory=dict)
    external_traffic_policy: str = ""
    aliases: bool = True
    cluster_domain: str = "cluster.local"
    dual_stack: bool = False
    http3: bool = False


@dataclass(frozen=True, slots=True)
class ApplyService:
    """Write a Service on behalf of a Gateway."""

    gateway: Ref
    ref: Ref
    manifest: Manifest

    def __str__(self) -> str:
        return f"apply {self.ref} of {self.gateway}"


@dataclass(frozen=True, slots=True)
class DeleteService:
    """Delete a Service whose Gateway is gone."""

    gateway: Ref
    ref: Ref

    def __str__(self) -> str:
        return f"delete {self.ref} of {self.gateway}"


ServiceChange = ApplyService | DeleteService


def requested_addresses(gateway: Gateway) -> tuple[str, ...]:
    """Give the IP addresses that a Gateway asks for by value."""
    return tuple(item.value for item in gateway.spec.addresses if item.type == "IPAddress" and item.value)


def plan_services(
    graph: Graph,
    snapshot: Snapshot,
    settings: ServiceSettings,
    avoid: Collection[int] = (),
    exists: Callable[[Ref], bool] = lambda gateway: False,
) -> tuple[ServiceChange, ...]:
    """Give what makes the Services those that the Gateways need, in order; empty when they are.

    ``avoid``: slots that were free but a moment ago, taken only where no other is left. ``exists`` tells of a Gateway
    that is not in the snapshot whether there is one all the same, which cannot be read: it keeps what it has.
    """
    changes: list[ServiceChange] = []
    kept: set[Ref] = set()
    free = _FreeSlots(graph, snapshot, settings.namespace, avoid)
    for gateway in sorted(graph.gateways.values(), key=lambda node: node.resource.age):
        ref = service_ref(gateway.ref, settings.namespace)
        alias = _alias_ref(gateway.resource, snapshot, kept)
        kept |= {ref, alias} if settings.aliases else {ref}
        if not gateway.accepted or len(requested_addresses(gateway.resource)) > 1:
            continue
        manifest = _build_service(gateway, graph, snapshot.services.get(ref), settings, free)
        wanted = [(ref, manifest)]
        if settings.aliases:
            wanted.append((alias, _build_alias(gateway, ref, alias, settings)))
        for name, content in wanted:
            live = snapshot.services.get(name)
            if live is None or (_is_ours_to_change(live, gateway.ref) and not _is_as_written(live, content)):
                changes.append(ApplyService(gateway.ref, name, content))
    changes += _deletions(snapshot, settings, kept, exists)
    return tuple(changes)


def _alias_ref(gateway: Gateway, snapshot: Snapshot, taken: Collection[Ref]) -> Ref:
    """Name a Gateway's alias: ``gateway-class`` in the Gateway's namespace, and otherwise where that is another's."""
    name = f"{gateway.metadata.name}-{gateway.spec.gateway_class_name}"
    ref = Ref("Service", gateway.ref.namespace, name)
    other = Ref("Service", ref.namespace, bounded_name(name, f"{gateway.ref} {gateway.spec.gateway_class_name}"))
    if not is_label(name) or name[0].isdigit() or ref in taken or other in snapshot.services:
        return other
    owner = owner_of(snapshot.services[ref]) if ref in snapshot.services else None
    return ref if owner in (None, gateway.ref) else other


def _is_ours_to_change(service: Service, gateway: Ref) -> bool:
    """One that is on its way out is made anew when it is gone."""
    return owner_of(service) == gateway and service.metadata.deletion_timestamp is None


def _deletions(
    snapshot: Snapshot, settings: ServiceSettings, kept: set[Ref], exists: Callable[[Ref], bool]
) -> Iterator[DeleteService]:
    """Without aliases there is no right to delete those that are there still: they go with their Gateways."""
    for ref in sorted(snapshot.services):
        service = snapshot.services[ref]
        owner = owner_of(service)
        made_by = service.metadata.annotations.get(CONTROLLER_ANNOTATION)
        if owner is None or ref in kept or made_by != settings.controller:
            continue
        is_unreadable = owner not in snapshot.gateways and exists(owner)
        may_delete = settings.aliases or ref.namespace == settings.namespace
        if may_delete and not is_unreadable and service.metadata.deletion_timestamp is None:
            yield DeleteService(owner, ref)


class _FreeSlots:
    """Gives out listener slots that no Service leads to."""

    def __init__(self, graph: Graph, snapshot: Snapshot, namespace: str, avoid: Collection[int]) -> None:
        self._held: set[int] = set()
        for ref, service in snapshot.services.items():
            if ref.namespace == namespace and owner_of(service) is not None:
                self._held |= set(slots_of(service).values())
        self._held |= {node.slot for node in graph.listeners.values() if node.slot}
        self._avoid = avoid

    def take(self, ports: SlotRange) -> int | None:
        free = (port for port in range(ports.first, ports.first + ports.limit) if port not in self._held)
        second_choice: int | None = None
        for port in free:
            if port not in self._avoid:
                self._held.add(port)
                return port
            second_choice = second_choice or port
        if second_choice is not None:
            self._held.add(second_choice)
        return second_choice


def _build_service(
    gateway: GatewayNode, graph: Graph, live: Service | None, settings: ServiceSettings, free: _FreeSlots
) -> Manifest:
    by_port: dict[int, list[ListenerNode]] = {}
    for listener in gateway.listeners:
        if listener.accepted:
            by_port.setdefault(listener.port, []).append(listener)
    slots = {port: _choose_slot(listeners, free) for port, listeners in by_port.items()}
    https = {port for port, listeners in by_port.items() if any(node.protocol == "HTTPS" for node in listeners)}
    spec: dict[str, Any] = {
        "type": settings.type,
        "selector": dict(settings.selector),
        "ports": [
            {"name": f"port-{port}{suffix}", "protocol": protocol, "port": port, "targetPort": slot}
            for port, slot in sorted(slots.items())
            for protocol, suffix in _PROTOCOLS[: 2 if settings.http3 and port in https else 1]
            if slot
        ],
    }
    if settings.dual_stack:
        spec["ipFamilyPolicy"] = "PreferDualStack"
    if settings.external_traffic_policy and settings.type != "ClusterIP":
        spec["externalTrafficPolicy"] = settings.external_traffic_policy
    for address in requested_addresses(gateway.resource):
        if settings.type == "LoadBalancer":
            spec["loadBalancerIP"] = address
        elif live is None or address in live.spec.cluster_ips:  # a cluster IP never changes
            spec["clusterIP"] = address
    resource = graph.classes[Ref("GatewayClass", "", gateway.resource.spec.gateway_class_name)]
    owner = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "name": resource.metadata.name,
        "uid": resource.metadata.uid,
    }
    ref = service_ref(gateway.ref, settings.namespace)
    return _manifest(gateway, settings, ref, owner, spec)


_PROTOCOLS = (("TCP", ""), ("UDP", "-h3"))
"""Of a port that takes HTTP/3 the second too, and how the name of the Service's port then ends."""


def _choose_slot(listeners: Sequence[ListenerNode], free: _FreeSlots) -> int:
    """Give a port's slot: the one it has, but where that does not serve all of its listeners; 0 where none is left."""
    held = [listener.slot or 0 for listener in listeners]
    wanted = common_mode({listener.protocol for listener in listeners})
    return min(held) or free.take(SLOT_RANGES[wanted]) or max(held)


def _build_alias(gateway: GatewayNode, target: Ref, ref: Ref, settings: ServiceSettings) -> Manifest:
    owner = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "name": gateway.ref.name,
        "uid": gateway.resource.metadata.uid,
    }
    spec = {
        "type": "ExternalName",
        "externalName": f"{target.name}.{target.namespace}.svc.{settings.cluster_domain}",
    }
    return _manifest(gateway, settings, ref, owner, spec)


def _manifest(
    gateway: GatewayNode, settings: ServiceSettings, ref: Ref, owner: Mapping[str, str], spec: Mapping[str, Any]
) -> Manifest:
    """Put a Service together: what users ask for first, so that it never hides what gwctl itself reads."""
    infrastructure = gateway.resource.spec.infrastructure or Infrastructure()
    labels = {**infrastructure.labels, MANAGED_BY: "gwctl", GATEWAY_NAMESPACE_LABEL: gateway.ref.namespace}
    if len(gateway.ref.name) <= _LONGEST_LABEL_VALUE:
        labels[GATEWAY_NAME_LABEL] = gateway.ref.name
    annotations = {
        **({} if spec["type"] == "ExternalName" else settings.annotations),
        **infrastructure.annotations,
        GATEWAY_ANNOTATION: f"{gateway.ref.namespace}/{gateway.ref.name}",
        CONTROLLER_ANNOTATION: settings.controller,
    }
    metadata = {
        "name": ref.name,
        "namespace": ref.namespace,
        "labels": labels,
        "annotations": annotations,
        "ownerReferences": [owner],
    }
    content = json.dumps([metadata, spec], sort_keys=True)
    annotations[CONTENT_ANNOTATION] = hashlib.sha256(content.encode()).hexdigest()[:16]
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _is_as_written(live: Service, manifest: Manifest) -> bool:
    """Tell whether a Service is what the manifest says, as far as others may have changed it."""
    spec = manifest["spec"]
    wanted = {port["port"]: port["targetPort"] for port in spec.get("ports", ())}
    annotations = manifest["metadata"]["annotations"]
    return (
        all(live.metadata.annotations.get(key) == value for key, value in annotations.items())
        and live.spec.type == spec["type"]
        and {port.port: port.target_port for port in live.spec.ports} == wanted
        and dict(live.spec.selector) == spec.get("selector", {})
        and live.spec.external_name == spec.get("externalName", "")
    )
