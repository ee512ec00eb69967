"""Service: its ports and whether it is an ExternalName.

How it selects pods is of no interest: EndpointSlices say.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StrictStr

from gwctl.api.meta import Object
from gwctl.api.wire import PartialWire, PortNumber, Violation


class ServicePortSpec(PartialWire):
    """A port. ``name`` is empty when the Service has only this one."""

    unused: ClassVar[frozenset[str]] = frozenset({"targetPort", "nodePort"})

    name: StrictStr = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    app_protocol: StrictStr | None = None
    port: PortNumber


class ServiceSpec(PartialWire):
    unused: ClassVar[frozenset[str]] = frozenset(
        {"selector", "clusterIP", "clusterIPs", "externalIPs", "sessionAffinity", "loadBalancerIP",
         "externalName", "loadBalancerSourceRanges", "externalTrafficPolicy", "healthCheckNodePort",
         "publishNotReadyAddresses", "sessionAffinityConfig", "ipFamilies", "ipFamilyPolicy",
         "allocateLoadBalancerNodePorts", "loadBalancerClass", "internalTrafficPolicy",
         "trafficDistribution", "topologyKeys"}
    )  # fmt: skip

    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    ports: Annotated[tuple[ServicePortSpec, ...], Field()] = ()


class Service(Object):
    kind: ClassVar[str] = "Service"
    label_name: ClassVar[bool] = True

    spec: ServiceSpec

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
