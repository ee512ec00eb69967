"""GRPCRoutes: where they attach, what they refer to, and what of a rule is refused."""

from __future__ import annotations

import pcre2
import pytest

from gwctl.api.grpcroute import GRPCMethodMatch
from gwctl.api.ref import Ref
from gwctl.graph.grpc import METHOD_LIMIT, method_pattern
from gwctl.graph.node import Graph, GRPCRuleNode, ServicePort
from tests.graph.manifests import GATEWAY, graph_of, only_problem, reasons

SERVICE = "{kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}\n---\n"
REF = Ref("GRPCRoute", "default", "r")


def route(rules: str, more: str = "") -> str:
    return (
        f"{{kind: GRPCRoute, metadata: {{name: r}}, spec: {{parentRefs: [{{name: gw}}], rules: {rules}{more}}}}}\n---\n"
    )


def graph(rules: str, more: str = "") -> Graph:
    return graph_of(GATEWAY + SERVICE + route(rules, more))


def test_a_route_attaches_and_resolves_its_backends() -> None:
    found = graph("[{name: n, backendRefs: [{name: s, port: 80, weight: 3}]}]")
    node = found.routes[REF]
    assert [item.hostnames for item in node.attachments] == [("*",)]
    (rule,) = node.rules
    assert isinstance(rule, GRPCRuleNode)
    assert (rule.index, rule.name) == (0, "n")
    assert [(backend.weight, backend.service) for backend in rule.backends] == [(3, ServicePort("default", "s", 80))]
    assert [listener.attached_routes for listener in found.listeners.values()] == [1]
    assert found.problems == ()


def test_a_route_without_rules_is_accepted_and_takes_its_hosts() -> None:
    found = graph("[]", ", hostnames: [a.com]")
    assert [item.hostnames for item in found.routes[REF].attachments] == [("a.com",)]
    assert found.problems == ()


def test_hostnames_meet_the_listeners() -> None:
    text = GATEWAY.replace("port: 80, protocol: HTTP", "port: 80, protocol: HTTP, hostname: '*.a.com'")
    found = graph_of(text + SERVICE + route("[{}]", ", hostnames: [x.a.com, b.com]"))
    assert [item.hostnames for item in found.routes[REF].attachments] == [("x.a.com",)]
    found = graph_of(text + SERVICE + route("[{}]", ", hostnames: [b.com]"))
    assert reasons(found) == [("r", "spec.parentRefs[0]", "Accepted", "NoMatchingListenerHostname")]


def test_a_listener_may_take_one_kind_alone() -> None:
    for kind, problems in (("GRPCRoute", 0), ("HTTPRoute", 1)):
        text = GATEWAY.replace("protocol: HTTP", f"protocol: HTTP, allowedRoutes: {{kinds: [{{kind: {kind}}}]}}")
        assert len(graph_of(text + SERVICE + route("[{}]")).problems) == problems


def test_backends_elsewhere_need_a_grant_for_grpcroutes() -> None:
    grant = """
kind: ReferenceGrant
metadata: {name: g, namespace: n}
spec:
  from: [{group: gateway.networking.k8s.io, kind: KIND, namespace: default}]
  to: [{group: '', kind: Service}]
---
{kind: Service, metadata: {name: s, namespace: n}, spec: {ports: [{port: 80}]}}
---
"""
    rules = "[{backendRefs: [{name: s, namespace: n, port: 80}]}]"
    found = graph_of(GATEWAY + grant.replace("KIND", "GRPCRoute") + route(rules))
    assert found.problems == ()
    found = graph_of(GATEWAY + grant.replace("KIND", "HTTPRoute") + route(rules))
    assert reasons(found) == [("r", "spec.rules[0].backendRefs[0]", "ResolvedRefs", "RefNotPermitted")]


def test_a_backend_that_is_missing_is_told_with_its_field() -> None:
    found = graph("[{}, {backendRefs: [{name: s, port: 80}, {name: t, port: 80}]}]")
    assert reasons(found) == [("r", "spec.rules[1].backendRefs[1].name", "ResolvedRefs", "BackendNotFound")]


@pytest.mark.parametrize(("protocol", "problems"), [("kubernetes.io/ws", 1), ("kubernetes.io/h2c", 0), ("grpc", 0)])
def test_a_port_for_websockets_takes_no_calls(protocol: str, problems: int) -> None:
    port = f"{{name: p, port: 80, appProtocol: {protocol}}}"
    text = SERVICE.replace("{port: 80}", port) + route("[{backendRefs: [{name: s, port: 80}]}]")
    wrong = ("r", "spec.rules[0].backendRefs[0].port", "ResolvedRefs", "UnsupportedProtocol")
    assert reasons(graph_of(GATEWAY + text)) == [wrong] * problems


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ("{matches: [{method: {type: RegularExpression, service: '('}}]}", "matches[0].method.service"),
        ("{matches: [{method: {type: RegularExpression, service: 'a)|(b'}}]}", "matches[0].method.service"),
        ("{matches: [{}, {method: {type: RegularExpression, method: '[z'}}]}", "matches[1].method.method"),
        (
            "{matches: [{method: {type: RegularExpression, service: '(a)', method: '(b)\\1'}}]}",
            "matches[0].method.method",
        ),
        (
            "{matches: [{method: {type: RegularExpression, service: '(?<n>a)', method: '(?<n>b)'}}]}",
            "matches[0].method",
        ),
        ("{matches: [{headers: [{name: a, type: RegularExpression, value: '+'}]}]}", "matches[0].headers[0].value"),
        (f"{{matches: [{{method: {{service: {'s' * 600}, method: {'m' * 600}}}}}]}}", "matches[0].method"),
        ("{filters: [{type: ExtensionRef, extensionRef: {group: a.b, kind: C, name: d}}]}", "filters[0].type"),
        (
            "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [upgrade]}}]}",
            "filters[0].requestHeaderModifier.remove[0]",
        ),
        ("{sessionPersistence: {sessionName: 'a b'}}", "sessionPersistence.sessionName"),
    ],
)
def test_a_rule_that_cannot_be_served_is_refused_with_its_field(rule: str, field: str) -> None:
    found = only_problem(graph(f"[{rule}]"))
    assert (found.field, found.condition, found.reason) == (f"spec.rules[0].{field}", "Accepted", "UnsupportedValue")
    found = only_problem(graph(f"[{{}}, {rule}]"))
    assert (found.field, found.condition) == (f"spec.rules[1].{field}", "PartiallyInvalid")


def test_a_refused_rule_that_protects_is_closed() -> None:
    extension = "filters: [{type: ExtensionRef, extensionRef: {group: a.b, kind: C, name: d}}]"
    bad = "{method: {type: RegularExpression, service: 'a)|(b'}}"
    made = graph(f"[{{matches: [{{method: {{service: a}}}}, {bad}], {extension}}}, {{}}]")
    closed, other = (rule for node in made.routes.values() for rule in node.rules if isinstance(rule, GRPCRuleNode))
    assert (closed.closed, sorted(closed.unfit), closed.filters, closed.backends) == (True, [1], (), ())
    assert not other.closed


def test_a_match_too_long_for_a_row_is_refused() -> None:
    value = "ü" * 2000
    headers = ", ".join(f"{{name: h{number}, value: {value}}}" for number in range(2))
    found = only_problem(graph(f"[{{matches: [{{headers: [{headers}]}}]}}]"))
    assert found.field == "spec.rules[0].matches[0]"


def test_the_longest_service_and_method_are_taken() -> None:
    service, method = "s" * (METHOD_LIMIT - 3), "m"
    assert graph(f"[{{matches: [{{method: {{service: {service}, method: {method}}}}}]}}]").problems == ()


def test_references_to_groups_are_taken_where_they_mean_what_they_say() -> None:
    method = "{type: RegularExpression, service: '(?:a|b)', method: '(x)\\1'}"
    assert graph(f"[{{matches: [{{method: {method}}}]}}]").problems == ()


@pytest.mark.parametrize(
    ("service", "method", "path", "fits"),
    [
        (None, "Echo", "/any.Service/Echo", True),
        (None, "Echo", "/any.Service/EchoTwo", False),
        (None, "Echo", "/Echo", False),
        (None, "Echo", "/a/b/Echo", False),
        (r"foo\..*", None, "/foo.Bar/M", True),
        (r"foo\..*", None, "/foo.Bar/M/N", False),
        (".*", "E.*", "/a/E", True),
        (".*", "E.*", "/a/b/E", False),
        (".*", ".*", "/a/", False),
        ("a|b", "c|d", "/b/c", True),
        ("a|b", "c|d", "/a", False),
        ("a|b", "c|d", "/d", False),
        ("a", "(?i)m", "/A/M", False),
        ("a", "(?i)m", "/a/M", True),
    ],
)
def test_expressions_fit_a_whole_service_and_a_whole_method(
    service: str | None, method: str | None, path: str, fits: bool
) -> None:
    match = GRPCMethodMatch(type="RegularExpression", service=service, method=method)
    assert (pcre2.compile(f"\\A(?:{method_pattern(match)})\\z".encode()).match(path.encode()) is not None) == fits


def test_an_exact_method_of_any_service_is_an_expression() -> None:
    assert method_pattern(GRPCMethodMatch(method="Echo")) == "/[^/]+/Echo"
