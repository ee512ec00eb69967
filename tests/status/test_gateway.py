"""What the status of a Gateway and its listeners says, by what became of them."""

from __future__ import annotations

import pytest

from gwctl.api.ref import Ref
from gwctl.graph.build import build_graph
from gwctl.graph.gatewayservice import service_ref
from gwctl.graph.node import Graph, ListenerKey
from gwctl.graph.problem import fall_back, unknown_field
from gwctl.snapshot import Snapshot
from gwctl.status.build import build_statuses
from gwctl.status.outcome import GatewayAddresses, Outcome, Stale
from tests.graph.manifests import CLASS, CONTROLLER, graph_of, read_all, stand_in
from tests.status.resources import (
    CLASS_REF,
    GATEWAY_REF,
    gateway,
    message,
    of_gateway,
    of_listener,
    of_parents,
    served,
    status_of,
    words,
)

HTTP = "[{name: http, port: 80, protocol: HTTP}]"
ROUTE = "{kind: HTTPRoute, metadata: {name: r}, spec: {parentRefs: [{name: gw}]}}\n---\n"
PENDING = "False/Pending"
GOOD = {"Accepted": "True/Accepted", "Programmed": "True/Programmed", "ResolvedRefs": "True/ResolvedRefs"}


def http(meta: str = "", listeners: str = HTTP) -> Graph:
    return graph_of(gateway(listeners, meta=meta))


def test_a_gateway_that_is_served_and_has_an_address_is_programmed() -> None:
    outcome = served(http(", generation: 7, uid: u"))
    assert of_gateway(outcome) == of_listener(outcome, "http") == GOOD
    status = status_of(outcome, GATEWAY_REF)
    assert (status.uid, status.generation) == ("u", 7)
    assert status.addresses == (("IPAddress", "192.0.2.1"),)
    assert status.attached_listener_sets == 0
    assert status.parents is None


def test_nothing_is_programmed_before_haproxy_was_read_back() -> None:
    outcome = served(http(), applied=None)
    assert of_gateway(outcome) == {**GOOD, "Programmed": PENDING}
    assert of_listener(outcome, "http") == {**GOOD, "Programmed": PENDING}


def test_a_new_generation_is_programmed_only_when_it_is_served_itself() -> None:
    before, after = http(", generation: 1"), http(", generation: 2")
    outcome = served(after, applied=before)
    assert of_gateway(outcome)["Programmed"] == PENDING
    # HAProxy has this listener, whatever else of the Gateway changed.
    assert of_listener(outcome, "http")["Programmed"] == "True/Programmed"


def test_a_listener_that_is_added_is_pending_alone() -> None:
    more = "[{name: http, port: 80, protocol: HTTP}, {name: new, port: 81, protocol: HTTP}]"
    outcome = served(http(", generation: 2", more), applied=http(", generation: 1"))
    assert of_gateway(outcome)["Programmed"] == PENDING
    assert of_listener(outcome, "http")["Programmed"] == "True/Programmed"
    assert of_listener(outcome, "new")["Programmed"] == PENDING


def test_a_listener_that_is_changed_is_pending() -> None:
    before, after = http(), http(listeners="[{name: http, port: 81, protocol: HTTP}]")
    outcome = served(after, applied=before)
    assert of_gateway(outcome)["Programmed"] == of_listener(outcome, "http")["Programmed"] == PENDING


def test_routes_that_come_do_not_make_a_listener_pending() -> None:
    outcome = served(graph_of(gateway(HTTP) + ROUTE), applied=http())
    assert of_gateway(outcome) == of_listener(outcome, "http") == GOOD
    assert [item.attached_routes for item in status_of(outcome, GATEWAY_REF).listeners or ()] == [1]


@pytest.mark.parametrize(
    ("addresses", "reason"),
    [
        (GatewayAddresses(), "AddressNotAssigned"),
        (GatewayAddresses((), "AddressNotAssigned", "no address in the pool"), "AddressNotAssigned"),
        (
            GatewayAddresses((("IPAddress", "192.0.2.1"),), "AddressNotUsable", "spec.addresses[0]: 1.2.3.4 is taken"),
            "AddressNotUsable",
        ),
    ],
)
def test_addresses_are_the_gateways_business(addresses: GatewayAddresses, reason: str) -> None:
    outcome = served(http(), addresses={GATEWAY_REF: addresses})
    assert of_gateway(outcome) == {**GOOD, "Programmed": f"False/{reason}"}
    assert of_listener(outcome, "http") == GOOD
    status = status_of(outcome, GATEWAY_REF)
    assert status.addresses == addresses.addresses
    assert addresses.message in message(status.conditions, "Programmed")


def test_a_gateway_of_which_nothing_is_known_is_pending() -> None:
    outcome = Outcome(http(), http())
    assert of_gateway(outcome)["Programmed"] == PENDING
    assert of_listener(outcome, "http") == GOOD
    assert status_of(outcome, GATEWAY_REF).addresses == ()


def test_a_listener_to_which_no_slot_leads_is_pending() -> None:
    ports = "{port: 80, targetPort: 20001}"
    service = (
        "{kind: Service, metadata: {name: gw-default-gw-REF, namespace: gwctl, "
        "annotations: {gwctl.io/gateway: default/gw}}, spec: {ports: [PORTS]}}"
    )
    listeners = "[{name: a, port: 80, protocol: HTTP}, {name: b, port: 81, protocol: HTTP}]"
    name = service_ref(GATEWAY_REF, "gwctl").name
    text = gateway(listeners) + service.replace("gw-default-gw-REF", name).replace("PORTS", ports)
    outcome = served(build_graph(Snapshot.of(read_all(text)), CONTROLLER, service_namespace="gwctl"))
    assert of_listener(outcome, "a") == GOOD
    assert of_listener(outcome, "b") == of_gateway(outcome) == {**GOOD, "Programmed": PENDING}
    told = message(status_of(outcome, GATEWAY_REF).conditions, "Programmed")
    assert told == "no listener slot leads yet to listener b"


def test_a_listener_that_haproxy_did_not_take() -> None:
    graph = http(listeners="[{name: a, port: 80, protocol: HTTP}, {name: b, port: 81, protocol: HTTP}]")
    outcome = served(graph, refused={ListenerKey("default", "gw", "a"): "cannot bind socket"})
    assert of_gateway(outcome) == {**GOOD, "Programmed": "False/Invalid"}
    assert of_listener(outcome, "a") == {**GOOD, "Programmed": "False/Invalid"}
    assert of_listener(outcome, "b") == GOOD
    told = message(status_of(outcome, GATEWAY_REF).conditions, "Programmed")
    assert told == "HAProxy did not take listener a: cannot bind socket"


def test_listeners_of_other_gateways_may_be_refused() -> None:
    assert of_gateway(served(http(), refused={ListenerKey("default", "other", "http"): "no"})) == GOOD


def test_some_listeners_that_are_not_valid() -> None:
    graph = http(listeners="[{name: http, port: 80, protocol: HTTP}, {name: udp, port: 53, protocol: UDP}]")
    outcome = served(graph)
    assert of_gateway(outcome) == {**GOOD, "Accepted": "True/ListenersNotValid"}
    assert of_listener(outcome, "http") == GOOD
    bad = {**GOOD, "Accepted": "False/UnsupportedProtocol", "Programmed": "False/Invalid"}
    assert of_listener(outcome, "udp") == bad
    status = status_of(outcome, GATEWAY_REF)
    assert message(status.conditions, "Accepted") == "the Gateway is accepted, without listener udp"
    assert [item.supported_kinds for item in status.listeners or ()] == [("HTTPRoute", "GRPCRoute"), ()]


def test_no_listener_that_is_valid() -> None:
    outcome = served(http(listeners="[{name: udp, port: 53, protocol: UDP}]"))
    expected = {**GOOD, "Accepted": "False/ListenersNotValid", "Programmed": "False/Invalid"}
    assert of_gateway(outcome) == expected


@pytest.mark.parametrize(
    ("listeners", "reason"),
    [
        ("[{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}]", "HostnameConflict"),
        ("[{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: TCP}]", "ProtocolConflict"),
    ],
)
def test_a_conflict_is_the_reason_of_three_conditions(listeners: str, reason: str) -> None:
    outcome = served(http(listeners=listeners))
    assert of_listener(outcome, "a") == of_listener(outcome, "b")
    assert of_listener(outcome, "a") == {
        "Accepted": f"False/{reason}",
        "Programmed": f"False/{reason}",
        "ResolvedRefs": "True/ResolvedRefs",
        "Conflicted": f"True/{reason}",
    }


def test_a_gateway_whose_listeners_all_want_authorities_is_not_accepted() -> None:
    nobody = "{validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: missing}]}}"
    https = "{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}"
    tls = f", tls: {{frontend: {{default: {nobody}}}}}"
    expected = {"Accepted": "False/ListenersNotValid", "Programmed": "False/Invalid"}
    outcome = served(graph_of(gateway(f"[{https}]", more=tls)))
    assert of_gateway(outcome) == {**expected, "ResolvedRefs": "False/ListenersNotResolved"}
    assert of_listener(outcome, "https")["Accepted"] == "False/NoValidCACertificate"
    # One that is accepted is enough.
    outcome = served(graph_of(gateway(f"[{https}, {HTTP[1:-1]}]", more=tls)))
    assert of_gateway(outcome)["Accepted"] == "True/ListenersNotValid"


def test_kinds_that_a_listener_cannot_take_do_not_stop_it() -> None:
    kinds = "allowedRoutes: {kinds: [{kind: InvalidRoute}, {kind: HTTPRoute}]}"
    outcome = served(http(listeners=f"[{{name: http, port: 80, protocol: HTTP, {kinds}}}]"))
    assert of_listener(outcome, "http") == {**GOOD, "ResolvedRefs": "False/InvalidRouteKinds"}
    assert of_gateway(outcome) == {**GOOD, "ResolvedRefs": "False/ListenersNotResolved"}
    assert [item.supported_kinds for item in status_of(outcome, GATEWAY_REF).listeners or ()] == [("HTTPRoute",)]


@pytest.mark.parametrize(
    ("more", "reason", "field"),
    [
        (", addresses: [{type: test/fake, value: x}]", "UnsupportedAddress", "spec.addresses[0].type"),
        (
            ", infrastructure: {parametersRef: {group: g.io, kind: K, name: n}}",
            "InvalidParameters",
            "spec.infrastructure.parametersRef",
        ),
    ],
)
def test_a_gateway_that_is_wrong_itself_has_listeners_that_are_right(more: str, reason: str, field: str) -> None:
    outcome = served(graph_of(gateway(HTTP, more)))
    expected = {**GOOD, "Accepted": f"False/{reason}", "Programmed": "False/Invalid"}
    assert of_gateway(outcome) == expected
    assert of_listener(outcome, "http") == {**GOOD, "Programmed": "False/Invalid"}
    assert message(status_of(outcome, GATEWAY_REF).conditions, "Accepted").startswith(f"{field}: ")


def test_a_field_that_is_left_out_is_told_though_there_is_no_condition_for_it() -> None:
    outcome = served(graph_of(gateway(HTTP, ", defaultScope: All")))
    assert of_gateway(outcome) == GOOD
    told = message(status_of(outcome, GATEWAY_REF).conditions, "Accepted")
    assert told == "the Gateway is accepted; but spec.defaultScope: default Gateways are not supported"


def test_fields_that_nobody_knows_are_told() -> None:
    before = build_statuses(served(http()))
    stale = {
        ref: Stale(None, tuple(unknown_field(ref, field) for field in ("spec.backendTLS", "spec.new")))
        for ref in (GATEWAY_REF, CLASS_REF)
    }
    after = build_statuses(served(http(), stale=stale), before)
    for ref in stale:
        assert after.by_ref[ref].generation == before.by_ref[ref].generation
        assert words(after.by_ref[ref].conditions) == words(before.by_ref[ref].conditions)
        _, _, told = message(after.by_ref[ref].conditions, "Accepted").partition("; but ")
        assert [part.partition(": ")[0] for part in told.split("; ")] == ["spec.backendTLS", "spec.new"]
    assert {item.generation for item in after.by_ref[GATEWAY_REF].conditions or ()} == {None}


def test_two_gateways_that_want_one_port() -> None:
    other = "{kind: Gateway, metadata: {name: a}, spec: {gatewayClassName: gwctl, listeners: [{name: l, port: 80, "
    outcome = served(graph_of(gateway(HTTP) + other + "protocol: HTTP}]}}"))
    assert of_listener(outcome, "http")["Accepted"] == "False/PortUnavailable"


def test_a_gateway_that_could_never_be_read_is_not_accepted_and_says_why() -> None:
    bad = stand_in(
        "{kind: Gateway, metadata: {name: gw, generation: 2}, "
        "spec: {gatewayClassName: gwctl, listeners: [{name: http, port: 0, protocol: HTTP}]}}"
    )
    routes = "".join(
        f"{{kind: HTTPRoute, metadata: {{name: r{index}}}, spec: {{parentRefs: [{parent}]}}}}\n---\n"
        for index, parent in enumerate(("{name: gw}", "{kind: ListenerSet, name: set}"))
    )
    listener_set = (
        "{kind: ListenerSet, metadata: {name: set}, "
        "spec: {parentRef: {name: gw}, listeners: [{name: a, port: 81, protocol: HTTP}]}}\n---\n"
    )
    snapshot = Snapshot.of([*read_all(CLASS + listener_set + routes), bad])
    outcome = served(build_graph(snapshot, CONTROLLER, service_namespace="gwctl"))
    assert of_gateway(outcome) == {"Accepted": "False/Invalid", "Programmed": "False/Invalid"}
    status = status_of(outcome, GATEWAY_REF)
    assert (status.generation, status.listeners, status.attached_listener_sets) == (2, (), 0)
    assert message(status.conditions, "Accepted").startswith("spec.listeners[0].port: must be at least 1")
    of_set = status_of(outcome, Ref("ListenerSet", "default", "set")).conditions
    assert words(of_set) == {"Accepted": "False/ParentNotAccepted", "Programmed": "False/ParentNotProgrammed"}
    assert "Gateway default/gw cannot be read" in message(of_set, "Accepted")
    for index in (0, 1):
        (parent,) = of_parents(outcome, Ref("HTTPRoute", "default", f"r{index}"))
        assert parent["Accepted"] == "False/NoMatchingParent"


def test_what_cannot_be_read_any_more_stands_as_it_was() -> None:
    before = build_statuses(served(http()))
    problems = {
        ref: Stale(7, (fall_back(ref, "spec.addresses[0].value", "must be an address"),))
        for ref in (GATEWAY_REF, CLASS_REF)
    }
    after = build_statuses(served(http(), stale=problems), before)
    for ref in problems:
        told = message(after.by_ref[ref].conditions, "Accepted")
        assert after.by_ref[ref].generation == 7
        assert "; but " in told
        assert told.endswith("spec.addresses[0].value: Fall Back: must be an address; what it was before is served")
        assert words(after.by_ref[ref].conditions) == words(before.by_ref[ref].conditions)
    of_gateway = after.by_ref[GATEWAY_REF]
    generations = {item.type: item.generation for item in of_gateway.conditions or ()}
    assert generations == {"Accepted": None, "Programmed": 0, "ResolvedRefs": 0}
    assert {item.generation for listener in of_gateway.listeners or () for item in listener.conditions} == {0}
