"""Routes that want one host name of one listener: the older has it, and the other is told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gwctl.api.ref import Ref
from gwctl.graph.conflict import find_losers, hostnames_at, overlap
from gwctl.graph.node import Graph, ListenerKey
from tests.graph.manifests import CLASS, GATEWAY, graph_of, reasons

BACKEND = "rules: [{backendRefs: [{name: s, port: 80}]}]"
CLOSED = "rules: [{filters: [{type: ExtensionRef, extensionRef: {group: g, kind: K, name: n}}]}]"
SERVICE = "{kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}\n---\n"


def route(
    kind: str,
    name: str,
    hostnames: str = "[]",
    *,
    created: int = 2026,
    parents: str = "[{name: gw}]",
    rules: str = BACKEND,
) -> str:
    return f"""
kind: {kind}
metadata: {{name: {name}, creationTimestamp: {created}-01-01T00:00:00Z}}
spec: {{parentRefs: {parents}, hostnames: {hostnames}, {rules}}}
---
"""


def closed(kind: str, name: str, hostnames: str, *, created: int = 2025) -> str:
    """Give a route of which no rule stands, so that it answers its requests with errors."""
    return route(kind, name, hostnames, created=created, rules=CLOSED)


def serving(graph: Graph) -> set[str]:
    return {ref.name for ref, node in graph.routes.items() if node.attachments}


def attached(graph: Graph) -> list[int]:
    return [listener.attached_routes for listener in graph.listeners.values()]


@pytest.mark.parametrize(
    ("http", "grpc"),
    [
        ("[a.com]", "[a.com]"),
        ("[]", "[a.com]"),
        ("[a.com]", "[]"),
        ("['*.com']", "[a.com]"),
        ("[x.a.com]", "['*.com']"),
        ("['*.a.com']", "['*.x.a.com']"),
        ("[b.com, a.com]", "[c.com, a.com]"),
    ],
)
def test_the_older_of_two_with_a_host_in_common_is_accepted(http: str, grpc: str) -> None:
    for older, younger in (("h", "g"), ("g", "h")):
        text = (
            GATEWAY
            + SERVICE
            + route("HTTPRoute", "h", http, created=2025 + (older == "g"))
            + route("GRPCRoute", "g", grpc, created=2025 + (older == "h"))
        )
        graph = graph_of(text)
        assert serving(graph) == {older}
        assert reasons(graph) == [(younger, "spec.parentRefs[0]", "Accepted", "HostnameConflict")]
        (found,) = graph.problems
        kind = "HTTPRoute" if older == "h" else "GRPCRoute"
        assert found.message == (
            f"listener http serves the older {kind} default/{older}, of another kind and with a hostname in common"
        )
        assert attached(graph) == [1]


def test_names_decide_between_routes_of_one_age() -> None:
    text = GATEWAY + SERVICE + route("HTTPRoute", "b") + route("GRPCRoute", "a")
    assert serving(graph_of(text)) == {"a"}


def test_routes_of_both_kinds_without_a_host_in_common_live_side_by_side() -> None:
    text = GATEWAY + SERVICE + route("HTTPRoute", "h", "['*.a.com']") + route("GRPCRoute", "g", "[a.com, b.com]")
    graph = graph_of(text)
    assert serving(graph) == {"g", "h"}
    assert graph.problems == ()


def test_routes_of_one_kind_share_a_host() -> None:
    text = GATEWAY + SERVICE + route("GRPCRoute", "a", "[a.com]") + route("GRPCRoute", "b", "[a.com]")
    assert serving(graph_of(text)) == {"a", "b"}


def test_a_route_that_lost_takes_nothing_from_a_younger_one() -> None:
    text = (
        GATEWAY
        + SERVICE
        + route("HTTPRoute", "first", "[a.com]", created=2024)
        + route("GRPCRoute", "second", "[a.com, b.com]", created=2025)
        + route("HTTPRoute", "third", "[b.com]", created=2026)
    )
    assert serving(graph_of(text)) == {"first", "third"}


@pytest.mark.parametrize(
    ("of_closed", "of_accepted", "left"),
    [
        ("[a.com]", "[a.com]", set()),
        ("[a.com, b.com]", "[a.com]", {"b.com"}),
        ("[x.a.com, a.com]", "['*.a.com']", {"a.com"}),
        ("['*.x.a.com']", "['*.a.com']", set()),
        ("['*.a.com']", "[x.a.com]", {"*.a.com"}),
        ("[a.com]", "[]", set()),
        ("[]", "[a.com]", {"*"}),
        ("[]", "[]", set()),
    ],
)
@pytest.mark.parametrize(("one", "other"), [("HTTPRoute", "GRPCRoute"), ("GRPCRoute", "HTTPRoute")])
def test_a_route_that_is_not_accepted_gives_way_to_a_younger_one_that_is(
    one: str, other: str, of_closed: str, of_accepted: str, left: set[str]
) -> None:
    graph = graph_of(GATEWAY + SERVICE + closed(one, "old", of_closed) + route(other, "young", of_accepted))
    old, young = graph.routes[Ref(one, "default", "old")], graph.routes[Ref(other, "default", "young")]
    assert {name for item in old.attachments for name in item.hostnames} == left
    assert (old.attached, young.problems, attached(graph)) == ((), (), [1])
    assert [(item.condition, item.reason) for item in old.problems if item.condition == "Accepted"] == [
        ("Accepted", "UnsupportedValue")
    ]


def test_the_names_that_a_route_does_not_close_are_told() -> None:
    graph = graph_of(
        GATEWAY + SERVICE + closed("HTTPRoute", "old", "[a.com, b.com]") + route("GRPCRoute", "young", "[a.com]")
    )
    (told,) = (item for item in graph.problems if item.condition == "Conflicted")
    assert told.message == "listener http serves a.com by GRPCRoute default/young, of another kind"


def test_of_two_routes_that_are_not_accepted_the_older_closes_their_name() -> None:
    for older, younger in (("h", "g"), ("g", "h")):
        graph = graph_of(
            GATEWAY
            + closed("HTTPRoute", "h", "[a.com]", created=2025 + (older == "g"))
            + closed("GRPCRoute", "g", "[a.com]", created=2025 + (younger == "g"))
        )
        assert serving(graph) == {older}


def test_listeners_decide_each_for_itself() -> None:
    gateway = (
        CLASS
        + """
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: gwctl
  listeners:
  - {name: one, port: 80, protocol: HTTP}
  - {name: two, port: 81, protocol: HTTP}
---
"""
    )
    text = (
        gateway
        + SERVICE
        + route("HTTPRoute", "h", created=2025, parents="[{name: gw, sectionName: one}]")
        + route("GRPCRoute", "g")
    )
    graph = graph_of(text)
    node = graph.routes[Ref("GRPCRoute", "default", "g")]
    assert [item.listener.listener for item in node.attachments] == ["two"]
    # One listener of the parent takes it, so it is accepted.
    assert reasons(graph) == [("g", "spec.parentRefs[0]", "Conflicted", "HostnameConflict")]
    assert attached(graph) == [1, 1]


TLS = (
    CLASS
    + """
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: gwctl
  listeners:
  - {name: all, port: 443, protocol: TLS, tls: {mode: Passthrough}}
  - {name: com, port: 443, protocol: TLS, hostname: '*.com', tls: {mode: Passthrough}}
---
"""
)


def names_at(graph: Graph, route: str) -> dict[str, tuple[str, ...]]:
    node = graph.routes[Ref("TLSRoute", "default", route)]
    return {item.listener.listener: item.hostnames for item in node.attachments}


def test_of_two_tls_routes_the_older_has_each_name_and_the_younger_the_rest() -> None:
    old = route("TLSRoute", "old", "[a.com, b.org]", created=2025)
    graph = graph_of(TLS + SERVICE + old + route("TLSRoute", "young", "[a.com, '*.com', b.org]"))
    assert names_at(graph, "old") == {"all": ("a.com", "b.org"), "com": ("a.com",)}
    assert names_at(graph, "young") == {"all": ("*.com",), "com": ("*.com",)}
    assert attached(graph) == [2, 2]
    assert reasons(graph) == [("young", "spec.parentRefs[0]", "Conflicted", "HostnameConflict")] * 2
    assert [item.message for item in graph.problems] == [
        "listener all serves a.com, b.org by the older TLSRoute default/old",
        "listener com serves a.com by the older TLSRoute default/old",
    ]


def test_a_tls_route_whose_names_are_all_taken_is_counted_and_serves_nothing() -> None:
    old = route("TLSRoute", "old", created=2025)
    graph = graph_of(TLS + SERVICE + old + route("TLSRoute", "young"))
    assert serving(graph) == {"old"}
    assert attached(graph) == [2, 2]
    assert graph.problems[0].message == "listener all serves any name by the older TLSRoute default/old"


HOSTS = ("a.com", "x.a.com", "y.x.a.com", "b.com", "*.a.com", "*.x.a.com", "*.com", "*")
ROUTES = st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from(HOSTS[:-1]), max_size=2, unique=True)), max_size=6)


@settings(deadline=None)
@given(ROUTES)
def test_losers_are_those_that_meet_an_older_winner_of_the_other_kind(routes: list[tuple[bool, list[str]]]) -> None:
    text = GATEWAY + SERVICE
    for index, (is_grpc, hostnames) in enumerate(routes):
        text += route("GRPCRoute" if is_grpc else "HTTPRoute", f"r{index}", str(hostnames), created=2000 + index)
    graph = graph_of(text)
    assert graph.index is not None
    alone = graph.index.alone
    listener = ListenerKey("default", "gw", "http")
    losers = find_losers(alone.values(), listener)
    names = {ref: hostnames_at(node, listener) for ref, node in alone.items()}
    winners: list[Ref] = []
    for ref in sorted(alone, key=lambda ref: ref.name):
        met = [
            other
            for other in winners
            if other.kind != ref.kind and any(overlap(a, b) for a in names[ref] for b in names[other])
        ]
        if met:
            assert losers[ref].older in met
        else:
            assert ref not in losers
            winners.append(ref)
    assert serving(graph) == {ref.name for ref in winners}


@given(st.sampled_from(HOSTS), st.sampled_from(HOSTS))
def test_overlapping_is_mutual_and_means_a_common_host(one: str, other: str) -> None:
    def hosts(pattern: str) -> set[str]:
        every = {name.replace("*", "w") for name in HOSTS} | {"v.a.com", "v.x.a.com"}
        if pattern == "*":
            return every
        return {name for name in every if name == pattern or (pattern[0] == "*" and name.endswith(pattern[1:]))}

    assert overlap(one, other) == overlap(other, one) == bool(hosts(one) & hosts(other))


def test_tls_of_listeners_overlaps_by_their_names() -> None:
    names = {"a": "foo.example.com", "b": "foo.example.org", "c": "*.example.com", "d": "*.x.example.org"}
    listeners = [
        f"{{name: {name}, port: 443, protocol: HTTPS, hostname: '{host}', tls: {{certificateRefs: [{{name: c}}]}}}}"
        for name, host in names.items()
    ]
    listeners.append("{name: other, port: 8443, protocol: TLS, hostname: foo.example.com, tls: {mode: Passthrough}}")
    listeners.append("{name: plain, port: 80, protocol: HTTP}")

    def overlapping(*more: str) -> set[str]:
        text = ", ".join([*listeners, *more])
        graph = graph_of(
            f"{CLASS}{{kind: Gateway, metadata: {{name: gw}}, spec: {{gatewayClassName: gwctl, listeners: [{text}]}}}}"
        )
        return {node.key.listener for node in graph.listeners.values() if node.overlaps}

    assert overlapping() == {"a", "c"}
    assert overlapping("{name: any, port: 443, protocol: TLS, tls: {mode: Passthrough}}") == {"a", "b", "c", "d", "any"}
