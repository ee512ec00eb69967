"""EndpointSlice: addresses, their conditions, and the ports they serve by name.

The surprising facts: addresses are kept in canonical form, so that two spellings of one IPv6 address are one
endpoint; and endpoints are packed, since a large cluster has a million of them, of which a model of pydantic's would
take a kilobyte each.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, StrictBool, StrictStr
from pydantic_core import CoreSchema, core_schema

from gwctl.api.meta import Object, ObjectMeta
from gwctl.api.ref import Ref
from gwctl.api.wire import PartialWire, PortNumber, Violation, Wire

SERVICE_LABEL = "kubernetes.io/service-name"

_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(\.{_OCTET}){{3}}")


def canonical_address(value: object) -> object:
    """Give an IPv6 address in one form, whoever has written it; anything else as it is."""
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


_CONDITIONS = {
    states: EndpointConditions(ready=states[0], serving=states[1], terminating=states[2])
    for states in itertools.product((None, False, True), repeat=3)
}


class _WireEndpoint(PartialWire):
    unused: ClassVar[frozenset[str]] = frozenset(
        {"hostname", "targetRef", "deprecatedTopology", "nodeName", "zone", "hints"}
    )

    addresses: Annotated[
        tuple[Annotated[StrictStr, BeforeValidator(canonical_address)], ...], Field(min_length=1, max_length=100)
    ]
    conditions: EndpointConditions = EndpointConditions()


class SliceEndpoint(NamedTuple):
    """One endpoint, by one or more addresses that are the same."""

    addresses: tuple[str, ...]
    conditions: EndpointConditions

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls._pack, handler.generate_schema(_WireEndpoint))

    @classmethod
    def _pack(cls, wire: _WireEndpoint) -> SliceEndpoint:
        states = wire.conditions
        return cls(wire.addresses, _CONDITIONS[states.ready, states.serving, states.terminating])


class SliceMeta(ObjectMeta):
    """Annotations of a slice only say when it was made."""

    unused: ClassVar[frozenset[str]] = ObjectMeta.unused | {"annotations"}


class EndpointPort(PartialWire):
    """``port`` None: every port, which nothing here can use."""

    unused: ClassVar[frozenset[str]] = frozenset({"appProtocol"})

    name: StrictStr = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    port: PortNumber | None = None


class EndpointSlice(Object):
    kind: ClassVar[str] = "EndpointSlice"

    metadata: SliceMeta
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
        for index, endpoint in enumerate(self.endpoints):
            for place, address in enumerate(endpoint.addresses):
                if not (_is_ipv4(address) if self.address_type == "IPv4" else _is_ipv6(address)):
                    message = f"must be an {self.address_type} address"
                    found.append(Violation(("endpoints", index, "addresses", place), message))
        return found


def _is_ipv4(text: str) -> bool:
    return _IPV4.fullmatch(text) is not None


def _is_ipv6(text: str) -> bool:
    try:
        return "%" not in str(ipaddress.IPv6Address(text))
    except ValueError:
        return False
