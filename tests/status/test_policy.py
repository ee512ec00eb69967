"""What the status of a BackendTLSPolicy says, for each Gateway of ours that has routes to its Services."""

from __future__ import annotations

from gwctl.api.parse import parse_resource
from gwctl.api.ref import Ref
from gwctl.graph.build import build_graph
from gwctl.graph.node import Graph
from gwctl.graph.problem import fall_back
from gwctl.snapshot import Snapshot
from gwctl.status.build import build_statuses
from gwctl.status.event import build_events
from gwctl.status.outcome import Outcome, Stale
from gwctl.status.status import Statuses
from tests.certificates import make_authority
from tests.manifests import (
    CONTROLLER,
    Manifest,
    backend,
    backend_tls_policy,
    config_map,
    gateway,
    gateway_class,
    http_route,
    listener,
    prefix_rule,
    service,
)
from tests.pipeline import parse

POLICY = Ref("BackendTLSPolicy", "default", "p")
CA = config_map("ca", make_authority("root"))


def graph_of(*manifests: Manifest, routes: tuple[str, ...] = ("one",)) -> Graph:
    gateways = [gateway([listener("http", port)], name) for port, name in ((80, "one"), (81, "two"))]
    parents = tuple({"name": name} for name in routes)
    made = [http_route("r", [prefix_rule("/", backend("web"))], (), parents)] if parents else []
    resources = parse([gateway_class(), *gateways, service("web"), *made, *manifests])
    return build_graph(Snapshot.of(resources.values()), CONTROLLER)


def told(statuses: Statuses) -> dict[str, list[str]]:
    status = statuses.by_ref.get(POLICY)
    entries = (status.ancestors or ()) if status is not None else ()
    return {
        f"{entry.ref.kind} {entry.ref.namespace}/{entry.ref.name}": [f"{c.type} {c.reason}" for c in entry.conditions]
        for entry in entries
    }


def test_each_gateway_that_has_a_route_to_the_service_has_an_entry() -> None:
    policy, good = backend_tls_policy("p", "web", "ca"), ["Accepted Accepted", "ResolvedRefs ResolvedRefs"]
    statuses = build_statuses(Outcome(graph_of(policy, CA, routes=("one", "two"))))
    assert told(statuses) == {"Gateway default/one": good, "Gateway default/two": good}
    fewer = build_statuses(Outcome(graph_of(policy, CA)), statuses)
    assert told(fewer) == {"Gateway default/one": good}
    none = build_statuses(Outcome(graph_of(policy, CA, routes=())), fewer)
    assert POLICY not in none.by_ref
    assert POLICY in none.changed


def test_a_gateway_whose_routes_must_not_use_the_service_has_no_entry() -> None:
    policy, good = backend_tls_policy("p", "web", "ca"), ["Accepted Accepted", "ResolvedRefs ResolvedRefs"]
    elsewhere: Manifest = {"name": "web", "port": 80, "namespace": "default"}
    parent = {"name": "two", "namespace": "default"}
    stranger = http_route("s", [prefix_rule("/", elsewhere)], (), (parent,), namespace="elsewhere")
    assert told(build_statuses(Outcome(graph_of(policy, CA, stranger)))) == {"Gateway default/one": good}
    grant: Manifest = {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "g", "namespace": "default"},
        "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "elsewhere"}],
            "to": [{"group": "", "kind": "Service"}],
        },
    }
    permitted = build_statuses(Outcome(graph_of(policy, CA, stranger, grant)))
    assert told(permitted) == {"Gateway default/one": good, "Gateway default/two": good}


def test_what_is_wrong_is_told_by_events_once() -> None:
    graph = graph_of(backend_tls_policy("p", "web", "gone"))
    statuses = build_statuses(Outcome(graph))
    wrong = ["Accepted NoValidCACertificate", "ResolvedRefs InvalidCACertificateRef"]
    assert told(statuses) == {"Gateway default/one": wrong}
    events = [event for event in build_events(None, statuses) if event.subject == POLICY]
    assert sorted(event.reason for event in events) == ["InvalidCACertificateRef", "NoValidCACertificate"]
    again = build_statuses(Outcome(graph), statuses)
    assert again.changed == frozenset()
    assert build_events(statuses, again) == ()


def test_the_sixteen_oldest_gateways_have_entries_and_the_others_are_told() -> None:
    made: list[Manifest] = []
    names = [f"g{number:02}" for number in range(18)]
    for number, name in enumerate(reversed(names)):
        each = gateway([listener("http", 8000 + number)], name)
        each["metadata"]["creationTimestamp"] = f"2026-01-{number + 1:02}T00:00:00Z"
        made += each, http_route(name, [prefix_rule("/", backend("web"))], (), ({"name": name},))
    graph = graph_of(backend_tls_policy("p", "web", "ca"), CA, *made, routes=())
    statuses = build_statuses(Outcome(graph))
    assert list(told(statuses)) == [f"Gateway default/{name}" for name in reversed(names[2:])]
    note = "a route uses BackendTLSPolicy default/p, whose status has no place for this Gateway beside 16 older ones"
    assert accepted_of(statuses, "g01").endswith(f"the Gateway is accepted; but spec.listeners: {note}")
    assert accepted_of(statuses, "g02") == "the Gateway is accepted"
    events = [event for event in build_events(None, statuses) if event.reason == "PolicyStatusFull"]
    assert sorted(event.subject.name for event in events) == ["g00", "g01"]
    # When an older one no longer uses it, its place is for the next.
    assert graph.index is not None
    gone = Ref("HTTPRoute", "default", "g17")
    snapshot = graph.index.snapshot.apply({gone: None})
    after = build_statuses(Outcome(build_graph(snapshot, CONTROLLER, graph, frozenset({gone}))), statuses)
    assert list(told(after)) == [f"Gateway default/{name}" for name in reversed(names[1:17])]
    assert accepted_of(after, "g01") == "the Gateway is accepted"
    assert Ref("Gateway", "default", "g01") in after.changed


def accepted_of(statuses: Statuses, name: str) -> str:
    conditions = statuses.by_ref[Ref("Gateway", "default", name)].conditions or ()
    return next(item.message for item in conditions if item.type == "Accepted")


def test_a_policy_that_cannot_be_read_is_refused_and_names_the_field() -> None:
    names = [{"type": "IPAddress", "hostname": "a.test"}]
    policy = backend_tls_policy("p", "web", "ca", subjectAltNames=names)
    resource = parse_resource(policy).resource
    assert resource is not None
    plain = graph_of(CA)
    assert plain.index is not None
    graph = build_graph(plain.index.snapshot.apply({POLICY: resource}), CONTROLLER)
    (entry,) = build_statuses(Outcome(graph)).by_ref[POLICY].ancestors or ()
    accepted = entry.conditions[0]
    assert (accepted.type, accepted.status, accepted.reason) == ("Accepted", "False", "Invalid")
    assert "spec.validation.subjectAltNames[0].type" in accepted.message
    route = graph.routes[Ref("HTTPRoute", "default", "r")]
    assert [item.service for rule in route.rules for item in rule.backends] == [None]
    before = plain.routes[route.ref]
    assert [item.service is None for rule in before.rules for item in rule.backends] == [False]


def test_a_policy_that_can_no_longer_be_read_says_that_it_stands_as_before() -> None:
    graph = graph_of(backend_tls_policy("p", "web", "ca"), CA)
    before = build_statuses(Outcome(graph))
    problem = fall_back(POLICY, "spec.validation.hostname", "is required")
    after = build_statuses(Outcome(graph, stale={POLICY: Stale(2, (problem,))}), before)
    status = after.by_ref[POLICY]
    assert status.generation == 2
    assert "what it was before is served" in (status.ancestors or ())[0].conditions[0].message
    assert told(after) == told(before)


def test_a_policy_for_udp_alone_is_refused() -> None:
    udp = service("web")
    udp["spec"]["ports"][0]["protocol"] = "UDP"
    statuses = build_statuses(Outcome(graph_of(backend_tls_policy("p", "web", "ca"), udp, CA)))
    (entry,) = statuses.by_ref[POLICY].ancestors or ()
    accepted = entry.conditions[0]
    assert (accepted.status, accepted.reason) == ("False", "Invalid")
    assert accepted.message == "spec.targetRefs[0]: TLS is for TCP, not for port 80 (UDP) of Service default/web"
