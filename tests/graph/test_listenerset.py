"""ListenerSets: which are let in, who wins a port or a name, and what routes can attach to."""

from __future__ import annotations

import pytest

from gwctl.api.ref import Ref
from gwctl.graph.build import build_graph
from gwctl.graph.node import Graph, ListenerKey
from gwctl.snapshot import Snapshot
from tests.graph.manifests import CLASS, CONTROLLER, graph_of, only_problem, read, read_all, reasons

ALL = ", allowedListeners: {namespaces: {from: All}}"
HTTP = "[{name: http, port: 80, protocol: HTTP, hostname: gw.test}]"
GATEWAY_REF = Ref("Gateway", "default", "gw")


def gateway(listeners: str = HTTP, more: str = ALL, name: str = "gw", created: str = "2026-01-05") -> str:
    spec = f"{{gatewayClassName: gwctl, listeners: {listeners}{more}}}"
    return f"{{kind: Gateway, metadata: {{name: {name}, creationTimestamp: '{created}'}}, spec: {spec}}}\n---\n"


def listener_set(
    name: str, listeners: str, namespace: str = "default", parent: str = "gw", created: str = "2026-01-01"
) -> str:
    metadata = f"{{name: {name}, namespace: {namespace}, creationTimestamp: '{created}'}}"
    spec = f"{{parentRef: {{name: {parent}, namespace: default}}, listeners: {listeners}}}"
    return f"{{kind: ListenerSet, metadata: {metadata}, spec: {spec}}}\n---\n"


def route(name: str, parents: str, namespace: str = "default") -> str:
    metadata = f"{{name: {name}, namespace: {namespace}}}"
    return f"{{kind: HTTPRoute, metadata: {metadata}, spec: {{parentRefs: {parents}}}}}\n---\n"


def http(name: str = "http", port: int = 80, hostname: str = "", protocol: str = "HTTP") -> str:
    host = f", hostname: {hostname}" if hostname else ""
    return f"[{{name: {name}, port: {port}, protocol: {protocol}{host}}}]"


def accepted(graph: Graph) -> set[str]:
    """The accepted listeners of ListenerSets."""
    return {str(node.key) for node in graph.listeners.values() if node.accepted and node.key.listener_set}


def test_a_listener_set_adds_listeners_that_may_have_the_names_of_the_gateways() -> None:
    graph = graph_of(CLASS + gateway() + listener_set("set", http(hostname="set.test"), "team"))
    assert graph.problems == ()
    (node,) = graph.gateways.values()
    assert [str(item.key) for item in node.listeners] == ["default/gw/http", "default/gw/team:set:http"]
    assert [item.key.owner for item in node.listeners] == [GATEWAY_REF, Ref("ListenerSet", "team", "set")]
    assert [item.ref for item in node.listener_sets] == list(graph.listener_sets)
    assert graph.listeners[ListenerKey("default", "gw", "http", "team/set")].hostname == "set.test"


@pytest.mark.parametrize(
    ("allowed", "own", "other"),
    [
        ("", False, False),
        (", allowedListeners: {}", False, False),
        (", allowedListeners: {namespaces: {from: None}}", False, False),
        (", allowedListeners: {namespaces: {from: Same}}", True, False),
        (ALL, True, True),
        (", allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}", False, True),
        (", allowedListeners: {namespaces: {from: Selector}}", False, False),
    ],
)
def test_a_gateway_lets_in_those_of_some_namespaces(allowed: str, own: bool, other: bool) -> None:
    namespace = "{kind: Namespace, metadata: {name: team, labels: {team: a}}}\n---\n"
    allowed = allowed.replace("from: None", "from: 'None'")
    sets = listener_set("own", http(hostname="a.test")) + listener_set("other", http(hostname="b.test"), "team")
    graph = graph_of(CLASS + namespace + gateway(more=allowed) + sets)
    assert {node.ref.name: node.attached for node in graph.listener_sets.values()} == {"own": own, "other": other}
    refused = [name for name, is_in in (("own", own), ("other", other)) if not is_in]
    found = [(item.subject.name, item.field, item.reason) for item in graph.problems]
    assert sorted(found) == sorted((name, "spec.parentRef", "NotAllowed") for name in refused)
    assert len(graph.listeners) == 3 - len(refused)


def test_a_namespace_that_gets_its_label_is_let_in_with_its_routes() -> None:
    allowed = ", allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}"
    attached = route("r", "[{kind: ListenerSet, name: set}]", "team")
    text = CLASS + gateway(more=allowed) + listener_set("set", http(hostname="a.test"), "team") + attached
    before = Snapshot.of(read_all(text))
    namespace = read({"kind": "Namespace", "metadata": {"name": "team", "labels": {"team": "a"}}})
    after = before.apply({namespace.ref: namespace})
    graph = build_graph(before, CONTROLLER)
    assert [item.reason for item in graph.problems] == ["NoMatchingParent", "NotAllowed"]
    graph = build_graph(after, CONTROLLER, graph, frozenset({namespace.ref}))
    assert graph.problems == ()
    assert graph.listeners[ListenerKey("default", "gw", "http", "team/set")].attached_routes == 1


def test_an_operator_that_nobody_knows_lets_in_nobody_and_is_told() -> None:
    selector = "{matchExpressions: [{key: team, operator: Like, values: [a]}]}"
    allowed = f", allowedListeners: {{namespaces: {{from: Selector, selector: {selector}}}}}"
    graph = graph_of(CLASS + gateway(more=allowed))
    found = only_problem(graph)
    assert (found.condition, found.reason) == ("PartiallyInvalid", "UnsupportedValue")
    assert found.field == "spec.allowedListeners.namespaces.selector.matchExpressions[0].operator"
    assert graph.gateways[GATEWAY_REF].accepted


@pytest.mark.parametrize("expression", ["operator: NotIn", "operator: Exists, values: [a]"])
def test_a_selector_that_is_wrong_lets_in_nobody_and_is_told(expression: str) -> None:
    namespace = "{kind: Namespace, metadata: {name: team, labels: {team: b}}}\n---\n"
    selector = f"{{matchExpressions: [{{key: team, {expression}}}]}}"
    allowed = f", allowedListeners: {{namespaces: {{from: Selector, selector: {selector}}}}}"
    graph = graph_of(CLASS + namespace + gateway(more=allowed) + listener_set("set", http(hostname="a.test"), "team"))
    assert [node.attached for node in graph.listener_sets.values()] == [False]
    path = "spec.allowedListeners.namespaces.selector.matchExpressions[0].values"
    found = {(item.subject.name, item.field, item.reason) for item in graph.problems}
    assert found == {("gw", path, "UnsupportedValue"), ("set", "spec.parentRef", "NotAllowed")}


def test_the_gateways_own_go_first_then_the_oldest_then_by_name() -> None:
    sets = (
        listener_set("young", http(hostname="a.test"), "a", created="2026-01-03")
        + listener_set("old", http(hostname="a.test"), "z", created="2026-01-02")
        + listener_set("late", http(hostname="gw.test"), "a", created="2026-01-01")
        + listener_set("b", http(hostname="b.test"), "n", created="2026-01-04")
        + listener_set("a", http(hostname="b.test"), "n", created="2026-01-04")
        + listener_set("z", http(hostname="b.test"), "m", created="2026-01-04")
    )
    graph = graph_of(CLASS + gateway() + sets)
    assert accepted(graph) == {"default/gw/z:old:http", "default/gw/m:z:http"}
    assert {(subject, reason) for subject, _, _, reason in reasons(graph)} == {
        (name, "HostnameConflict") for name in ("young", "late", "a", "b")
    }
    messages = {item.subject.name: item.message for item in graph.problems}
    assert messages["late"] == "port and hostname are also those of a listener of Gateway default/gw"
    # What is another team's is not told.
    assert messages["young"] == "port and hostname are also those of a listener of an older ListenerSet"


def test_who_loses_takes_nothing_from_those_that_come_later() -> None:
    tcp = "[{name: tcp, port: 80, protocol: TCP}, {name: db, port: 5432, protocol: TCP}]"
    sets = listener_set("first", tcp, created="2026-01-01") + listener_set("next", http(hostname="n.test"))
    graph = graph_of(CLASS + gateway() + sets)
    assert accepted(graph) == {"default/gw/default:first:db", "default/gw/default:next:http"}
    assert reasons(graph) == [("first", "spec.listeners[0].protocol", "Conflicted", "ProtocolConflict")]


def test_of_conflicting_listeners_of_one_set_none_wins_and_none_holds_anything() -> None:
    twins = f"[{', '.join(http(name, port)[1:-1] for name, port in (('a', 90), ('b', 90), ('c', 91)))}]"
    sets = listener_set("twins", twins, created="2026-01-01") + listener_set("other", http(port=90))
    graph = graph_of(CLASS + gateway() + sets)
    assert accepted(graph) == {"default/gw/default:twins:c", "default/gw/default:other:http"}
    assert [reason for _, _, _, reason in reasons(graph)] == ["HostnameConflict", "HostnameConflict"]


def test_what_the_gateway_disputes_with_itself_is_not_a_listener_sets_to_take() -> None:
    twins = f"[{', '.join(http(name, port)[1:-1] for name, port in (('a', 80), ('b', 80), ('c', 81)))}]"
    graph = graph_of(CLASS + gateway(twins) + listener_set("set", http()))
    assert accepted(graph) == set()
    assert ("set", "spec.listeners[0].hostname", "Conflicted", "HostnameConflict") in reasons(graph)


def test_no_listener_set_takes_a_port_from_a_gateway_however_young() -> None:
    text = CLASS + gateway(created="2026-01-01") + listener_set("set", http(port=8080))
    text += gateway(http(port=8080), "", "young", "2026-02-01")
    graph = graph_of(text)
    assert graph.gateways[Ref("Gateway", "default", "young")].accepted
    found = only_problem(graph)
    assert (found.subject.name, found.reason) == ("set", "PortUnavailable")
    assert found.message == "port 8080 is taken by Gateway default/young"
    shared = graph_of(text, service_namespace="gwctl-system")
    assert shared.problems == ()
    assert {node.slot for node in shared.listeners.values()} == {0}


def test_of_listener_sets_of_two_gateways_the_older_keeps_a_port() -> None:
    text = CLASS + gateway(created="2026-01-01") + gateway(http(port=81), name="other", created="2026-02-01")
    text += listener_set("young", http(port=8080), created="2026-01-09")
    text += listener_set("old", http(port=8080), parent="other", created="2026-01-08")
    graph = graph_of(text)
    assert accepted(graph) == {"default/other/default:old:http"}
    assert reasons(graph) == [("young", "spec.listeners[0].port", "Accepted", "PortUnavailable")]


def test_a_gateway_that_is_not_accepted_takes_its_sets_along() -> None:
    text = CLASS + gateway(http(protocol="UDP", port=53)) + listener_set("set", http())
    graph = graph_of(text + route("r", "[{kind: ListenerSet, name: set}]"))
    assert accepted(graph) == set()
    assert ("set", "spec.parentRef", "Accepted", "ParentNotAccepted") in reasons(graph)
    assert graph.listeners[ListenerKey("default", "gw", "http", "default/set")].attached_routes == 1


def test_what_belongs_to_others_is_left_alone_and_what_has_no_gateway_is_told() -> None:
    theirs = gateway(more=f"{ALL}, gatewayClassName: other").replace("gatewayClassName: gwctl, ", "")
    text = CLASS + theirs + listener_set("theirs", http()) + route("r", "[{kind: ListenerSet, name: theirs}]")
    graph = graph_of(text)
    assert (graph.problems, graph.listener_sets, graph.orphans, graph.routes) == ((), {}, {}, {})
    text = CLASS + listener_set("lost", http(), parent="missing") + route("r", "[{kind: ListenerSet, name: lost}]")
    text += listener_set("mesh", http()).replace("parentRef: {", "parentRef: {kind: Mesh, ")
    text += route("other", "[{kind: ListenerSet, name: none}, {kind: ListenerSet, name: mesh}]")
    graph = graph_of(text)
    assert list(graph.orphans) == [Ref("ListenerSet", "default", "lost")]
    assert {(item.subject.name, item.reason, item.message) for item in graph.problems} == {
        ("lost", "ParentNotAccepted", "there is no Gateway default/missing"),
        ("r", "NoMatchingParent", "there is no Gateway default/missing"),
        ("other", "NoMatchingParent", "there is no ListenerSet default/none"),
    }


def test_routes_attach_to_the_set_or_to_the_gateway_and_never_from_one_to_the_other() -> None:
    listeners = "[{name: a, port: 80, protocol: HTTP, hostname: a.test}, {name: b, port: 81, protocol: HTTP}]"
    text = CLASS + gateway() + listener_set("set", listeners, "team")
    text += route("gateway", "[{name: gw}]") + route("set", "[{kind: ListenerSet, name: set}]", "team")
    text += route("section", "[{kind: ListenerSet, name: set, sectionName: a}]", "team")
    text += route("port", "[{kind: ListenerSet, name: set, port: 81}]", "team")
    text += route("astray", "[{name: gw, sectionName: a}]")
    text += route("outside", "[{kind: ListenerSet, name: set, namespace: team}]")
    graph = graph_of(text)
    found = {
        name: {str(key).rpartition("/")[2] for key in node.attached}
        for name, node in ((ref.name, node) for ref, node in graph.routes.items())
    }
    assert found == {
        "gateway": {"http"},
        "set": {"team:set:a", "team:set:b"},
        "section": {"team:set:a"},
        "port": {"team:set:b"},
        "astray": set(),
        "outside": set(),
    }
    assert reasons(graph) == [
        ("astray", "spec.parentRefs[0]", "Accepted", "NoMatchingParent"),
        ("outside", "spec.parentRefs[0]", "Accepted", "NotAllowedByListeners"),
    ]


def test_a_set_that_comes_and_goes_leaves_the_graph_as_it_was() -> None:
    text = CLASS + gateway() + route("r", "[{name: gw}, {kind: ListenerSet, name: set}]")
    before = Snapshot.of(read_all(text))
    (added,) = read_all(listener_set("set", http(hostname="set.test")))
    alone = build_graph(before, CONTROLLER)
    with_set = build_graph(before.apply({added.ref: added}), CONTROLLER, alone, frozenset({added.ref}))
    assert [len(node.attachments) for node in with_set.routes.values()] == [2]
    again = build_graph(before, CONTROLLER, with_set, frozenset({added.ref}))
    assert (again.listeners, again.routes, again.problems) == (alone.listeners, alone.routes, alone.problems)
