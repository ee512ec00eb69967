"""Gateways with Services of their own: which listener slots they have."""

from __future__ import annotations

from dataclasses import replace

from gwctl.api.ref import Ref
from gwctl.graph.build import build_graph
from gwctl.graph.gatewayservice import bounded_name, service_ref, slot_mode_of
from gwctl.routing.virtualhost import build_routing
from gwctl.snapshot import Snapshot
from tests.graph.manifests import CLASS, CONTROLLER, graph_of, read_all

NAMESPACE = "gwctl-system"


def gateway(name: str, listeners: str) -> str:
    spec = f"{{gatewayClassName: gwctl, listeners: {listeners}}}"
    return f"{{kind: Gateway, metadata: {{name: {name}}}, spec: {spec}}}\n---\n"


def service(gateway: str, ports: dict[int, object], *, created: str = "2026-01-01T00:00:00Z", owner: str = "") -> str:
    ref = service_ref(Ref("Gateway", "default", gateway), NAMESPACE)
    listed = ", ".join(f"{{name: p{port}, port: {port}, targetPort: {slot}}}" for port, slot in ports.items())
    annotations = f"{{gwctl.io/gateway: {owner or 'default/' + gateway}}}"
    return (
        f"{{kind: Service, metadata: {{name: {ref.name}, namespace: {NAMESPACE}, creationTimestamp: '{created}', "
        f"annotations: {annotations}}}, spec: {{ports: [{listed}]}}}}\n---\n"
    )


HTTP = "[{name: http, port: 80, protocol: HTTP}]"


def slots(text: str) -> dict[str, int | None]:
    graph = graph_of(CLASS + text, service_namespace=NAMESPACE)
    return {f"{key.gateway}/{key.listener}": node.slot for key, node in graph.listeners.items()}


def test_a_listener_has_the_slot_that_its_gateways_service_leads_to() -> None:
    text = gateway("one", HTTP) + gateway("two", HTTP) + service("one", {80: 20002}) + service("two", {80: 20001})
    assert slots(text) == {"one/http": 20002, "two/http": 20001}
    frontends = build_routing(graph_of(CLASS + text, service_namespace=NAMESPACE)).frontends
    assert {(key.gateway, key.port, key.slot) for key in frontends} == {("one", 80, 20002), ("two", 80, 20001)}


def test_without_a_service_a_listener_has_no_slot_yet_and_serves_nothing() -> None:
    graph = graph_of(CLASS + gateway("one", HTTP), service_namespace=NAMESPACE)
    assert [node.slot for node in graph.listeners.values()] == [0]
    assert graph.problems == ()
    assert build_routing(graph).frontends == {}


def test_a_slot_for_another_protocol_is_none() -> None:
    both = "[{name: http, port: 80, protocol: HTTP}, {name: tcp, port: 81, protocol: TCP}]"
    text = gateway("one", both) + service("one", {80: 30001, 81: 30002})
    assert slots(text) == {"one/http": 0, "one/tcp": 30002}


def test_of_two_services_with_one_slot_the_older_keeps_it() -> None:
    young = service("one", {80: 20001}, created="2026-02-01T00:00:00Z")
    text = gateway("one", HTTP) + gateway("two", HTTP) + young + service("two", {80: 20001})
    assert slots(text) == {"one/http": 0, "two/http": 20001}


def test_a_service_that_was_not_made_for_the_gateway_leads_nowhere() -> None:
    assert slots(gateway("one", HTTP) + service("one", {80: 20001}, owner="default/other")) == {"one/http": 0}
    assert slots(gateway("one", HTTP) + service("one", {80: "http", 81: 80})) == {"one/http": 0}


def test_a_new_allocation_reaches_the_gateway_and_a_new_address_does_not() -> None:
    before = Snapshot.of(read_all(CLASS + gateway("one", HTTP)))
    graph = build_graph(before, CONTROLLER, service_namespace=NAMESPACE)
    made = Snapshot.of(read_all(service("one", {80: 20001}))).services
    after = before.apply(made)
    changed = build_graph(after, CONTROLLER, graph, frozenset(made), service_namespace=NAMESPACE)
    assert changed == build_graph(after, CONTROLLER, service_namespace=NAMESPACE)
    assert [node.slot for node in changed.listeners.values()] == [20001]
    ((ref, resource),) = made.items()
    ingress = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    addressed = type(resource).model_validate({**resource.model_dump(by_alias=True), "status": ingress})
    same = build_graph(after.apply({ref: addressed}), CONTROLLER, changed, frozenset(made), service_namespace=NAMESPACE)
    assert same.changed_routes == frozenset()
    assert replace(same, index=None) == replace(changed, index=None)


def test_names_of_services_are_labels_and_differ() -> None:
    long = Ref("Gateway", "n" * 63, "a.b" * 80)
    other = Ref("Gateway", "n" * 63, "a.b" * 79)
    assert service_ref(long, NAMESPACE) != service_ref(other, NAMESPACE)
    assert len(service_ref(long, NAMESPACE).name) <= 63
    assert bounded_name("a-b.c", "one") != bounded_name("a-b-c", "two")
    assert service_ref(Ref("Gateway", "shop", "web"), NAMESPACE).name.startswith("gw-shop-web-")


def test_modes_of_slots() -> None:
    ports = (80, 20_000, 20_001, 21_999, 22_000, 22_001, 23_999, 24_000, 24_001, 25_999, 30_001, 39_999, 40_000)
    assert [slot_mode_of(port) for port in ports] == [
        None, None, "http", "http", None, "https", "https", None, "tls", "tls", "tcp", "tcp", None,
    ]  # fmt: skip
