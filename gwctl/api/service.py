"""Service: its ports, and where it can be reached.

How it selects pods matters for the Services that gwctl itself makes for Gateways only: EndpointSlices say the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StrictInt, StrictStr

from gwctl.api.meta import Object
from gwctl.api.wire import PartialWire, PortNumber, Violation, Wire


class ServicePortSpec(PartialWire):
    """A port. ``name`` is empty when the Service has only this one."""

    unused: ClassVar[frozenset[str]] = frozenset({"nodePort"})

    name: StrictStr = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    app_protocol: StrictStr | None = None
    port: PortNumber
    target_port: StrictInt | StrictStr | None = None


class ServiceSpec(PartialWire):
    unused: ClassVar[frozenset[str]] = frozenset(
        {"clusterIP", "externalIPs", "sessionAffinity", "loadBalancerSourceRanges", "healthCheckNodePort",
         "publishNotReadyAddresses", "sessionAffinityConfig", "ipFamilies", "ipFamilyPolicy",
         "allocateLoadBalancerNodePorts", "loadBalancerClass", "internalTrafficPolicy",
         "trafficDistribution", "topologyKeys", "loadBalancerIP", "externalTrafficPolicy"}
    )  # fmt: skip

    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    ports: Annotated[tuple[ServicePortSpec, ...], Field()] = ()
    selector: Mapping[StrictStr, StrictStr] = Field(default_factory=dict)
    cluster_ips: Annotated[tuple[StrictStr, ...], Field(alias="clusterIPs")] = ()
    external_name: StrictStr = ""


class LoadBalancerIngress(PartialWire):
    """An address that the load balancer has given: ``ip`` or ``hostname``."""

    unused: ClassVar[frozenset[str]] = frozenset({"ipMode", "ports"})

    ip: StrictStr = ""
    hostname: StrictStr = ""


class LoadBalancerStatus(Wire):
    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(PartialWire):
    unused: ClassVar[frozenset[str]] = frozenset({"conditions"})

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(Object):
    unused: ClassVar[frozenset[str]] = Object.unused - {"status"}
    kind: ClassVar[str] = "Service"
    label_name: ClassVar[bool] = True

    spec: ServiceSpec
    status: ServiceStatus = ServiceStatus()

    def check(self) -> list[Violation]:
        found = super().check()
        names: set[str] = set()
        ports: set[tuple[str, int]] = set()
        for index, port in enumerate(self.spec.ports):
            if port.name in names:
                message = "must be unique; a Service with several ports must name each"
                found.append(Violation(("spec", "ports", index, "name"), message))
            names.add(port.name)
            if (port.protocol, port.port) in ports:
                found.append(Violation(("spec", "ports", index, "port"), f"duplicate {port.protocol} port"))
            ports.add((port.protocol, port.port))
        return found
