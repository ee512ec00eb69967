"""The Service of a Gateway: its name, and which listener slots its ports lead to.

In a cluster every port of a Gateway leads, through the Gateway's Service, to a *listener slot*: a port of gwctl's pods
on which HAProxy already listens. The surprising fact: the Service is where the allocation is stored, as ``targetPort``;
nothing else remembers it, so that replicas agree and a restart finds it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, NamedTuple

from gwctl.api.ref import Ref
from gwctl.api.service import Service
from gwctl.snapshot import Snapshot

GATEWAY_ANNOTATION = "gwctl.io/gateway"
"""On a Service that gwctl makes: ``namespace/name`` of the Gateway it belongs to."""

_LONGEST_NAME = 63
_DIGEST = 8


class SlotRange(NamedTuple):
    """Ports of the pods; the first slot is ``first``, of at most ``limit``."""

    first: int
    limit: int

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.first <= port < self.first + self.limit


Mode = Literal["http", "https", "tls", "tcp"]
"""What listens at a port: ``https`` terminates TLS for HTTP, ``tls`` first looks at the name that clients ask for."""

SLOT_RANGES: Mapping[Mode, SlotRange] = {
    "http": SlotRange(20_001, 1_999),
    "https": SlotRange(22_001, 1_999),
    "tls": SlotRange(24_001, 1_999),
    "tcp": SlotRange(30_001, 9_999),
}
"""The ports of listener slots by the mode of what listens there."""

_MODES: Mapping[str, tuple[Mode, ...]] = {
    "HTTP": ("http",),
    "HTTPS": ("https", "tls"),
    "TLS": ("tls",),
    "TCP": ("tcp",),
}


def slot_mode_of(port: int) -> Mode | None:
    """Give the mode of the listener slot at a port, None where the port is none."""
    return next((mode for mode, ports in SLOT_RANGES.items() if port in ports), None)


def slot_fits(slot: int, protocol: str) -> bool:
    """Tell whether a listener slot can serve listeners of a protocol."""
    return slot_mode_of(slot) in _MODES.get(protocol, ())


def common_mode(protocols: Collection[str]) -> Mode:
    """Give the mode that serves listeners of these protocols, which can share a port."""
    fitting = (mode for mode in SLOT_RANGES if all(mode in _MODES[protocol] for protocol in protocols))
    return next(fitting)


def service_ref(gateway: Ref, namespace: str) -> Ref:
    """Name a Gateway's Service, which lives in ``namespace``, beside gwctl's pods."""
    return Ref("Service", namespace, bounded_name(f"{gateway.namespace}-{gateway.name}", str(gateway)))


def bounded_name(text: str, identity: str) -> str:
    """Give a readable name of at most 63 characters that no other identity has."""
    digest = hashlib.sha256(identity.encode()).hexdigest()[:_DIGEST]
    readable = text.replace(".", "-")[: _LONGEST_NAME - len("gw-") - len(digest) - 1].rstrip("-")
    return f"gw-{readable}-{digest}"


def owner_of(service: Service) -> Ref | None:
    """Give the Gateway that a Service was made for, None where gwctl did not make it."""
    namespace, _, name = service.metadata.annotations.get(GATEWAY_ANNOTATION, "").partition("/")
    return Ref("Gateway", namespace, name) if name else None


def slots_of(service: Service) -> dict[int, int]:
    """Give the slot of each TCP port of a Gateway's Service."""
    return {
        port.port: port.target_port
        for port in service.spec.ports
        if port.protocol == "TCP" and isinstance(port.target_port, int) and slot_mode_of(port.target_port) is not None
    }


def read_slots(gateways: Iterable[Ref], snapshot: Snapshot, namespace: str) -> dict[Ref, dict[int, int]]:
    """Read which slots the ports of Gateways have. Of two Services with one slot the older keeps it."""
    services = {}
    for gateway in gateways:
        service = snapshot.services.get(service_ref(gateway, namespace))
        if service is not None and owner_of(service) == gateway:
            services[gateway] = service
    taken: set[int] = set()
    found: dict[Ref, dict[int, int]] = {}
    for gateway, service in sorted(services.items(), key=lambda item: item[1].age):
        slots: dict[int, int] = {}
        for port, slot in slots_of(service).items():
            if slot not in taken:
                taken.add(slot)
                slots[port] = slot
        found[gateway] = slots
    return found
