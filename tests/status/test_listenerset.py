"""What the status of a ListenerSet and its listeners says, by what became of them."""

from __future__ import annotations

from dataclasses import replace

from gwctl.api.ref import Ref
from gwctl.graph.build import build_graph
from gwctl.graph.node import Graph, ListenerKey
from gwctl.graph.problem import fall_back
from gwctl.snapshot import Snapshot
from gwctl.status.build import build_statuses
from gwctl.status.event import build_events
from gwctl.status.merge import merge_status
from gwctl.status.outcome import GatewayAddresses, Outcome, Stale
from tests.graph.manifests import CONTROLLER, graph_of, read_all
from tests.status.resources import GATEWAY_REF, gateway, message, of_gateway, same, served, status_of, words

SET_REF = Ref("ListenerSet", "default", "set")
OWN = "[{name: http, port: 80, protocol: HTTP, hostname: gw.test}]"
ADDED = "[{name: http, port: 80, protocol: HTTP, hostname: set.test}]"
ALL = ", allowedListeners: {namespaces: {from: All}}"
GOOD = {"Accepted": "True/Accepted", "Programmed": "True/Programmed"}
KEY = ListenerKey("default", "gw", "http", "default/set")
GATEWAY = gateway(OWN, ALL)


def listener_set(listeners: str = ADDED, meta: str = "", parent: str = "gw") -> str:
    spec = f"{{parentRef: {{name: {parent}}}, listeners: {listeners}}}"
    return f"{{kind: ListenerSet, metadata: {{name: set{meta}}}, spec: {spec}}}\n---\n"


def graph(listeners: str = ADDED, meta: str = "", more: str = "") -> Graph:
    return graph_of(GATEWAY + listener_set(listeners, meta) + more)


def of_set(outcome: Outcome) -> dict[str, str]:
    return words(status_of(outcome, SET_REF).conditions)


def of_listener(outcome: Outcome, name: str = "http") -> dict[str, str]:
    listeners = {item.name: item for item in status_of(outcome, SET_REF).listeners or ()}
    return words(listeners[name].conditions)


def attached(outcome: Outcome) -> int | None:
    return status_of(outcome, GATEWAY_REF).attached_listener_sets


def test_a_set_whose_listeners_are_served_is_programmed_and_counts() -> None:
    route = "{kind: HTTPRoute, metadata: {name: r}, spec: {parentRefs: [{kind: ListenerSet, name: set}]}}\n---\n"
    outcome = served(graph(meta=", generation: 3, uid: s", more=route))
    assert of_set(outcome) == GOOD
    assert of_listener(outcome) == {**GOOD, "ResolvedRefs": "True/ResolvedRefs"}
    status = status_of(outcome, SET_REF)
    assert (status.uid, status.generation) == ("s", 3)
    assert [(item.name, item.attached_routes) for item in status.listeners or ()] == [("http", 1)]
    assert (status.addresses, status.parents, status.attached_listener_sets) == (None, None, None)
    assert attached(outcome) == 1
    # The Gateway tells of its own listeners alone.
    assert [item.attached_routes for item in status_of(outcome, GATEWAY_REF).listeners or ()] == [0]
    (parent,) = status_of(outcome, Ref("HTTPRoute", "default", "r")).parents or ()
    assert (parent.ref.kind, words(parent.conditions)["Accepted"]) == ("ListenerSet", "True/Accepted")


def test_a_set_that_is_new_waits_for_haproxy_and_its_gateway_does_not() -> None:
    outcome = served(graph(), applied=graph_of(GATEWAY))
    assert of_set(outcome) == {**GOOD, "Programmed": "False/Pending"}
    assert of_listener(outcome)["Programmed"] == "False/Pending"
    assert of_gateway(outcome)["Programmed"] == "True/Programmed"


def test_a_set_waits_for_a_listener_slot_and_its_gateway_does_not() -> None:
    listeners = ADDED.replace("port: 80", "port: 8080")
    slots = Ref("Service", "gwctl-system", "gw")
    text = GATEWAY + listener_set(listeners)
    without = graph_of(text, service_namespace=slots.namespace)
    (own, added) = without.gateways[GATEWAY_REF].listeners
    node = replace(without.gateways[GATEWAY_REF], listeners=(replace(own, slot=20001), added))
    there = replace(without, gateways={GATEWAY_REF: node})
    outcome = served(there)
    assert of_set(outcome) == {**GOOD, "Programmed": "False/Pending"}
    assert "no listener slot leads yet to listener http" in message(
        status_of(outcome, SET_REF).conditions, "Programmed"
    )
    assert of_gateway(outcome)["Programmed"] == "True/Programmed"


def test_a_set_is_no_more_programmed_than_its_gateway_is_reachable() -> None:
    pending = GatewayAddresses((), "AddressNotAssigned", "its load balancer is pending")
    outcome = served(graph(), addresses={GATEWAY_REF: pending})
    assert of_set(outcome) == {**GOOD, "Programmed": "False/ParentNotProgrammed"}
    told = message(status_of(outcome, SET_REF).conditions, "Programmed")
    assert told == "Gateway default/gw: its load balancer is pending"
    assert of_set(served(graph(), addresses={}))["Programmed"] == "False/ParentNotProgrammed"


def test_what_haproxy_does_not_take_of_a_set_harms_the_set_alone() -> None:
    outcome = served(graph(), refused={KEY: "cannot bind"})
    assert of_set(outcome) == {**GOOD, "Programmed": "False/Invalid"}
    assert of_listener(outcome)["Programmed"] == "False/Invalid"
    assert of_gateway(outcome)["Programmed"] == "True/Programmed"
    events = build_events(build_statuses(served(graph())), build_statuses(outcome, build_statuses(served(graph()))))
    assert [(event.subject, event.reason) for event in events] == [(SET_REF, "Invalid")]


def test_a_set_without_a_listener_that_can_be_served_does_not_count() -> None:
    late = served(graph(OWN))
    assert of_set(late) == {"Accepted": "False/ListenersNotValid", "Programmed": "False/ListenersNotValid"}
    assert of_listener(late) == {
        "Accepted": "False/HostnameConflict",
        "Programmed": "False/HostnameConflict",
        "ResolvedRefs": "True/ResolvedRefs",
        "Conflicted": "True/HostnameConflict",
    }
    assert attached(late) == 0
    missing = served(graph("[{name: s, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: missing}]}}]"))
    assert of_set(missing)["Accepted"] == "False/ListenersNotValid"
    assert of_listener(missing, "s")["Accepted"] == "True/Accepted"
    assert attached(missing) == 0


def test_a_set_with_some_listeners_is_accepted_and_names_the_others() -> None:
    outcome = served(graph(f"{ADDED[:-1]}, {{name: udp, port: 53, protocol: UDP}}]"))
    assert of_set(outcome) == {"Accepted": "True/ListenersNotValid", "Programmed": "True/Programmed"}
    told = message(status_of(outcome, SET_REF).conditions, "Accepted")
    assert told == "the ListenerSet is accepted, without listener udp"
    assert attached(outcome) == 1


def test_what_is_left_out_of_a_set_that_stands_is_told() -> None:
    tls = "{mode: Passthrough, options: {example.com/x: y}}"
    outcome = served(graph(f"[{{name: t, port: 443, protocol: TLS, tls: {tls}}}]"))
    assert of_set(outcome) == GOOD
    told = message(status_of(outcome, SET_REF).conditions, "Accepted")
    assert told.startswith("the ListenerSet is accepted; but spec.listeners[0].tls.options[example.com/x]: ")


def test_a_set_that_is_not_let_in_has_no_listeners() -> None:
    outcome = served(graph_of(gateway(OWN) + listener_set()))
    assert of_set(outcome) == {"Accepted": "False/NotAllowed", "Programmed": "False/NotAllowed"}
    assert status_of(outcome, SET_REF).listeners == ()
    assert attached(outcome) == 0


def test_a_gateway_that_is_not_accepted_says_so_in_its_sets() -> None:
    outcome = served(graph_of(gateway("[{name: udp, port: 53, protocol: UDP}]", ALL) + listener_set()))
    assert of_set(outcome) == {"Accepted": "False/ParentNotAccepted", "Programmed": "False/ParentNotProgrammed"}
    assert of_listener(outcome)["Programmed"] == "False/Invalid"


def test_a_set_whose_gateway_goes_is_told_so_once() -> None:
    before = build_statuses(served(graph()))
    orphaned = served(graph_of(listener_set()))
    after = build_statuses(orphaned, before)
    gone = {"Accepted": "False/ParentNotAccepted", "Programmed": "False/ParentNotProgrammed"}
    assert words(after.by_ref[SET_REF].conditions) == gone
    assert "there is no Gateway default/gw" in message(after.by_ref[SET_REF].conditions, "Accepted")
    # Others, and who starts anew, do not know whose it was.
    assert SET_REF not in build_statuses(orphaned).by_ref
    assert SET_REF not in build_statuses(served(graph_of("")), after).by_ref
    back = build_statuses(served(graph()), after)
    assert same(back, before)


def test_a_set_of_others_is_left_alone() -> None:
    theirs = (GATEWAY + listener_set()).replace("example.com/gwctl", "example.com/other")
    assert build_statuses(served(graph_of(theirs))).by_ref == {}
    after = build_statuses(served(graph_of(theirs)), build_statuses(served(graph())))
    assert after.by_ref == {}


def test_a_set_that_can_no_longer_be_read_says_so() -> None:
    stale = {SET_REF: Stale(9, (fall_back(SET_REF, "spec.listeners", "must not be empty"),))}
    outcome = served(graph(), stale=stale)
    status = status_of(outcome, SET_REF)
    assert status.generation == 9
    assert [item.generation for item in status.conditions or ()] == [None, 0]
    assert {item.generation for listener in status.listeners or () for item in listener.conditions} == {0}
    assert of_set(outcome) == GOOD
    assert "must not be empty" in message(status.conditions, "Accepted")
    before = build_statuses(served(graph()))
    assert same(build_statuses(replace(before.outcome, stale=stale), before), build_statuses(outcome))


def test_statuses_step_by_step_are_those_of_all_at_once() -> None:
    snapshot = Snapshot.of(read_all(GATEWAY + listener_set()))
    one = build_graph(snapshot, CONTROLLER)
    statuses = build_statuses(served(one))
    for text in (listener_set(OWN), listener_set(ADDED), listener_set(parent="other"), listener_set()):
        (changed,) = read_all(text)
        snapshot = snapshot.apply({changed.ref: changed})
        one = build_graph(snapshot, CONTROLLER, one, frozenset({changed.ref}))
        statuses = build_statuses(served(one), statuses)
        anew = build_statuses(served(build_graph(snapshot, CONTROLLER)))
        kept = {ref: status for ref, status in statuses.by_ref.items() if ref not in one.orphans}
        assert kept == dict(anew.by_ref)


def test_step_by_step_with_routes_what_is_served_refused_and_reachable() -> None:
    more = listener_set(ADDED.replace("set.test", "more.test")).replace("name: set", "name: more")
    route = "{kind: HTTPRoute, metadata: {name: r}, spec: {parentRefs: [{kind: ListenerSet, name: set}]}}\n---\n"
    (added,) = read_all(route)
    snapshot = Snapshot.of(read_all(GATEWAY + listener_set() + more))
    one = build_graph(snapshot, CONTROLLER)
    other = build_graph(snapshot.apply({added.ref: added}), CONTROLLER, one, frozenset({added.ref}))
    back = build_graph(snapshot, CONTROLLER, other, frozenset({added.ref}))
    refused = {KEY: "cannot bind"}
    stale = {SET_REF: Stale(9, (fall_back(SET_REF, "spec.listeners", "must not be empty"),))}
    statuses = build_statuses(served(one))
    assert len([ref for ref in statuses.by_ref if ref.kind == "ListenerSet"]) == 2
    for outcome in (
        served(other, applied=one),
        served(other, applied=None),
        served(other),
        served(back, applied=other, refused=refused),
        served(back, refused=refused),
        served(back),
        served(back, addresses={}),
        served(back, stale=stale),
        served(back),
        served(other),
    ):
        statuses = build_statuses(outcome, statuses)
        assert same(statuses, build_statuses(outcome))


def test_an_older_crd_is_not_written_again_and_again_for_a_field_that_it_lacks() -> None:
    desired = status_of(served(graph_of(GATEWAY)), GATEWAY_REF)
    assert desired.attached_listener_sets == 0
    live = merge_status(desired, None, namespace="default", controller_name=CONTROLLER, now="now")
    assert live is not None
    assert "attachedListenerSets" not in live
    assert merge_status(desired, live, namespace="default", controller_name=CONTROLLER, now="later") is None
    one = replace(desired, attached_listener_sets=1)
    live = merge_status(one, live, namespace="default", controller_name=CONTROLLER, now="now")
    assert live is not None
    assert live["attachedListenerSets"] == 1
    live = merge_status(desired, live, namespace="default", controller_name=CONTROLLER, now="now")
    assert live is not None
    assert live["attachedListenerSets"] == 0
