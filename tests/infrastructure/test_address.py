"""Where a Gateway can be reached, and what is said when it cannot."""

from __future__ import annotations

import pytest

from gwctl.api.ref import Ref
from gwctl.graph.build import build_graph
from gwctl.graph.gatewayservice import service_ref
from gwctl.infrastructure.address import host_addresses, service_addresses
from gwctl.snapshot import Snapshot
from gwctl.status.outcome import GatewayAddresses
from tests.graph.manifests import CLASS, CONTROLLER, read_all

NAMESPACE = "gwctl-system"
GATEWAY = Ref("Gateway", "default", "web")
SERVICE = service_ref(GATEWAY, NAMESPACE).name
LISTENERS = "[{name: http, port: 80, protocol: HTTP}]"


def gateway(more: str = "", listeners: str = LISTENERS) -> str:
    spec = f"{{gatewayClassName: gwctl, listeners: {listeners}{more}}}"
    return f"{CLASS}\n{{kind: Gateway, metadata: {{name: web}}, spec: {spec}}}\n---\n"


def service(spec: str, ingress: str = "", owner: str = "default/web") -> str:
    metadata = f"{{name: {SERVICE}, namespace: {NAMESPACE}, annotations: {{gwctl.io/gateway: {owner}}}}}"
    ports = "ports: [{port: 80, targetPort: 20001}]"
    status = f", status: {{loadBalancer: {{ingress: [{ingress}]}}}}" if ingress else ""
    return f"{{kind: Service, metadata: {metadata}, spec: {{{ports}, {spec}}}{status}}}\n---\n"


def addresses(text: str, error: str = "") -> GatewayAddresses:
    snapshot = Snapshot.of(read_all(text))
    graph = build_graph(snapshot, CONTROLLER, service_namespace=NAMESPACE)
    return service_addresses(graph.gateways[GATEWAY], snapshot, NAMESPACE, error)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (service("type: LoadBalancer", "{ip: 192.0.2.1}"), (("IPAddress", "192.0.2.1"),)),
        (
            service("type: LoadBalancer", "{hostname: lb.example.com}, {ip: 2001:DB8::1}"),
            (("Hostname", "lb.example.com"), ("IPAddress", "2001:db8::1")),
        ),
        (service("type: ClusterIP, clusterIPs: [10.96.0.7]"), (("IPAddress", "10.96.0.7"),)),
        (
            service("type: LoadBalancer", "{ip: 010.0.0.1}, {ip: 192.0.2.1}"),
            (("IPAddress", "010.0.0.1"), ("IPAddress", "192.0.2.1")),
        ),
        (service("type: NodePort, clusterIPs: [10.96.0.7]"), (("IPAddress", "10.96.0.7"),)),
    ],
)
def test_addresses_are_those_of_the_service(made: str, expected: tuple[tuple[str, str], ...]) -> None:
    assert addresses(gateway() + made) == GatewayAddresses(expected)


def test_why_there_is_none() -> None:
    assert addresses(gateway()).reason == "Pending"
    pending = addresses(gateway() + service("type: LoadBalancer"))
    assert (pending.addresses, pending.reason) == ((), "AddressNotAssigned")
    assert SERVICE in pending.message
    assert addresses(gateway() + service("type: LoadBalancer", "{ip: 192.0.2.1}", owner="a/b")).reason == "NoResources"
    refused = addresses(gateway(), "the API server says no")
    assert (refused.reason, refused.message) == ("AddressNotAssigned", "the API server says no")


def test_a_static_address_counts_only_when_it_is_the_one_given() -> None:
    wanted = gateway(", addresses: [{value: 192.0.2.9}]")
    assert addresses(wanted + service("type: LoadBalancer", "{ip: 192.0.2.9}")).reason == ""
    other = addresses(wanted + service("type: LoadBalancer", "{ip: 192.0.2.1}"))
    assert (other.addresses, other.reason) == ((), "AddressNotUsable")
    assert other.message.startswith("192.0.2.9 cannot be had")
    assert addresses(wanted, "the API server says no").reason == "AddressNotUsable"
    two = addresses(gateway(", addresses: [{value: 192.0.2.9}, {value: 192.0.2.8}]"))
    assert two.reason == "AddressNotUsable"
    assert "asks for 2" in two.message
    empty = gateway(", addresses: [{type: IPAddress}]")
    assert addresses(empty + service("type: LoadBalancer", "{ip: 192.0.2.1}")).reason == ""


def test_a_service_that_cannot_be_written_keeps_the_addresses_that_it_has() -> None:
    made = service("type: LoadBalancer", "{ip: 192.0.2.1}")
    assert addresses(gateway() + made, "no") == GatewayAddresses((("IPAddress", "192.0.2.1"),))
    more = gateway(listeners="[{name: more, port: 8080, protocol: HTTP}]")
    assert addresses(more + made, "no") == GatewayAddresses((("IPAddress", "192.0.2.1"),), "Pending", "no")
    other = addresses(gateway(", addresses: [{value: 192.0.2.9}]") + made, "no")
    assert other == GatewayAddresses((), "AddressNotUsable", "no")


def test_a_status_has_no_more_addresses_than_it_may() -> None:
    ingress = ", ".join(f"{{ip: 192.0.2.{number}}}" for number in range(1, 21))
    assert len(addresses(gateway() + service("type: LoadBalancer", ingress)).addresses) == 16


def test_a_port_that_the_service_does_not_lead_to_yet_is_pending() -> None:
    listeners = "[{name: http, port: 80, protocol: HTTP}, {name: more, port: 8080, protocol: HTTP}]"
    found = addresses(gateway(listeners=listeners) + service("type: LoadBalancer", "{ip: 192.0.2.1}"))
    assert (found.addresses, found.reason) == ((("IPAddress", "192.0.2.1"),), "Pending")
    assert "8080" in found.message


def test_without_services_the_addresses_are_the_nodes() -> None:
    slices = """
kind: EndpointSlice
metadata: {name: gwctl-1, namespace: gwctl-system, labels: {kubernetes.io/service-name: gwctl}}
addressType: IPv4
endpoints:
- {addresses: [10.0.0.10], conditions: {ready: true}}
- {addresses: [10.0.0.9]}
- {addresses: [10.0.0.8], conditions: {ready: false}}
"""
    published = Ref("Service", NAMESPACE, "gwctl")

    def on_hosts(text: str, service: Ref | None = published) -> GatewayAddresses:
        snapshot = Snapshot.of(read_all(text))
        node = build_graph(snapshot, CONTROLLER).gateways[GATEWAY]
        return host_addresses(node, snapshot, service)

    assert on_hosts(gateway() + slices).addresses == (("IPAddress", "10.0.0.9"), ("IPAddress", "10.0.0.10"))
    many = slices.replace("10.0.0.9]", ", ".join(f"10.0.1.{number}" for number in range(20)) + "]")
    assert len(on_hosts(gateway() + many).addresses) == 16
    assert on_hosts(gateway()).reason == "AddressNotAssigned"
    assert "publish-service" in on_hosts(gateway(), None).message
    bound = on_hosts(gateway(", addresses: [{value: 10.0.0.1}]") + slices)
    assert bound.addresses == (("IPAddress", "10.0.0.1"),)
