"""What the status of a route says, for each parent that is ours."""

from __future__ import annotations

import pytest

from gwctl.api.ref import Ref
from gwctl.graph.build import build_graph
from gwctl.graph.problem import fall_back, unknown_field
from gwctl.snapshot import Snapshot
from gwctl.status.build import build_statuses
from gwctl.status.event import build_events
from gwctl.status.outcome import Stale
from tests.graph.manifests import CONTROLLER, GATEWAY, graph_of, read_all, stand_in
from tests.status.resources import ROUTE_REF, gateway, message, of_parents, same, served, status_of

GOOD = {"Accepted": "True/Accepted", "ResolvedRefs": "True/ResolvedRefs"}
THEIRS = (
    "{kind: GatewayClass, metadata: {name: other}, spec: {controllerName: example.com/other}}\n---\n"
    "{kind: Gateway, metadata: {name: theirs}, spec: {gatewayClassName: other, "
    "listeners: [{name: a, port: 80, protocol: HTTP}]}}\n---\n"
)


def route(parents: str = "[{name: gw}]", more: str = "", kind: str = "HTTPRoute", meta: str = "name: r") -> str:
    return f"{{kind: {kind}, metadata: {{{meta}}}, spec: {{parentRefs: {parents}{more}}}}}\n---\n"


GLOB = ", rules: [{matches: [{path: {type: Glob}}]}]"


def rule(text: str) -> str:
    return f", rules: [{text}]"


def test_a_route_that_is_fine() -> None:
    outcome = served(graph_of(GATEWAY + route(meta="name: r, uid: u, generation: 3")))
    status = status_of(outcome, ROUTE_REF)
    assert of_parents(outcome) == [GOOD]
    assert (status.uid, status.generation) == ("u", 3)
    assert status.conditions is None


def test_a_parent_is_spelled_as_the_route_spells_it() -> None:
    parents = "[{name: gw, sectionName: http}, {namespace: default, name: gw, port: 80}]"
    found = status_of(served(graph_of(GATEWAY + route(parents))), ROUTE_REF).parents or ()
    assert [parent.ref.model_dump(exclude_none=True, by_alias=True) for parent in found] == [
        {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw", "sectionName": "http"},
        {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "default", "name": "gw", "port": 80},
    ]


def test_each_parent_stands_alone() -> None:
    outcome = served(graph_of(GATEWAY + route("[{name: gw, sectionName: http}, {name: gw, sectionName: none}]")))
    assert of_parents(outcome) == [GOOD, {**GOOD, "Accepted": "False/NoMatchingParent"}]


def test_only_parents_of_ours_have_an_entry() -> None:
    parents = "[{name: missing}, {name: theirs}, {kind: Service, group: '', name: s}, {name: gw}]"
    outcome = served(graph_of(GATEWAY + THEIRS + route(parents)))
    assert [parent.ref.name for parent in status_of(outcome, ROUTE_REF).parents or ()] == ["gw"]
    assert of_parents(outcome) == [GOOD]


def test_a_route_of_which_no_parent_exists_has_no_entry() -> None:
    assert of_parents(served(graph_of(GATEWAY + route("[{name: missing}]")))) == []


def test_a_route_of_others_has_no_status() -> None:
    outcome = served(graph_of(GATEWAY + THEIRS + route("[{name: theirs}]")))
    assert ROUTE_REF not in build_statuses(outcome).by_ref


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (route("[{name: gw, sectionName: none}]"), "NoMatchingParent"),
        (route("[{name: gw, port: 81}]"), "NoMatchingParent"),
        (route("[{name: gw, sectionName: http, port: 81}]"), "NoMatchingParent"),
        (route("[{name: gw, sectionName: a}]", ", hostnames: [b.com]"), "NoMatchingListenerHostname"),
    ],
)
def test_routes_that_are_not_accepted(text: str, reason: str) -> None:
    listeners = "[{name: http, port: 80, protocol: HTTP}, {name: a, port: 82, protocol: HTTP, hostname: a.com}]"
    assert of_parents(served(graph_of(gateway(listeners) + text))) == [{**GOOD, "Accepted": f"False/{reason}"}]


def test_a_namespace_that_is_not_allowed() -> None:
    text = route("[{name: gw, namespace: default}]", meta="name: r, namespace: n")
    outcome = served(graph_of(GATEWAY + text))
    expected = {**GOOD, "Accepted": "False/NotAllowedByListeners"}
    assert of_parents(outcome, Ref("HTTPRoute", "n", "r")) == [expected]


def test_a_listener_that_is_not_accepted_accepts_routes() -> None:
    listeners = "[{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}]"
    assert of_parents(served(graph_of(gateway(listeners) + route()))) == [GOOD]


BACKENDS = [
    ("{name: gone, port: 80}", "BackendNotFound", "spec.rules[0].backendRefs[0].name"),
    ("{name: s, port: 81}", "BackendNotFound", "spec.rules[0].backendRefs[0].port"),
    ("{name: s, namespace: n, port: 80}", "RefNotPermitted", "spec.rules[0].backendRefs[0]"),
    ("{group: g.io, kind: K, name: s}", "InvalidKind", "spec.rules[0].backendRefs[0].kind"),
    ("{name: s, port: 53}", "UnsupportedProtocol", "spec.rules[0].backendRefs[0].port"),
]
SERVICE = (
    "{kind: Service, metadata: {name: s}, spec: {ports: ["
    "{name: a, port: 80}, {name: b, port: 53, protocol: UDP}]}}\n---\n"
)


@pytest.mark.parametrize(("backend", "reason", "field"), BACKENDS)
@pytest.mark.parametrize("kind", ["HTTPRoute", "TCPRoute"])
def test_references_that_lead_nowhere(kind: str, backend: str, reason: str, field: str) -> None:
    listeners = "[{name: http, port: 80, protocol: HTTP}, {name: tcp, port: 81, protocol: TCP}]"
    text = route(more=rule(f"{{backendRefs: [{backend}]}}"), kind=kind)
    outcome = served(graph_of(gateway(listeners) + SERVICE + text))
    ref = Ref(kind, "default", "r")
    assert of_parents(outcome, ref) == [{**GOOD, "ResolvedRefs": f"False/{reason}"}]
    (parent,) = status_of(outcome, ref).parents or ()
    assert message(parent.conditions, "ResolvedRefs").startswith(f"{field}: ")


UNSUPPORTED = "{matches: [{headers: [{name: x, type: RegularExpression, value: '['}]}]}"


def test_a_rule_that_is_dropped() -> None:
    text = route(more=rule(f"{{backendRefs: [{{name: s, port: 80}}]}}, {UNSUPPORTED}"))
    outcome = served(graph_of(GATEWAY + SERVICE + text))
    assert of_parents(outcome) == [{**GOOD, "PartiallyInvalid": "True/UnsupportedValue"}]
    (parent,) = status_of(outcome, ROUTE_REF).parents or ()
    told = message(parent.conditions, "PartiallyInvalid")
    assert told.startswith("Dropped Rule: spec.rules[1].matches[0].headers[0].value: ")
    assert told.count("Dropped Rule") == 1


def test_a_field_that_is_left_out_is_no_rule_that_is_dropped() -> None:
    text = route(more=f", useDefaultGateways: All{rule(f'{{}}, {UNSUPPORTED}')}")
    outcome = served(graph_of(GATEWAY + text))
    assert of_parents(outcome) == [{**GOOD, "PartiallyInvalid": "True/UnsupportedValue"}]
    (parent,) = status_of(outcome, ROUTE_REF).parents or ()
    told = "the route is accepted; but spec.useDefaultGateways: default Gateways are not supported"
    assert message(parent.conditions, "Accepted") == told
    assert "useDefaultGateways" not in message(parent.conditions, "PartiallyInvalid")


def test_a_route_of_which_no_hostname_can_be_served_is_not_accepted_and_not_counted() -> None:
    outcome = served(graph_of(GATEWAY + route(more=", hostnames: ['*.a.b.c.d.e.f.g.h.i.j.k.l.m']")))
    assert of_parents(outcome) == [{**GOOD, "Accepted": "False/UnsupportedValue"}]
    (parent,) = status_of(outcome, ROUTE_REF).parents or ()
    assert message(parent.conditions, "Accepted").startswith("spec.hostnames[0]: has more than 12 labels")
    assert [node.attached_routes for node in outcome.graph.listeners.values()] == [0]
    assert outcome.graph.routes[ROUTE_REF].attachments == ()


def test_a_route_of_which_no_rule_stands_is_not_accepted() -> None:
    outcome = served(graph_of(GATEWAY + route(more=rule(UNSUPPORTED))))
    assert of_parents(outcome) == [{**GOOD, "Accepted": "False/UnsupportedValue"}]


def test_a_route_that_is_not_accepted_is_not_partially_invalid() -> None:
    text = route("[{name: gw, sectionName: http}, {name: gw, sectionName: none}]", rule(f"{{}}, {UNSUPPORTED}"))
    assert of_parents(served(graph_of(GATEWAY + SERVICE + text))) == [
        {**GOOD, "PartiallyInvalid": "True/UnsupportedValue"},
        {**GOOD, "Accepted": "False/NoMatchingParent"},
    ]


def test_a_tcproute_whose_listener_an_older_one_has_is_accepted_and_told() -> None:
    tcp = rule("{backendRefs: [{name: s, port: 80}]}")
    text = "".join(route(more=tcp, kind="TCPRoute", meta=f"name: {name}") for name in ("a", "b"))
    outcome = served(graph_of(gateway("[{name: tcp, port: 80, protocol: TCP}]") + SERVICE + text))
    first, second = (Ref("TCPRoute", "default", name) for name in ("a", "b"))
    assert of_parents(outcome, first) == of_parents(outcome, second) == [GOOD]
    (parent,) = status_of(outcome, second).parents or ()
    assert "listener tcp serves the older TCPRoute default/a" in message(parent.conditions, "Accepted")


def test_a_route_that_could_never_be_read_is_not_accepted() -> None:
    other = route(more=rule("{matches: [{path: {value: /a}}]}"), meta="name: other")
    snapshot = Snapshot.of(read_all(GATEWAY + other))
    bad = stand_in(route(more=GLOB, meta="name: r, generation: 2").removesuffix("---\n"))
    outcome = served(build_graph(snapshot.apply({bad.ref: bad}), CONTROLLER))
    assert of_parents(outcome) == [{"Accepted": "False/UnsupportedValue"}]
    status = status_of(outcome, ROUTE_REF)
    assert status.generation == 2
    told = message((status.parents or ())[0].conditions, "Accepted")
    assert told.startswith("spec.rules[0].matches[0].path.type: must be 'Exact'")
    assert of_parents(outcome, Ref("HTTPRoute", "default", "other")) == [GOOD]
    assert [node.attached_routes for node in outcome.graph.listeners.values()] == [1]


def test_a_field_that_nobody_knows_is_told() -> None:
    graph = graph_of(GATEWAY + route(meta="name: r, generation: 3"))
    before = build_statuses(served(graph))
    outcome = served(graph, stale={ROUTE_REF: Stale(None, (unknown_field(ROUTE_REF, "spec.new"),))})
    after = build_statuses(outcome, before)
    assert after.changed == {ROUTE_REF}
    assert of_parents(outcome) == [GOOD]
    assert after.by_ref[ROUTE_REF].generation == 3
    (parent,) = after.by_ref[ROUTE_REF].parents or ()
    assert {item.generation for item in parent.conditions} == {None}
    told = "the route is accepted; but spec.new: gwctl does not know this field and leaves it out"
    assert message(parent.conditions, "Accepted") == told
    (event,) = build_events(before, after)
    assert (event.subject, event.reason, event.field) == (ROUTE_REF, "UnknownField", "spec.new")


def test_a_route_that_cannot_be_read_any_more_is_served_as_it_was() -> None:
    graph = graph_of(GATEWAY + route(meta="name: r, generation: 3"))
    before = build_statuses(served(graph))
    problem = fall_back(ROUTE_REF, "spec.rules[0].timeouts.request", "must be a duration")
    outcome = served(graph, stale={ROUTE_REF: Stale(7, (problem,))})
    after = build_statuses(outcome, before)
    assert after.changed == {ROUTE_REF}
    assert of_parents(outcome) == [{**GOOD, "PartiallyInvalid": "True/UnsupportedValue"}]
    assert after.by_ref[ROUTE_REF].generation == 7
    (parent,) = after.by_ref[ROUTE_REF].parents or ()
    generations = {item.type: item.generation for item in parent.conditions}
    assert generations == {"Accepted": 3, "ResolvedRefs": 3, "PartiallyInvalid": None}
    assert message(parent.conditions, "PartiallyInvalid") == (
        "Fall Back: spec.rules[0].timeouts.request: must be a duration; what it was before is served"
    )
    (event,) = build_events(before, after)
    assert (event.subject, event.reason, event.field) == (
        ROUTE_REF,
        "UnsupportedValue",
        "spec.rules[0].timeouts.request",
    )
    mended = build_statuses(served(graph), after)
    assert mended.changed == {ROUTE_REF}
    assert same(mended, before)
