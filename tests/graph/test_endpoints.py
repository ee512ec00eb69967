"""Endpoints: joined by the port's name, ready ones first, those that leave last."""

from __future__ import annotations

from gwctl.graph.node import Endpoint, ServicePort
from tests.graph.manifests import GATEWAY, graph_of

PORT = ServicePort("default", "s", 80)


def slice_of(name: str, endpoints: str, *, ports: str = "[{name: a, port: 8080}]", kind: str = "IPv4") -> str:
    return (
        f"{{kind: EndpointSlice, metadata: {{name: {name}, labels: {{kubernetes.io/service-name: s}}}}, "
        f"addressType: {kind}, endpoints: {endpoints}, ports: {ports}}}\n---\n"
    )


def endpoints_of(slices: str, ports: str = "[{name: a, port: 80, targetPort: web}]") -> tuple[Endpoint, ...]:
    graph = graph_of(
        GATEWAY
        + f"{{kind: Service, metadata: {{name: s}}, spec: {{ports: {ports}}}}}\n---\n"
        + "{kind: HTTPRoute, metadata: {name: r}, spec: {parentRefs: [{name: gw}], "
        "rules: [{backendRefs: [{name: s, port: 80}]}]}}\n---\n" + slices
    )
    assert list(graph.endpoints) == [PORT]
    return graph.endpoints[PORT]


def test_no_slice_is_no_endpoint() -> None:
    assert endpoints_of("") == ()


def test_slices_are_merged_sorted_and_each_endpoint_is_there_once() -> None:
    slices = slice_of("x", "[{addresses: [10.0.0.2]}, {addresses: [10.0.0.1]}]") + slice_of(
        "y", "[{addresses: [10.0.0.3]}, {addresses: [10.0.0.1]}]"
    )
    assert endpoints_of(slices) == tuple(Endpoint(f"10.0.0.{n}", 8080) for n in (1, 2, 3))


def test_ports_are_joined_by_name_not_by_number() -> None:
    others = "{name: b, port: 80}, {port: 70}, {name: a}, {name: a, port: 71, protocol: UDP}"
    ports = f"[{others}, {{name: a, port: 9090}}]"
    assert endpoints_of(slice_of("x", "[{addresses: [10.0.0.1]}]", ports=ports)) == (Endpoint("10.0.0.1", 9090),)


def test_port_without_name() -> None:
    slices = slice_of("x", "[{addresses: [10.0.0.1]}]", ports="[{name: '', port: 1}, {name: a, port: 2}]")
    assert endpoints_of(slices, "[{port: 80}]") == (Endpoint("10.0.0.1", 1),)


def test_both_address_families_and_no_names() -> None:
    slices = (
        slice_of("x", "[{addresses: [10.0.0.1]}]")
        + slice_of("y", "[{addresses: ['2001:DB8::0:1']}]", kind="IPv6")
        + slice_of("z", "[{addresses: [a.example.com]}]", kind="FQDN")
    )
    assert endpoints_of(slices) == (Endpoint("10.0.0.1", 8080), Endpoint("2001:db8::1", 8080))


def test_unknown_is_ready_and_not_ready_is_left_out() -> None:
    slices = slice_of(
        "x",
        "[{addresses: [10.0.0.1], conditions: {}}, {addresses: [10.0.0.2], conditions: {ready: false}}, "
        "{addresses: [10.0.0.3], conditions: {ready: true}}, "
        "{addresses: [10.0.0.4], conditions: {ready: null}}]",
    )
    assert [item.address for item in endpoints_of(slices)] == ["10.0.0.1", "10.0.0.3", "10.0.0.4"]


LEAVING = "conditions: {ready: false, serving: true, terminating: true}"


def test_endpoints_that_leave_drain_while_others_are_ready() -> None:
    slices = slice_of("x", f"[{{addresses: [10.0.0.1], {LEAVING}}}, {{addresses: [10.0.0.2]}}]")
    assert endpoints_of(slices) == (Endpoint("10.0.0.1", 8080, True), Endpoint("10.0.0.2", 8080))


def test_when_all_leave_those_that_serve_still_take_requests() -> None:
    slices = slice_of(
        "x",
        f"[{{addresses: [10.0.0.1], {LEAVING}}}, "
        "{addresses: [10.0.0.2], conditions: {ready: false, serving: false, terminating: true}}, "
        "{addresses: [10.0.0.3], conditions: {ready: false, serving: true}}]",
    )
    assert endpoints_of(slices) == (Endpoint("10.0.0.1", 8080),)


def test_ready_in_one_slice_and_leaving_in_another_is_ready() -> None:
    slices = slice_of("x", f"[{{addresses: [10.0.0.1], {LEAVING}}}]") + slice_of("y", "[{addresses: [10.0.0.1]}]")
    assert endpoints_of(slices) == (Endpoint("10.0.0.1", 8080),)


def test_routes_that_serve_nothing_ask_for_no_endpoints() -> None:
    graph = graph_of(
        GATEWAY
        + "{kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}\n---\n"
        + "{kind: HTTPRoute, metadata: {name: r}, spec: {parentRefs: [{name: gw, sectionName: none}], "
        "rules: [{backendRefs: [{name: s, port: 80}]}]}}\n---\n"
    )
    assert graph.endpoints == {}
