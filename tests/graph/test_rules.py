"""Rules: which stand, where their backendRefs lead, and what is refused."""

from __future__ import annotations

import pytest

from gwctl.api.ref import Ref
from gwctl.graph.node import BackendNode, Graph, HTTPRuleNode, RouteNode, ServicePort
from gwctl.graph.validate import regex_error
from tests.graph.manifests import GATEWAY, graph_of, only_problem, reasons

SERVICES = """
kind: Service
metadata: {name: s}
spec:
  ports:
  - {name: a, port: 80, appProtocol: kubernetes.io/h2c}
  - {name: b, port: 81}
  - {name: c, port: 53, protocol: UDP}
---
kind: Service
metadata: {name: outside}
spec: {type: ExternalName, externalName: metadata.internal, ports: [{port: 80}]}
---
kind: Service
metadata: {name: s, namespace: n}
spec: {ports: [{port: 80}]}
---
"""
GRANT = """
kind: ReferenceGrant
metadata: {name: g, namespace: n}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: '', kind: Service}]
---
"""


def route(rules: str) -> str:
    return f"{{kind: HTTPRoute, metadata: {{name: r}}, spec: {{parentRefs: [{{name: gw}}], rules: {rules}}}}}\n---\n"


def node_of(graph: Graph) -> RouteNode:
    return graph.routes[Ref("HTTPRoute", "default", "r")]


def rules_of(graph: Graph) -> list[HTTPRuleNode]:
    return [rule for rule in node_of(graph).rules if isinstance(rule, HTTPRuleNode)]


def backends_of(refs: str, more: str = "") -> tuple[Graph, tuple[BackendNode, ...]]:
    graph = graph_of(GATEWAY + SERVICES + more + route(f"[{{backendRefs: {refs}}}]"))
    return graph, rules_of(graph)[0].backends


def test_backend_that_is_right() -> None:
    graph, backends = backends_of("[{name: s, port: 80, weight: 13}, {name: s, port: 81}]")
    assert graph.problems == ()
    assert backends == (
        BackendNode(13, ServicePort("default", "s", 80, "kubernetes.io/h2c")),
        BackendNode(1, ServicePort("default", "s", 81)),
    )
    assert Ref("Service", "default", "s") in node_of(graph).references


@pytest.mark.parametrize(
    ("ref", "field", "reason"),
    [
        ("{name: missing, port: 80}", "name", "BackendNotFound"),
        ("{name: s, port: 82}", "port", "BackendNotFound"),
        ("{name: s, port: 53}", "port", "UnsupportedProtocol"),
        ("{name: outside, port: 80}", "name", "UnsupportedValue"),
        ("{name: s, kind: Pod}", "kind", "InvalidKind"),
        ("{name: s, group: x.io, port: 80}", "kind", "InvalidKind"),
        ("{name: s, namespace: n, port: 80}", "", "RefNotPermitted"),
        ("{name: missing, namespace: n, port: 80}", "", "RefNotPermitted"),
    ],
)
def test_backend_that_leads_nowhere_keeps_its_weight(ref: str, field: str, reason: str) -> None:
    graph, backends = backends_of(f"[{{name: s, port: 81}}, {ref[:-1]}, weight: 3}}]")
    path = "spec.rules[0].backendRefs[1]" + (f".{field}" if field else "")
    assert reasons(graph) == [("r", path, "ResolvedRefs", reason)]
    assert backends[1] == BackendNode(3, None)
    assert node_of(graph).attachments != ()


REFUSED_POLICY = """
kind: BackendTLSPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: '', kind: Service, name: s, sectionName: b}]
  validation: {hostname: s.test, caCertificateRefs: [{group: '', kind: ConfigMap, name: missing}]}
---
"""


@pytest.mark.parametrize(
    ("kind", "rule", "field"),
    [
        ("HTTPRoute", "{backendRefs: [{name: s, port: 81}]}", "backendRefs[0]"),
        ("GRPCRoute", "{backendRefs: [{name: s, port: 81}]}", "backendRefs[0]"),
        ("TCPRoute", "{backendRefs: [{name: s, port: 81}]}", "backendRefs[0]"),
        (
            "HTTPRoute",
            "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: s, port: 81}}}]}",
            "filters[0].requestMirror.backendRef",
        ),
    ],
)
def test_backend_whose_policy_cannot_be_honoured_is_told(kind: str, rule: str, field: str) -> None:
    parent = GATEWAY.replace("protocol: HTTP", "protocol: TCP") if kind == "TCPRoute" else GATEWAY
    asked = f"{{kind: {kind}, metadata: {{name: r}}, spec: {{parentRefs: [{{name: gw}}], rules: [{rule}]}}}}"
    graph = graph_of(parent + SERVICES + REFUSED_POLICY + asked)
    (told,) = graph.routes[Ref(kind, "default", "r")].problems
    assert (told.field, told.condition) == (f"spec.rules[0].{field}.name", "ResolvedRefs")
    assert told.reason == "InvalidBackendTLSPolicy"
    assert told.message == "a BackendTLSPolicy of Service default/s cannot be honoured, see its status"


def test_a_policy_for_another_port_is_no_problem_of_a_backend() -> None:
    graph, backends = backends_of("[{name: s, port: 80}]", REFUSED_POLICY)
    assert node_of(graph).problems == ()
    assert backends == (BackendNode(1, ServicePort("default", "s", 80, "kubernetes.io/h2c")),)


def test_a_missing_service_is_remembered_as_a_reference() -> None:
    graph, _ = backends_of("[{name: missing, port: 80}]")
    assert Ref("Service", "default", "missing") in node_of(graph).references


def test_grant_lets_a_route_refer_to_another_namespace() -> None:
    graph, backends = backends_of("[{name: s, namespace: n, port: 80}]", GRANT)
    assert graph.problems == ()
    assert backends == (BackendNode(1, ServicePort("n", "s", 80)),)


@pytest.mark.parametrize(
    ("old", "new", "permitted"),
    [
        ("kind: Service}", "kind: Service, name: s}", True),
        ("kind: Service}", "kind: Service, name: t}", False),
        ("kind: Service}", "kind: Secret}", False),
        ("to: [{group: ''", "to: [{group: x.io", False),
        ("kind: HTTPRoute", "kind: TCPRoute", False),
        ("from: [{group: gateway.networking.k8s.io", "from: [{group: ''", False),
        ("namespace: default", "namespace: other", False),
        ("namespace: n}", "namespace: default}", False),
    ],
)
def test_grant_must_name_both_sides(old: str, new: str, permitted: bool) -> None:
    assert old in GRANT
    graph, _ = backends_of("[{name: s, namespace: n, port: 80}]", GRANT.replace(old, new))
    assert (graph.problems == ()) is permitted


def test_rule_without_backends_stands() -> None:
    graph = graph_of(GATEWAY + route("[{name: empty}]"))
    assert graph.problems == ()
    assert [(rule.index, rule.name, rule.backends) for rule in rules_of(graph)] == [(0, "empty", ())]


REDIRECT = "filters: [{type: RequestRedirect, requestRedirect: {path: %s}}]"
EXTENSION = "{type: ExtensionRef, extensionRef: {group: g, kind: K, name: n}}"

AUTH = "{type: ExternalAuth, externalAuth: {backendRef: {name: s, port: 80}, %s}}"

MANY = f"protocol: HTTP, http: {{allowedHeaders: [{', '.join('x' * 64 + str(n) for n in range(64))}]}}"


def test_what_crds_before_v1_6_admit_stands() -> None:
    origins = "['app://b.test', 'https://*b.test', 'https://[::1]:8080', 'HTTP://*']"
    rules = (
        "{retry: {attempts: 0, codes: [500, 500]}, sessionPersistence: {}}",
        f"{{filters: [{{type: CORS, cors: {{allowOrigins: {origins}, allowHeaders: ['*', x]}}}}]}}",
    )
    assert graph_of(GATEWAY + SERVICES + route(f"[{', '.join(rules)}]")).problems == ()


CLOSED = [
    (
        f"backendRefs: [{{name: s, port: 80, filters: [{EXTENSION}]}}]",
        "backendRefs[0].filters[0].type",
    ),
    (f"filters: [{EXTENSION}]", "filters[0].type"),
    (f"filters: [{AUTH % 'protocol: GRPC, grpc: {}'}]", "filters[0].externalAuth.protocol"),
    (
        f"filters: [{AUTH % 'protocol: HTTP, http: {}, forwardBody: {maxSize: 1}'}]",
        "filters[0].externalAuth.forwardBody",
    ),
    (
        f"filters: [{AUTH % MANY}]",
        "filters[0].externalAuth.http",
    ),
    (
        f"filters: [{AUTH % 'protocol: HTTP, http: {allowedHeaders: [a b]}'}]",
        "filters[0].externalAuth.http",
    ),
]

UNSUPPORTED = [
    ("retry: {attempts: 101}", "retry.attempts"),
    ("retry: {attempts: -1}", "retry.attempts"),
    *(
        (
            f"filters: [{{type: CORS, cors: {{allowOrigins: ['https://a.test', '{origin}']}}}}]",
            "filters[0].cors.allowOrigins[1]",
        )
        for origin in ("https://b.test/", "https://b*.test", "b.test", "mailto:b", "https://ü.test", "https://b.test:x")
    ),
    ("sessionPersistence: {}, retry: {}", "sessionPersistence"),
    ("sessionPersistence: {sessionName: 'a=b'}", "sessionPersistence.sessionName"),
    ("sessionPersistence: {sessionName: Cookie, type: Header}", "sessionPersistence.sessionName"),
    ("sessionPersistence: {absoluteTimeout: 0s}", "sessionPersistence.absoluteTimeout"),
    ("matches: [{path: {type: RegularExpression, value: 'a('}}]", "matches[0].path.value"),
    (
        "matches: [{headers: [{type: RegularExpression, name: a, value: 'a('}]}]",
        "matches[0].headers[0].value",
    ),
    (
        "matches: [{queryParams: [{type: RegularExpression, name: a, value: '['}]}]",
        "matches[0].queryParams[0].value",
    ),
    (
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [a, 'b c']}}]",
        "filters[0].requestHeaderModifier.remove[1]",
    ),
    (
        REDIRECT % '{type: ReplaceFullPath, replaceFullPath: "/a\\r\\nX: y"}',
        "filters[0].requestRedirect.path.replaceFullPath",
    ),
    (
        REDIRECT % "{type: ReplacePrefixMatch, replacePrefixMatch: a}",
        "filters[0].requestRedirect.path.replacePrefixMatch",
    ),
]


@pytest.mark.parametrize(("rule", "field"), UNSUPPORTED)
def test_rule_that_cannot_be_honoured_is_refused_and_the_route_with_it(rule: str, field: str) -> None:
    graph = graph_of(GATEWAY + SERVICES + route(f"[{{{rule}}}]"))
    assert reasons(graph) == [("r", f"spec.rules[0].{field}", "Accepted", "UnsupportedValue")]
    assert node_of(graph).attachments == ()
    assert [node.attached_routes for node in graph.listeners.values()] == [0]


@pytest.mark.parametrize(("rule", "field"), UNSUPPORTED)
def test_rule_that_cannot_be_honoured_is_dropped_beside_others(rule: str, field: str) -> None:
    graph = graph_of(GATEWAY + SERVICES + route(f"[{{}}, {{{rule}}}]"))
    found = only_problem(graph)
    assert (found.field, found.condition) == (f"spec.rules[1].{field}", "PartiallyInvalid")
    assert found.message.startswith("Dropped Rule")
    assert [item.index for item in rules_of(graph)] == [0]
    assert [node.attached_routes for node in graph.listeners.values()] == [1]


def test_filters_that_are_supported_stay() -> None:
    graph = graph_of(
        GATEWAY
        + SERVICES
        + route(
            "[{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: A, value: b}]}}, "
            "{type: RequestRedirect, requestRedirect: {scheme: https}}], backendRefs: [{name: s, port: 80}]}]"
        )
    )
    assert graph.problems == ()
    assert [item.resource.type for item in rules_of(graph)[0].filters] == ["RequestHeaderModifier", "RequestRedirect"]


def test_of_equal_names_only_the_first_counts() -> None:
    graph = graph_of(
        GATEWAY
        + route(
            "[{matches: [{headers: [{name: A, value: '1'}, {name: b, value: '2'}, {name: a, value: '3'}], "
            "queryParams: [{name: A, value: '1'}, {name: a, value: '2'}, {name: A, value: '3'}]}], "
            "filters: [{type: RequestHeaderModifier, requestHeaderModifier: "
            "{set: [{name: X, value: '1'}, {name: x, value: '2'}], "
            "add: [{name: y, value: '1'}, {name: Y, value: '2'}]}}]}]"
        )
    )
    (rule,) = rules_of(graph)
    assert [(item.name, item.value) for item in rule.matches[0].headers] == [("A", "1"), ("b", "2")]
    assert [(item.name, item.value) for item in rule.matches[0].query_params] == [("A", "1"), ("a", "2")]
    modifier = rule.filters[0].resource.request_header_modifier
    assert modifier is not None
    assert [item.value for item in (*modifier.set, *modifier.add)] == ["1", "1"]


@pytest.mark.parametrize(
    "pattern", ["", "a|b", "^/v[0-9]+$", "(?i)abc", r"a\.b", "ä", "[[:alpha:]]", r"\d{1,3}", "a b;\"'"]
)
def test_regular_expressions_that_stand(pattern: str) -> None:
    assert regex_error(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "a(",
        "[",
        "*",
        "a)|(b",  # would be well-formed only inside the group that wraps it
        "\\",
        r"\Qabc",  # would swallow the end of that group
        "(?x) a # b",  # would make it a comment
        "(*UTF)a",  # may only come first
        "a\nb",
        "a\rb",
        "a\0b",
    ],
)
def test_regular_expressions_that_are_refused(pattern: str) -> None:
    assert regex_error(pattern)


def test_message_of_a_bad_regular_expression_is_that_of_pcre2() -> None:
    assert "missing closing parenthesis" in (regex_error("a(") or "")


def test_default_gateways_are_told_and_the_route_stands() -> None:
    graph = graph_of(
        GATEWAY + "{kind: HTTPRoute, metadata: {name: r}, spec: {parentRefs: [{name: gw}], useDefaultGateways: All}}"
    )
    assert reasons(graph) == [("r", "spec.useDefaultGateways", "PartiallyInvalid", "UnsupportedValue")]
    assert len(node_of(graph).attachments) == 1


def test_problems_are_sorted_and_name_their_field() -> None:
    graph = graph_of(
        GATEWAY
        + route("[{backendRefs: [{name: z, port: 1}, {name: y, port: 1}]}, {backendRefs: [{name: x, port: 1}]}]")
    )
    assert [item.field for item in graph.problems] == [
        "spec.rules[0].backendRefs[0].name",
        "spec.rules[0].backendRefs[1].name",
        "spec.rules[1].backendRefs[0].name",
    ]


@pytest.mark.parametrize(
    ("modifier", "field"),
    [
        ("set: [{name: Connection, value: close}]", "set[0].name"),
        ("add: [{name: x, value: y}, {name: content-length, value: '1'}]", "add[1].name"),
        ("remove: [Transfer-Encoding]", "remove[0]"),
        ("remove: ['x y']", "remove[0]"),
        ('set: [{name: x, value: "a\\r\\ny: 1"}]', "set[0].value"),
        ('add: [{name: x, value: "a\\0"}]', "add[0].value"),
        ('add: [{name: x, value: "a\\x7F"}]', "add[0].value"),
    ],
)
@pytest.mark.parametrize("kind", ["RequestHeaderModifier", "ResponseHeaderModifier"])
def test_a_change_of_headers_that_haproxy_would_drop_or_garble_is_refused(modifier: str, field: str, kind: str) -> None:
    name = kind[0].lower() + kind[1:]
    filters = f"filters: [{{type: {kind}, {name}: {{{modifier}}}}}]"
    for rule, at in ((filters, ""), (f"backendRefs: [{{name: s, port: 80, {filters}}}]", "backendRefs[0].")):
        problem = only_problem(graph_of(GATEWAY + SERVICES + route(f"[{{{rule}}}]")))
        assert problem.reason == "UnsupportedValue"
        assert problem.field == f"spec.rules[0].{at}filters[0].{name}.{field}"


@pytest.mark.parametrize(
    ("modifier", "fields"),
    [
        ("set: [{name: HOST, value: b.test}]", []),
        ("add: [{name: Host, value: b.test}]", ["add[0].name"]),
        ("remove: [host]", ["remove[0]"]),
    ],
)
def test_a_request_keeps_exactly_one_host(modifier: str, fields: list[str]) -> None:
    rules = f"[{{filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{{modifier}}}}}]}}]"
    graph = graph_of(GATEWAY + SERVICES + route(rules))
    assert [item.field.partition("Modifier.")[2] for item in graph.problems] == fields


def test_a_mirror_is_a_reference_like_a_backend() -> None:
    mirrors = "".join(
        f"{{type: RequestMirror, requestMirror: {{backendRef: {ref}}}}}, "
        for ref in ("{name: s, port: 80}", "{name: gone, port: 80}", "{name: x, namespace: n, port: 80}")
    )
    own = "{type: RequestMirror, requestMirror: {backendRef: {name: s, port: 81}}}"
    graph = graph_of(
        GATEWAY
        + SERVICES
        + route(f"[{{filters: [{mirrors}], backendRefs: [{{name: s, port: 80, filters: [{own}]}}]}}]")
    )
    assert [(item.field, item.condition, item.reason) for item in graph.problems] == [
        ("spec.rules[0].filters[1].requestMirror.backendRef.name", "ResolvedRefs", "BackendNotFound"),
        ("spec.rules[0].filters[2].requestMirror.backendRef", "ResolvedRefs", "RefNotPermitted"),
    ]
    (rule,) = rules_of(graph)
    assert [item.service and item.service.port for item in rule.filters] == [80, None, None]
    assert {service.port for service in graph.endpoints} == {80, 81}


ASKS = "{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: s, port: 80}, http: {}}}"
LONG = "v" * 1000
ASKS_BY_GRPC = "{type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: s, port: 80}, grpc: {}}}"


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        *CLOSED,
        (f"filters: [{ASKS}], retry: {{attempts: 101}}", "retry.attempts"),
        (
            f"backendRefs: [{{name: s, port: 80}}, {{name: s, port: 81, filters: [{ASKS_BY_GRPC}]}}]",
            "backendRefs[1].filters[0].externalAuth.protocol",
        ),
        (f"backendRefs: [{{name: s, port: 80, filters: [{ASKS}]}}], retry: {{attempts: 101}}", "retry.attempts"),
    ],
)
@pytest.mark.parametrize("other", ["", ", {}"])
def test_a_refused_rule_that_asks_first_is_closed_and_serves_nothing(rule: str, field: str, other: str) -> None:
    graph = graph_of(GATEWAY + SERVICES + route(f"[{{matches: [{{path: {{value: /admin}}}}], {rule}}}{other}]"))
    found = only_problem(graph)
    assert (found.field, found.condition) == (f"spec.rules[0].{field}", "PartiallyInvalid" if other else "Accepted")
    closed = rules_of(graph)[0]
    assert (closed.index, closed.closed, closed.filters, closed.backends) == (0, True, (), ())
    assert [match.path.value for match in closed.matches] == ["/admin"]
    assert len(node_of(graph).attachments) == 1
    assert [node.attached_routes for node in graph.listeners.values()] == [1 if other else 0]


@pytest.mark.parametrize(
    "bad",
    [
        "path: {type: RegularExpression, value: '/a('}",
        "headers: [{type: RegularExpression, name: a, value: 'a('}]",
        "queryParams: [{type: RegularExpression, name: a, value: 'a('}]",
        f"headers: [{', '.join(f'{{name: a{n}, value: {LONG}}}' for n in range(10))}]",
    ],
)
def test_a_match_that_cannot_be_had_is_told_from_the_others_of_a_closed_rule(bad: str) -> None:
    rule = f"{{matches: [{{path: {{value: /b}}}}, {{{bad}}}], filters: [{ASKS}]}}"
    graph = graph_of(GATEWAY + SERVICES + route(f"[{rule}, {{}}]"))
    closed, other = rules_of(graph)
    assert (closed.closed, sorted(closed.unfit)) == (True, [1])
    assert (other.closed, sorted(other.unfit)) == (False, [])
