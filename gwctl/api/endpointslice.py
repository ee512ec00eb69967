"""EndpointSlice: addresses, their conditions, and the ports they serve by name.

The surprising fact: addresses are kept in canonical form, so that two spellings of one IPv6 address are one
endpoint.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictStr

from gwctl.api.meta import Object
from gwctl.api.ref import Ref
from gwctl.api.wire import PartialWire, PortNumber, Violation, Wire

SERVICE_LABEL = "kubernetes.io/service-name"


def _canonical(value: object) -> object:
    if isinstance(value, str) and ":" in value:
        try:
            return str(ipaddress.IPv6Address(value))
        except ValueError:
            return value
    return value


class EndpointConditions(Wire):
    """None is "unknown", which readers take as ready, as serving what it is ready for, as not terminating."""

    ready: StrictBool | None = None
    serving: StrictBool | None = None
    terminating: StrictBool | None = None


class SliceEndpoint(PartialWire):
    unused: ClassVar[frozenset[str]] = frozenset(
        {"hostname", "targetRef", "deprecatedTopology", "nodeName", "zone", "hints"}
    )

    addresses: Annotated[
        tuple[Annotated[StrictStr, BeforeValidator(_canonical)], ...], Field(min_length=1, max_length=100)
    ]
    conditions: EndpointConditions = EndpointConditions()


class EndpointPort(PartialWire):
    """``port`` None: every port, which nothing here can use."""

    unused: ClassVar[frozenset[str]] = frozenset({"appProtocol"})

    name: StrictStr = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    port: PortNumber | None = None


class EndpointSlice(Object):
    kind: ClassVar[str] = "EndpointSlice"

    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: Annotated[tuple[SliceEndpoint, ...], Field(max_length=1000)] = ()
    ports: tuple[EndpointPort, ...] = ()

    @property
    def service(self) -> Ref | None:
        """The Service it belongs to, None when its label does not say."""
        name = self.metadata.labels.get(SERVICE_LABEL)
        return Ref("Service", self.ref.namespace, name) if name else None

    def check(self) -> list[Violation]:
        found = super().check()
        if self.address_type == "FQDN":
            return found
        read = ipaddress.IPv4Address if self.address_type == "IPv4" else ipaddress.IPv6Address
        for index, endpoint in enumerate(self.endpoints):
            for place, address in enumerate(endpoint.addresses):
                try:
                    valid = "%" not in str(read(address))
                except ValueError:
                    valid = False
                if not valid:
                    message = f"must be an {self.address_type} address"
                    found.append(Violation(("endpoints", index, "addresses", place), message))
        return found
