"""The addresses at which a Gateway can be reached, and why there are none.

In: a Gateway's node, its Service or the endpoints of gwctl's own. Out: `GatewayAddresses`. The surprising fact: a
Gateway that asks for one address and gets another has none that counts, and says so.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from gwctl.api.ref import Ref
from gwctl.api.service import Service
from gwctl.graph.gatewayservice import owner_of, service_ref
from gwctl.graph.node import GatewayNode
from gwctl.infrastructure.service import requested_addresses
from gwctl.snapshot import Snapshot
from gwctl.status.outcome import GatewayAddresses

ADDRESS_NOT_ASSIGNED = "AddressNotAssigned"
ADDRESS_NOT_USABLE = "AddressNotUsable"
PENDING = "Pending"
NO_RESOURCES = "NoResources"

MOST_ADDRESSES = 16
"""What the status of a Gateway holds at most (Gateway.status.addresses)."""


def service_addresses(gateway: GatewayNode, snapshot: Snapshot, namespace: str, error: str = "") -> GatewayAddresses:
    """Give the addresses of a Gateway that has a Service in ``namespace``.

    ``error`` says why its Service could not be written.
    """
    requested = requested_addresses(gateway.resource)
    if len(requested) > 1:
        message = f"a Gateway has one address, and spec.addresses asks for {len(requested)}: {', '.join(requested)}"
        return GatewayAddresses((), ADDRESS_NOT_USABLE, message)
    ref = service_ref(gateway.ref, namespace)
    service = snapshot.services.get(ref)
    if service is None and not error:
        return GatewayAddresses((), PENDING, f"{ref} has not been made yet")
    if service is not None and owner_of(service) != gateway.ref:
        return GatewayAddresses((), NO_RESOURCES, f"there is a {ref} that gwctl did not make for this Gateway")
    found = tuple(_read_addresses(service))[:MOST_ADDRESSES] if service is not None else ()
    if not found:
        reason = ADDRESS_NOT_USABLE if requested and error else ADDRESS_NOT_ASSIGNED
        return GatewayAddresses((), reason, error or f"{ref} has no address yet: its load balancer is pending")
    given = {value for _, value in found}
    if requested and not {_canonical(address) for address in requested} <= given:
        message = f"{requested[0]} cannot be had: {ref} was given {', '.join(sorted(given))}"
        return GatewayAddresses((), ADDRESS_NOT_USABLE, error or message)
    missing = sorted(
        {str(node.port) for node in gateway.own_listeners if node.accepted and node.slot == 0},
    )
    if missing:
        message = f"{ref} does not lead to port {', '.join(missing)} yet"
        return GatewayAddresses(found, PENDING, error or message)
    return GatewayAddresses(found)


def host_addresses(gateway: GatewayNode, snapshot: Snapshot, published: Ref | None) -> GatewayAddresses:
    """Give the addresses of a Gateway whose listeners bind their own ports: those it asks for, or the nodes'.

    ``published`` is a Service of gwctl's pods; with host networking its endpoints are the nodes.
    """
    requested = requested_addresses(gateway.resource)
    if requested:
        return GatewayAddresses(tuple(("IPAddress", _canonical(address)) for address in requested))
    if published is None:
        message = "without Services for Gateways, the option publish-service must name one of gwctl's pods"
        return GatewayAddresses((), ADDRESS_NOT_ASSIGNED, message)
    found = {
        address
        for entry in snapshot.slices(published)
        if entry.address_type != "FQDN"
        for endpoint in entry.endpoints
        if endpoint.conditions.ready is not False
        for address in endpoint.addresses
    }
    if not found:
        return GatewayAddresses((), ADDRESS_NOT_ASSIGNED, f"{published} has no endpoint that is ready")
    return GatewayAddresses(tuple(("IPAddress", address) for address in _sorted(found)[:MOST_ADDRESSES]))


def _read_addresses(service: Service) -> Iterator[tuple[str, str]]:
    if service.spec.type == "LoadBalancer":
        for ingress in service.status.load_balancer.ingress:
            if ingress.ip:
                yield "IPAddress", _canonical(ingress.ip)
            elif ingress.hostname:
                yield "Hostname", ingress.hostname
    else:
        yield from (("IPAddress", _canonical(ip)) for ip in service.spec.cluster_ips if ip != "None")


def _canonical(address: str) -> str:
    """Give an address in its usual form; what only the cluster takes for one, as with leading zeros, as it is."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def _sorted(addresses: Iterable[str]) -> list[str]:
    return sorted(addresses, key=lambda text: (ipaddress.ip_address(text).version, ipaddress.ip_address(text)))
