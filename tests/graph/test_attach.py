"""Where routes attach, and what is said when they do not."""

from __future__ import annotations

import pytest

from gwctl.api.ref import Ref
from gwctl.graph.attach import intersect_hostnames
from gwctl.graph.node import Graph, ListenerKey
from tests.graph.manifests import CLASS, GATEWAY, graph_of, only_problem, reasons

MANY = (
    CLASS
    + """
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: gwctl
  listeners:
  - {name: any, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
  - {name: wild, port: 80, protocol: HTTP, hostname: '*.a.com'}
  - {name: other, port: 81, protocol: HTTP, hostname: b.com}
  - {name: tcp, port: 82, protocol: TCP}
  - name: team
    port: 83
    protocol: HTTP
    allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {t: x}}}}
---
"""
)


def route(parents: str, *, more: str = "", name: str = "r", namespace: str = "default", kind: str = "HTTPRoute") -> str:
    return (
        f"{{kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}, "
        f"spec: {{parentRefs: {parents}{more}}}}}\n---\n"
    )


def where(graph: Graph, namespace: str = "default") -> list[tuple[int, str, tuple[str, ...]]]:
    node = graph.routes[Ref("HTTPRoute", namespace, "r")]
    return [(item.parent, item.listener.listener, item.hostnames) for item in node.attachments]


def counts(graph: Graph) -> dict[str, int]:
    return {key.listener: node.attached_routes for key, node in graph.listeners.items()}


def test_route_attaches_to_every_listener_that_allows_it() -> None:
    graph = graph_of(MANY + route("[{name: gw}]", more=", hostnames: [x.a.com, c.com]"))
    assert where(graph) == [(0, "any", ("c.com", "x.a.com")), (0, "wild", ("x.a.com",))]
    assert graph.problems == ()
    assert counts(graph) == {"any": 1, "wild": 1, "other": 0, "tcp": 0, "team": 0}


def test_route_without_hostnames_takes_the_listeners() -> None:
    graph = graph_of(MANY + route("[{name: gw}]"))
    assert where(graph) == [(0, "any", ("*",)), (0, "wild", ("*.a.com",)), (0, "other", ("b.com",))]


def test_section_name_and_port_choose_listeners() -> None:
    assert where(graph_of(MANY + route("[{name: gw, sectionName: any}]"))) == [(0, "any", ("*",))]
    assert where(graph_of(MANY + route("[{name: gw, port: 81}]"))) == [(0, "other", ("b.com",))]
    assert where(graph_of(MANY + route("[{name: gw, sectionName: any, port: 80}]"))) == [(0, "any", ("*",))]
    graph = graph_of(MANY + route("[{name: gw, sectionName: any, port: 81}]"))
    assert reasons(graph) == [("r", "spec.parentRefs[0]", "Accepted", "NoMatchingParent")]


def test_each_parent_stands_alone() -> None:
    parents = "[{name: gw, sectionName: any}, {name: gw, sectionName: none}, {name: missing}]"
    graph = graph_of(MANY + route(parents))
    assert where(graph) == [(0, "any", ("*",))]
    assert [(item.parent, item.reason) for item in graph.problems] == [
        (1, "NoMatchingParent"),
        (2, "NoMatchingParent"),
    ]
    assert counts(graph)["any"] == 1


def test_a_listener_counts_a_route_once_however_often_it_is_named() -> None:
    graph = graph_of(MANY + route("[{name: gw, sectionName: any}, {name: gw, sectionName: wild}]"))
    assert (counts(graph)["any"], counts(graph)["wild"]) == (1, 1)
    both = graph_of(GATEWAY + route("[{name: gw}, {name: gw, namespace: default}]"))
    assert [parent for parent, _, _ in where(both)] == [0, 1]
    assert counts(both) == {"http": 1}


def test_hostname_that_no_listener_has() -> None:
    graph = graph_of(MANY + route("[{name: gw, sectionName: other}]", more=", hostnames: [c.com]"))
    found = only_problem(graph)
    assert (found.reason, found.parent, found.condition) == ("NoMatchingListenerHostname", 0, "Accepted")
    assert where(graph) == []
    assert counts(graph)["other"] == 0


def test_hostname_is_the_most_telling_reason() -> None:
    hosts = ", hostnames: [c.com]"
    graph = graph_of(
        CLASS + "{kind: Gateway, metadata: {name: gw}, spec: {gatewayClassName: gwctl, listeners: ["
        "{name: a, port: 80, protocol: HTTP, hostname: a.com}, {name: b, port: 81, protocol: TCP}]}}\n---\n"
        + route("[{name: gw}]", more=hosts)
    )
    assert only_problem(graph).reason == "NoMatchingListenerHostname"


def test_namespace_that_is_not_allowed() -> None:
    graph = graph_of(MANY + route("[{name: gw, namespace: default, sectionName: wild}]", namespace="n"))
    assert only_problem(graph).reason == "NotAllowedByListeners"
    graph = graph_of(MANY + route("[{name: gw, namespace: default}]", namespace="n"))
    assert where(graph, namespace="n") == [(0, "any", ("*",))]
    assert graph.problems == ()


def test_selector_reads_the_labels_of_the_namespace() -> None:
    text = MANY + route("[{name: gw, namespace: default, sectionName: team}]", namespace="n")
    assert only_problem(graph_of(text)).reason == "NotAllowedByListeners"
    graph = graph_of(text + "{kind: Namespace, metadata: {name: n, labels: {t: x}}}")
    assert where(graph, namespace="n") == [(0, "team", ("*",))]


def test_selector_finds_a_namespace_without_object_by_its_name() -> None:
    text = MANY.replace("{t: x}", "{kubernetes.io/metadata.name: n}")
    graph = graph_of(text + route("[{name: gw, namespace: default, sectionName: team}]", namespace="n"))
    assert graph.problems == ()


def test_kind_that_the_listener_does_not_take() -> None:
    graph = graph_of(
        MANY
        + route(
            "[{name: gw, sectionName: any}]",
            more=", rules: [{backendRefs: [{name: s, port: 80}]}]",
            kind="TCPRoute",
        )
    )
    assert ("r", "spec.parentRefs[0]", "Accepted", "NotAllowedByListeners") in reasons(graph)


@pytest.mark.parametrize("protocol", ["HTTP", "HTTPS", "TCP"])
def test_a_tls_route_is_for_tls_listeners_alone(protocol: str) -> None:
    listener = f"{{name: a, port: 443, protocol: {protocol}}}"
    gateway = f"{{kind: Gateway, metadata: {{name: gw}}, spec: {{gatewayClassName: gwctl, listeners: [{listener}]}}}}"
    rules = ", hostnames: [a.com], rules: [{backendRefs: [{name: s, port: 80}]}]"
    graph = graph_of(f"{CLASS}{gateway}\n---\n" + route("[{name: gw}]", more=rules, kind="TLSRoute"))
    assert ("r", "spec.parentRefs[0]", "Accepted", "NotAllowedByListeners") in reasons(graph)
    assert counts(graph) == {"a": 0}


def test_parents_of_others_are_none_of_our_business() -> None:
    theirs = (
        "{kind: GatewayClass, metadata: {name: other}, spec: {controllerName: example.com/other}}\n---\n"
        "{kind: Gateway, metadata: {name: theirs}, spec: {gatewayClassName: other, "
        "listeners: [{name: a, port: 80, protocol: HTTP}]}}\n---\n"
    )
    parents = "[{name: theirs}, {name: s, kind: Service, group: ''}]"
    rules = ", rules: [{backendRefs: [{name: missing, port: 80}]}]"
    graph = graph_of(GATEWAY + theirs + route(parents, more=rules))
    assert graph.problems == ()
    assert graph.routes == {}


def test_refused_listener_counts_the_route_and_serves_nothing() -> None:
    graph = graph_of(
        CLASS + "{kind: Gateway, metadata: {name: gw}, spec: {gatewayClassName: gwctl, listeners: ["
        "{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}]}}\n---\n"
        + route("[{name: gw, sectionName: a}]")
    )
    assert counts(graph) == {"a": 1, "b": 0}
    assert where(graph) == []
    assert [item.subject.kind for item in graph.problems] == ["Gateway"] * 3


def test_several_tcp_routes_the_oldest_serves_and_all_are_counted() -> None:
    rules = ", rules: [{backendRefs: [{name: s, port: 80}]}]"
    text = (
        MANY
        + "{kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}\n---\n"
        + route("[{name: gw}]", more=rules, kind="TCPRoute", name="b")
        + route("[{name: gw}]", more=rules, kind="TCPRoute", name="a")
    )
    graph = graph_of(text)
    found = only_problem(graph)
    assert (found.subject.name, found.condition, found.reason) == ("b", "Conflicted", "ListenerConflict")
    assert "TCPRoute default/a" in found.message
    assert counts(graph)["tcp"] == 2
    serving = {ref.name: len(node.attachments) for ref, node in graph.routes.items()}
    assert serving == {"a": 1, "b": 0}


@pytest.mark.parametrize(
    ("listener", "route_names", "expected"),
    [
        ("", (), ("*",)),
        ("a.com", (), ("a.com",)),
        ("", ("b.com", "a.com", "a.com"), ("a.com", "b.com")),
        ("a.com", ("a.com", "b.com"), ("a.com",)),
        ("*.a.com", ("x.a.com", "x.y.a.com", "a.com", "xa.com"), ("x.a.com", "x.y.a.com")),
        ("x.a.com", ("*.a.com",), ("x.a.com",)),
        ("x.y.a.com", ("*.a.com",), ("x.y.a.com",)),
        ("a.com", ("*.a.com",), ()),
        ("*.a.com", ("*.a.com",), ("*.a.com",)),
        ("*.a.com", ("*.x.a.com", "*.b.com"), ("*.x.a.com",)),
        ("*.x.a.com", ("*.a.com",), ("*.x.a.com",)),
        ("*.a.com", ("X.A.com",), ("x.a.com",)),
    ],
)
def test_intersection_of_hostnames(listener: str, route_names: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert intersect_hostnames(listener, route_names) == expected


def test_a_wildcard_with_more_labels_than_are_looked_up_is_said_to_be_unsupported() -> None:
    twelve = ".".join("abcdefghijkl")
    names = f"['*.{twelve}', '*.m.{twelve}', 'x.y.m.{twelve}']"
    graph = graph_of(MANY + route("[{name: gw, sectionName: any}]", more=f", hostnames: {names}"))
    assert where(graph) == [(0, "any", (f"*.{twelve}", f"x.y.m.{twelve}"))]
    assert [(item.field, item.reason) for item in graph.problems] == [("spec.hostnames[1]", "UnsupportedValue")]


def test_a_listener_with_such_a_wildcard_is_not_accepted() -> None:
    deep = "*." + ".".join("abcdefghijklm")
    graph = graph_of(MANY.replace("'*.a.com'", f"'{deep}'"))
    assert [(item.field, item.reason) for item in graph.problems] == [
        ("spec.listeners[1].hostname", "UnsupportedValue")
    ]
    assert not graph.listeners[ListenerKey("default", "gw", "wild")].accepted
