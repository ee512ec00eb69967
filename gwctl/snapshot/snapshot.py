"""Snapshot: every resource at one moment.

In: resources and changes to them. Out: one frozen view, with the look-ups that the graph needs. The
surprising fact: a namespace exists even when no Namespace object says so (files rarely have one); it then has
the one label that Kubernetes itself gives every namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from gwctl.api.backendtlspolicy import BackendTLSPolicy
from gwctl.api.configmap import ConfigMap
from gwctl.api.endpointslice import EndpointSlice
from gwctl.api.gateway import Gateway, GatewayClass
from gwctl.api.grpcroute import GRPCRoute
from gwctl.api.httproute import HTTPRoute
from gwctl.api.listenerset import ListenerSet
from gwctl.api.namespace import Namespace
from gwctl.api.parse import Resource
from gwctl.api.ref import Ref
from gwctl.api.referencegrant import ReferenceGrant
from gwctl.api.secret import Secret
from gwctl.api.service import Service
from gwctl.api.tcproute import TCPRoute
from gwctl.api.tlsroute import TLSRoute

NAME_LABEL = "kubernetes.io/metadata.name"


def _empty() -> MappingProxyType[Any, Any]:
    return MappingProxyType({})


_FIELDS = {
    "GatewayClass": "gateway_classes",
    "Gateway": "gateways",
    "ListenerSet": "listener_sets",
    "HTTPRoute": "http_routes",
    "GRPCRoute": "grpc_routes",
    "TCPRoute": "tcp_routes",
    "TLSRoute": "tls_routes",
    "ReferenceGrant": "reference_grants",
    "Service": "services",
    "EndpointSlice": "endpoint_slices",
    "Namespace": "namespaces",
    "Secret": "secrets",
    "ConfigMap": "config_maps",
    "BackendTLSPolicy": "backend_tls_policies",
}


@dataclass(frozen=True)
class Snapshot:
    """One mapping per kind, by Ref; ``slices`` and ``grants`` are found from these.

    The order of a mapping means nothing: use ``Object.age`` where order matters.
    """

    gateway_classes: MappingProxyType[Ref, GatewayClass] = field(default_factory=_empty)
    gateways: MappingProxyType[Ref, Gateway] = field(default_factory=_empty)
    listener_sets: MappingProxyType[Ref, ListenerSet] = field(default_factory=_empty)
    http_routes: MappingProxyType[Ref, HTTPRoute] = field(default_factory=_empty)
    grpc_routes: MappingProxyType[Ref, GRPCRoute] = field(default_factory=_empty)
    tcp_routes: MappingProxyType[Ref, TCPRoute] = field(default_factory=_empty)
    tls_routes: MappingProxyType[Ref, TLSRoute] = field(default_factory=_empty)
    reference_grants: MappingProxyType[Ref, ReferenceGrant] = field(default_factory=_empty)
    services: MappingProxyType[Ref, Service] = field(default_factory=_empty)
    endpoint_slices: MappingProxyType[Ref, EndpointSlice] = field(default_factory=_empty)
    namespaces: MappingProxyType[Ref, Namespace] = field(default_factory=_empty)
    secrets: MappingProxyType[Ref, Secret] = field(default_factory=_empty)
    config_maps: MappingProxyType[Ref, ConfigMap] = field(default_factory=_empty)
    backend_tls_policies: MappingProxyType[Ref, BackendTLSPolicy] = field(default_factory=_empty)
    _slices: MappingProxyType[Ref, tuple[EndpointSlice, ...]] = field(default_factory=_empty, compare=False, repr=False)
    _grants: MappingProxyType[str, tuple[ReferenceGrant, ...]] = field(
        default_factory=_empty, compare=False, repr=False
    )

    @classmethod
    def of(cls, resources: Iterable[Resource]) -> Snapshot:
        """The snapshot of these resources. Of two with the same Ref the later one counts."""
        return cls().apply({resource.ref: resource for resource in resources})

    def apply(self, changes: Mapping[Ref, Resource | None]) -> Snapshot:
        """The snapshot after the changes; None takes an object away. What did not change is shared."""
        tables: dict[str, dict[Ref, Resource]] = {}
        slices: dict[Ref, dict[Ref, EndpointSlice]] = {}
        grants = False
        for ref, resource in changes.items():
            name = _FIELDS.get(ref.kind)
            if name is None:
                continue
            table = tables.get(name)
            if table is None:
                table = tables[name] = getattr(self, name).copy()
            old = table.get(ref)
            if resource is None:
                table.pop(ref, None)
            else:
                table[ref] = resource
            if ref.kind == "EndpointSlice":
                self._index_slice(slices, old, resource)
            grants = grants or ref.kind == "ReferenceGrant"
        new: dict[str, Any] = {name: MappingProxyType(table) for name, table in tables.items()}
        if slices:
            index = self._slices.copy()
            for service, entries in slices.items():
                if entries:
                    index[service] = tuple(entries[ref] for ref in sorted(entries))
                else:
                    index.pop(service, None)
            new["_slices"] = MappingProxyType(index)
        if grants:
            new["_grants"] = _index_grants(new["reference_grants"])
        return replace(self, **new)

    def get(self, ref: Ref) -> Resource | None:
        """The object of that name, None when there is none."""
        name = _FIELDS.get(ref.kind)
        if name is None:
            return None
        found: Resource | None = getattr(self, name).get(ref)
        return found

    def resources(self) -> Iterable[Resource]:
        """Every resource, kind by kind."""
        for name in _FIELDS.values():
            yield from getattr(self, name).values()

    def slices(self, service: Ref) -> tuple[EndpointSlice, ...]:
        """The EndpointSlices of a Service, sorted by name."""
        return self._slices.get(service, ())

    def grants(self, namespace: str) -> tuple[ReferenceGrant, ...]:
        """The ReferenceGrants in a namespace, sorted by name."""
        return self._grants.get(namespace, ())

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        """The labels of a namespace, the one with its own name included."""
        namespace = self.namespaces.get(Ref("Namespace", "", name))
        if namespace is None:
            return {NAME_LABEL: name}
        return {**namespace.metadata.labels, NAME_LABEL: name}

    def _index_slice(
        self, slices: dict[Ref, dict[Ref, EndpointSlice]], old: Resource | None, new: Resource | None
    ) -> None:
        for entry in (old, new):
            if isinstance(entry, EndpointSlice) and entry.service is not None:
                service = entry.service
                entries = slices.get(service)
                if entries is None:
                    entries = slices[service] = {known.ref: known for known in self.slices(service)}
                if entry is new:
                    entries[entry.ref] = entry
                else:
                    entries.pop(entry.ref, None)


def _index_grants(grants: Mapping[Ref, ReferenceGrant]) -> MappingProxyType[str, tuple[ReferenceGrant, ...]]:
    index: dict[str, list[ReferenceGrant]] = {}
    for ref in sorted(grants):
        index.setdefault(ref.namespace, []).append(grants[ref])
    return MappingProxyType({namespace: tuple(found) for namespace, found in index.items()})
