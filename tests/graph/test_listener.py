"""Gateways and listeners: which are ours, which are accepted, and who keeps a port."""

from __future__ import annotations

import pytest

from gwctl.api.ref import Ref
from gwctl.api.wire import LabelSelector
from gwctl.graph.listener import addresses_overlap, selector_fits
from gwctl.graph.node import Graph
from tests.graph.manifests import CLASS, graph_of, only_problem, reasons


def gateway(listeners: str, *, name: str = "gw", more: str = "", created: str = "2026-01-01T00:00:00Z") -> str:
    return (
        f"{{kind: Gateway, metadata: {{name: {name}, creationTimestamp: '{created}'}}, "
        f"spec: {{gatewayClassName: gwctl, listeners: {listeners}{more}}}}}\n---\n"
    )


def accepted(graph: Graph) -> dict[tuple[str, str], bool]:
    return {(key.gateway, key.listener): node.accepted for key, node in graph.listeners.items()}


def test_only_gateways_of_our_classes_are_there() -> None:
    graph = graph_of(
        CLASS
        + "{kind: GatewayClass, metadata: {name: other}, spec: {controllerName: example.com/other}}\n---\n"
        + gateway("[{name: a, port: 80, protocol: HTTP}]")
        + "{kind: Gateway, metadata: {name: theirs}, spec: {gatewayClassName: other, "
        "listeners: [{name: a, port: 80, protocol: HTTP}]}}\n---\n"
        "{kind: Gateway, metadata: {name: none}, spec: {gatewayClassName: missing, "
        "listeners: [{name: a, port: 80, protocol: HTTP}]}}"
    )
    assert list(graph.classes) == [Ref("GatewayClass", "", "gwctl")]
    assert list(graph.gateways) == [Ref("Gateway", "default", "gw")]
    assert graph.problems == ()


def test_listener_says_what_it_is() -> None:
    graph = graph_of(
        CLASS
        + gateway(
            "[{name: a, port: 80, protocol: HTTP, hostname: '*.a.com'}]",
            more=", addresses: [{value: '::0:1'}, {value: 10.0.0.1}, {value: ''}]",
        )
    )
    (node,) = graph.listeners.values()
    assert (node.port, node.protocol, node.hostname, node.kinds) == (80, "HTTP", "*.a.com", ("HTTPRoute", "GRPCRoute"))
    assert node.addresses == ("10.0.0.1", "::1")
    assert node.accepted
    assert graph.gateways[Ref("Gateway", "default", "gw")].listeners == (node,)


def test_class_with_parameters_takes_its_gateways_down() -> None:
    graph = graph_of(
        "{kind: GatewayClass, metadata: {name: gwctl}, spec: {controllerName: example.com/gwctl, "
        "parametersRef: {group: g.io, kind: K, name: n}}}\n---\n" + gateway("[{name: a, port: 80, protocol: HTTP}]")
    )
    assert reasons(graph) == [
        ("gw", "spec.gatewayClassName", "Accepted", "InvalidParameters"),
        ("gwctl", "spec.parametersRef", "Accepted", "InvalidParameters"),
    ]
    assert accepted(graph) == {("gw", "a"): False}
    assert not graph.gateways[Ref("Gateway", "default", "gw")].accepted


def test_gateway_with_parameters_is_refused() -> None:
    listeners = "[{name: a, port: 80, protocol: HTTP}]"
    graph = graph_of(
        CLASS + gateway(listeners, more=", infrastructure: {parametersRef: {group: g.io, kind: K, name: n}}")
    )
    assert reasons(graph) == [("gw", "spec.infrastructure.parametersRef", "Accepted", "InvalidParameters")]
    assert accepted(graph) == {("gw", "a"): False}


@pytest.mark.parametrize("kind", ["Hostname", "NamedAddress", "example.com/pool"])
def test_address_of_another_type_is_refused(kind: str) -> None:
    more = f", addresses: [{{value: 10.0.0.1}}, {{type: {kind}, value: a.com}}]"
    graph = graph_of(CLASS + gateway("[{name: a, port: 80, protocol: HTTP}]", more=more))
    assert reasons(graph) == [("gw", "spec.addresses[1].type", "Accepted", "UnsupportedAddress")]
    assert accepted(graph) == {("gw", "a"): False}


@pytest.mark.parametrize(
    ("listener", "message"),
    [
        ("{protocol: UDP}", "HAProxy proxies no UDP"),
        ("{protocol: example.com/x}", "example.com/x is not a protocol that is supported"),
    ],
)
def test_unsupported_protocol_takes_down_its_listener_only(listener: str, message: str) -> None:
    graph = graph_of(CLASS + gateway(f"[{{name: a, port: 80, protocol: HTTP}}, {{name: b, port: 443, {listener[1:]}]"))
    found = only_problem(graph)
    assert (found.field, found.reason, found.message) == (
        "spec.listeners[1].protocol",
        "UnsupportedProtocol",
        message,
    )
    assert found.listener == "b"
    assert accepted(graph) == {("gw", "a"): True, ("gw", "b"): False}
    assert graph.gateways[Ref("Gateway", "default", "gw")].accepted
    assert [node.kinds for node in graph.listeners.values()] == [("HTTPRoute", "GRPCRoute"), ()]


def test_a_tls_listener_takes_tls_routes_in_both_modes() -> None:
    tls = "{mode: Terminate, certificateRefs: [{name: c}]}"
    listeners = (
        "[{name: a, port: 443, hostname: a.com, protocol: TLS, tls: {mode: Passthrough}}, "
        f"{{name: b, port: 443, hostname: b.com, protocol: TLS, tls: {tls}}}, "
        "{name: c, port: 443, protocol: TLS, tls: {mode: Passthrough}, "
        "allowedRoutes: {kinds: [{kind: TCPRoute}, {kind: TLSRoute}]}}]"
    )
    graph = graph_of(CLASS + gateway(listeners))
    assert accepted(graph) == {("gw", "a"): True, ("gw", "b"): True, ("gw", "c"): True}
    assert [node.kinds for node in graph.listeners.values()] == [("TLSRoute",)] * 3
    assert [(item.listener, item.reason) for item in graph.problems if item.condition == "ResolvedRefs"] == [
        ("b", "InvalidCertificateRef"),
        ("c", "InvalidRouteKinds"),
    ]


@pytest.mark.parametrize(
    ("hostname", "reason"), [("a.com", "HostnameConflict"), ("b.com", None)], ids=["same name", "other name"]
)
def test_https_and_tls_share_a_port_where_their_names_differ(hostname: str, reason: str | None) -> None:
    listeners = (
        "[{name: a, port: 443, hostname: a.com, protocol: TLS, tls: {mode: Passthrough}}, "
        f"{{name: b, port: 443, hostname: {hostname}, protocol: HTTPS, tls: {{certificateRefs: [{{name: c}}]}}}}]"
    )
    graph = graph_of(CLASS + gateway(listeners))
    found = [item.reason for item in graph.problems if item.condition == "Conflicted"]
    assert found == ([reason] * 2 if reason else [])
    assert set(accepted(graph).values()) == {reason is None}


def test_options_of_tls_are_reported_and_the_listener_stands() -> None:
    tls = "tls: {certificateRefs: [{name: c}], options: {example.com/min: '1.3'}}"
    graph = graph_of(CLASS + gateway(f"[{{name: a, port: 443, protocol: HTTPS, {tls}}}]"))
    assert ("gw", "spec.listeners[0].tls.options[example.com/min]", "PartiallyInvalid", "UnsupportedValue") in reasons(
        graph
    )
    assert accepted(graph) == {("gw", "a"): True}


def test_a_listener_whose_clients_must_show_a_certificate_as_old_crds_say_it_is_refused() -> None:
    validation = "frontendValidation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: clients}]}"
    tls = "tls: {mode: Passthrough%s}"
    listeners = ", ".join(
        f"{{name: {name}, port: 443, hostname: {name}.com, protocol: TLS, {tls % more}}}"
        for name, more in (("a", f", {validation}"), ("b", ""))
    )
    graph = graph_of(CLASS + gateway(f"[{listeners}]"))
    assert reasons(graph) == [("gw", "spec.listeners[0].tls.frontendValidation", "Accepted", "UnsupportedValue")]
    assert accepted(graph) == {("gw", "a"): False, ("gw", "b"): True}


def test_gateway_without_accepted_listener_is_refused() -> None:
    graph = graph_of(CLASS + gateway("[{name: a, port: 80, protocol: UDP}]"))
    assert reasons(graph) == [
        ("gw", "spec.listeners", "Accepted", "ListenersNotValid"),
        ("gw", "spec.listeners[0].protocol", "Accepted", "UnsupportedProtocol"),
    ]
    assert not graph.gateways[Ref("Gateway", "default", "gw")].accepted


def test_protocols_that_share_a_port_conflict_and_none_wins() -> None:
    graph = graph_of(
        CLASS
        + gateway(
            "[{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: TCP}, "
            "{name: c, port: 81, protocol: HTTP}]"
        )
    )
    assert reasons(graph) == [
        ("gw", "spec.listeners[0].protocol", "Conflicted", "ProtocolConflict"),
        ("gw", "spec.listeners[1].protocol", "Conflicted", "ProtocolConflict"),
    ]
    assert accepted(graph) == {("gw", "a"): False, ("gw", "b"): False, ("gw", "c"): True}


def test_equal_hostnames_on_a_port_conflict_and_none_wins() -> None:
    graph = graph_of(
        CLASS
        + gateway(
            "[{name: a, port: 80, protocol: HTTP, hostname: x.com}, {name: b, port: 80, protocol: HTTP}, "
            "{name: c, port: 80, protocol: HTTP, hostname: x.com}, {name: d, port: 81, protocol: HTTP}]"
        )
    )
    assert reasons(graph) == [
        ("gw", "spec.listeners[0].hostname", "Conflicted", "HostnameConflict"),
        ("gw", "spec.listeners[2].hostname", "Conflicted", "HostnameConflict"),
    ]
    assert accepted(graph) == {
        ("gw", "a"): False,
        ("gw", "b"): True,
        ("gw", "c"): False,
        ("gw", "d"): True,
    }


def test_tcp_listeners_on_one_port_conflict_and_udp_does_not_count() -> None:
    graph = graph_of(
        CLASS
        + gateway("[{name: a, port: 80, protocol: TCP}, {name: b, port: 80, protocol: TCP}]")
        + gateway("[{name: a, port: 53, protocol: TCP}, {name: b, port: 53, protocol: UDP}]", name="dns")
    )
    assert [item for item in reasons(graph) if item[2] == "Conflicted"] == [
        ("gw", "spec.listeners[0].protocol", "Conflicted", "ProtocolConflict"),
        ("gw", "spec.listeners[1].protocol", "Conflicted", "ProtocolConflict"),
    ]
    assert accepted(graph)["dns", "a"]


def test_the_older_gateway_keeps_a_port_whatever_the_order() -> None:
    old = gateway("[{name: a, port: 80, protocol: HTTP}]", name="z", created="2025-01-01T00:00:00Z")
    new = gateway("[{name: a, port: 80, protocol: HTTP}, {name: b, port: 81, protocol: HTTP}]", name="a")
    graph = graph_of(CLASS + new + old)
    assert graph == graph_of(CLASS + old + new)
    assert reasons(graph) == [("a", "spec.listeners[0].port", "Accepted", "PortUnavailable")]
    assert accepted(graph) == {("z", "a"): True, ("a", "a"): False, ("a", "b"): True}
    shared = graph_of(CLASS + new + old, service_namespace="gwctl-system")
    assert all(accepted(shared).values())


def test_gateways_of_one_age_are_ordered_by_name() -> None:
    listeners = "[{name: l, port: 80, protocol: HTTP}]"
    graph = graph_of(CLASS + gateway(listeners, name="b") + gateway(listeners, name="a"))
    assert accepted(graph) == {("a", "l"): True, ("b", "l"): False}


def test_gateways_on_addresses_apart_may_have_one_port() -> None:
    listeners = "[{name: l, port: 80, protocol: HTTP}]"
    graph = graph_of(
        CLASS
        + gateway(listeners, name="a", more=", addresses: [{value: 127.0.0.1}]")
        + gateway(listeners, name="b", more=", addresses: [{value: 127.0.0.2}]")
    )
    assert graph.problems == ()


def test_a_refused_listener_holds_no_port() -> None:
    listeners = "[{name: l, port: 80, protocol: HTTP}]"
    graph = graph_of(
        CLASS
        + gateway(listeners, name="a", more=", addresses: [{type: Hostname, value: x}]")
        + gateway(listeners, name="b")
    )
    assert accepted(graph) == {("a", "l"): False, ("b", "l"): True}


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ((), ("10.0.0.1",), True),
        (("10.0.0.1",), ("10.0.0.1", "10.0.0.2"), True),
        (("10.0.0.1",), ("10.0.0.2",), False),
        (("0.0.0.0",), ("10.0.0.2",), True),
        (("0.0.0.0",), ("::1",), False),
        (("::",), ("10.0.0.2",), True),
    ],
)
def test_overlap_of_addresses(one: tuple[str, ...], other: tuple[str, ...], overlap: bool) -> None:
    assert addresses_overlap(one, other) is overlap
    assert addresses_overlap(other, one) is overlap


def test_kinds_that_a_listener_cannot_take_are_told_and_the_others_count() -> None:
    kinds = "[{kind: HTTPRoute}, {kind: TCPRoute}, {group: x.io, kind: HTTPRoute}]"
    graph = graph_of(CLASS + gateway(f"[{{name: a, port: 80, protocol: HTTP, allowedRoutes: {{kinds: {kinds}}}}}]"))
    assert reasons(graph) == [
        ("gw", "spec.listeners[0].allowedRoutes.kinds[1]", "ResolvedRefs", "InvalidRouteKinds"),
        ("gw", "spec.listeners[0].allowedRoutes.kinds[2]", "ResolvedRefs", "InvalidRouteKinds"),
    ]
    (node,) = graph.listeners.values()
    assert (node.kinds, node.accepted) == (("HTTPRoute",), True)


def test_operator_of_a_selector_that_is_unknown_takes_the_listener_down() -> None:
    expressions = "[{key: a, operator: Near, values: [b]}, {key: a, operator: Exists, values: [b]}]"
    graph = graph_of(
        CLASS
        + gateway(
            "[{name: a, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, "
            f"selector: {{matchExpressions: {expressions}}}}}}}}}, {{name: b, port: 81, protocol: HTTP}}]"
        )
    )
    path = "spec.listeners[0].allowedRoutes.namespaces.selector.matchExpressions"
    assert reasons(graph) == [
        ("gw", f"{path}[0].operator", "Accepted", "UnsupportedValue"),
        ("gw", f"{path}[1].values", "Accepted", "UnsupportedValue"),
    ]
    assert accepted(graph) == {("gw", "a"): False, ("gw", "b"): True}


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "1", "b": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["0", "1"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["0", "1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "In", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Near"}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn"}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In"}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist", "values": ["1"]}]}, False),
        ({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
    ],
)
def test_selectors(selector: dict[str, object], fits: bool) -> None:
    assert selector_fits(LabelSelector.model_validate(selector), {"a": "1"}) is fits


def test_no_selector_selects_nothing() -> None:
    assert not selector_fits(None, {"a": "1"})


def test_default_gateways_are_told_and_the_gateway_stands() -> None:
    graph = graph_of(CLASS + gateway("[{name: a, port: 80, protocol: HTTP}]", more=", defaultScope: All"))
    assert reasons(graph) == [("gw", "spec.defaultScope", "PartiallyInvalid", "UnsupportedValue")]
    assert accepted(graph) == {("gw", "a"): True}
