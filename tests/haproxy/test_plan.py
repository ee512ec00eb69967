"""Plans: empty for equal states, right in the end, and consistent at every step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gwctl.haproxy.lookup import Outcome, look_up, look_up_handshake
from gwctl.haproxy.names import Table, crt_list_name
from gwctl.haproxy.plan import Plan, RemoveRow, RemoveServer, SetRow, SetServer, diff
from gwctl.haproxy.state import Server, State
from gwctl.routing.matcher import find_rule
from gwctl.routing.request import Request
from gwctl.routing.virtualhost import FrontendKey
from tests.certificates import make_pair
from tests.haproxy.references import check_references
from tests.manifests import (
    Manifest,
    backend,
    endpoints,
    gateway,
    gateway_class,
    http_route,
    https_listener,
    listener,
    prefix_rule,
    random_listeners,
    random_request,
    random_routes,
    random_tls_listeners,
    random_tls_routes,
    service,
    tls_listener,
)
from tests.pipeline import NOTHING, build_pipeline, desired_state

SERVICES = ["s1", "s2", "s3"]
TLS_FRONTEND = "gwctl.default.gateway.443"

RANDOM = st.randoms(use_true_random=True)
"""A state takes more choices than Hypothesis would draw itself."""


def cluster(random: Random, listeners: list[Manifest]) -> list[Manifest]:
    manifests = [gateway_class(), gateway(listeners), *random_routes(random, [*SERVICES, "missing"], 6)]
    for name in SERVICES:
        addresses = [(f"10.0.0.{random.randint(1, 4)}", 8080) for _ in range(random.randint(0, 3))]
        manifests += [service(name), *endpoints(name, sorted(set(addresses)))]
    return manifests


def states(plan: Plan, actual: State) -> Iterator[State]:
    """Yield the state after each operation, and after the transaction."""
    tables = {table: dict(actual.tables.get(table, {})) for table in Table}
    servers = {slot: dict(there) for slot, there in actual.servers.items()}
    for operation in plan.operations:
        match operation:
            case SetRow(table, key, value, existing):
                assert (key in tables[table]) == existing
                tables[table][key] = value
            case RemoveRow(table, key):
                del tables[table][key]
            case SetServer(slot, name, server, existing):
                assert (name in servers.get(slot, {})) == existing
                servers.setdefault(slot, {})[name] = server
            case RemoveServer(slot, name):
                del servers[slot][name]
        yield State(actual.sections, tables, {slot: there for slot, there in servers.items() if there}, actual.lua)
    if plan.transaction is not None:
        yield plan.transaction.state


def without_empty(state: State) -> State:
    servers = {slot: there for slot, there in state.servers.items() if there}
    return State(state.sections, {table: state.tables.get(table, {}) for table in Table}, servers, state.lua)


@settings(deadline=None)
@given(RANDOM)
def test_diff_of_equal_states_is_empty(random: Random) -> None:
    state = desired_state(build_pipeline(cluster(random, random_listeners(random, 80)))).state
    assert not diff(state, state)


@settings(deadline=None)
@given(RANDOM)
def test_first_start_is_one_transaction(random: Random) -> None:
    desired = desired_state(build_pipeline(cluster(random, random_listeners(random, 80)))).state
    plan = diff(desired, NOTHING)
    assert not plan.operations
    assert plan.transaction is not None and plan.transaction.reasons == ("first start",)
    assert plan.transaction.state == desired


@settings(deadline=None)
@given(RANDOM)
def test_a_change_of_routes_reaches_the_desired_state_and_every_step_is_consistent(random: Random) -> None:
    listeners = random_listeners(random, 80)
    before = desired_state(build_pipeline(cluster(random, listeners)))
    after = build_pipeline(cluster(random, listeners))
    desired = desired_state(after, before.state, before).state
    plan = diff(desired, before.state)
    assert plan.transaction is None
    reached = before.state
    for reached in states(plan, before.state):
        check_references(reached)
    assert without_empty(reached) == without_empty(desired)
    assert not diff(desired, reached)


@settings(deadline=None)
@given(RANDOM)
def test_at_every_step_a_handshake_meets_the_rule_of_before_or_after(random: Random) -> None:
    listeners = random_tls_listeners(random, 443)
    fixed = [gateway_class(), gateway(listeners), *map(service, SERVICES)]
    routes = [random_tls_routes(random, [*SERVICES, "missing"], random.randint(0, 6)) for _ in range(2)]
    before = desired_state(build_pipeline([*fixed, *routes[0]]))
    desired = desired_state(build_pipeline([*fixed, *routes[1]]), before.state, before).state
    for name in ("", "a.test", "x.a.test", "y.x.a.test", "b.test"):
        first, last = (look_up_handshake(state.tables, TLS_FRONTEND, name) for state in (before.state, desired))
        for reached in states(diff(desired, before.state), before.state):
            check_references(reached)
            assert look_up_handshake(reached.tables, TLS_FRONTEND, name) in (first, last), name


def _nested_routes(random: Random) -> list[Manifest]:
    """Routes of few hosts and paths, so that most requests meet rows of several paths and hosts."""

    def rule() -> Manifest:
        match: Manifest = {}
        kind, value = random.choice([*_NESTED, ("RegularExpression", random.choice(["/a.*", ".*b"]))])
        match["path"] = {"type": kind, "value": value}
        if random.random() < 0.5:
            match["headers"] = [{"name": "x", "value": value} for value in random.choices("12", k=1)]
        if random.random() < 0.2:
            match["method"] = "PUT"
        filters = [{"type": "ExternalAuth", "externalAuth": _AUTH}] if random.random() < 0.3 else []
        return {"matches": [match], "filters": filters, "backendRefs": [backend(random.choice(SERVICES))]}

    return [
        http_route(f"r{index}", [rule() for _ in range(random.randint(1, 4))], tuple(random.sample(_NESTED_HOSTS, 2)))
        for index in range(random.randint(1, 4))
    ]


_AUTH = {"protocol": "HTTP", "http": {}, "backendRef": {"name": "s1", "port": 80}}
_NESTED = [(kind, path) for kind in ("Exact", "PathPrefix", "PathPrefix") for path in ("/", "/a", "/a/b")]
_NESTED_HOSTS = ("*.test", "*.a.test", "x.a.test")
_NESTED_REQUESTS = [
    Request(method, host, path, headers=headers)
    for host in ("x.a.test", "y.a.test")
    for path in ("/", "/a", "/a/b", "/a/b/c")
    for headers in ((), (("x", "1"),), (("x", "2"),))
    for method in ("GET", "PUT")
]


def _assert_requests_meet_before_or_after(
    plan: Plan, actual: State, outcomes: dict[Request, list[Outcome]]
) -> list[State]:
    """Give all states on the way."""
    found = []
    for reached in states(plan, actual):
        for request, expected in outcomes.items():
            outcome = look_up(reached.tables, "gwctl.default.gateway.80", request)
            assert outcome in expected, (request, plan)
        tables = {table: dict(rows) for table, rows in reached.tables.items()}
        found.append(replace(reached, tables=tables, servers=dict(reached.servers)))
    return found


def _assert_a_change_is_met_before_or_after(
    random: Random, before: list[Manifest], after: list[Manifest], requests: list[Request]
) -> None:
    actual = desired_state(build_pipeline(before))
    desired = desired_state(build_pipeline(after), actual.state, actual).state
    plan = diff(desired, actual.state)
    assert plan.transaction is None
    outcomes = {
        request: [look_up(state.tables, "gwctl.default.gateway.80", request) for state in (actual.state, desired)]
        for request in requests
    }
    reached = _assert_requests_meet_before_or_after(plan, actual.state, outcomes)
    for state in random.sample(reached, min(len(reached), 3)):
        again = diff(desired, state)
        ends = _assert_requests_meet_before_or_after(again, state, outcomes)
        assert without_empty(ends[-1] if ends else state) == without_empty(desired)


@settings(deadline=None)
@given(RANDOM)
def test_at_every_step_a_request_meets_what_it_met_before_or_meets_after(random: Random) -> None:
    fixed = [gateway_class(), *map(service, SERVICES)]
    before, after = (
        [*fixed, gateway(random_listeners(random, 80)), *random_routes(random, [*SERVICES, "missing"], 6)]
        for _ in range(2)
    )
    requests = [random_request(random) for _ in range(30)]
    _assert_a_change_is_met_before_or_after(random, before, after, requests)


@settings(deadline=None)
@given(RANDOM)
def test_at_every_step_a_request_meets_one_of_two_sets_of_nested_routes(random: Random) -> None:
    fixed = [gateway_class(), gateway([listener("http", 80)]), *map(service, SERVICES)]
    before, after = ([*fixed, *_nested_routes(random)] for _ in range(2))
    _assert_a_change_is_met_before_or_after(random, before, after, _NESTED_REQUESTS)


def _plan_of_rules(before: list[Manifest], after: list[Manifest]) -> Plan:
    fixed = [gateway_class(), gateway([listener("http", 80)]), *map(service, SERVICES)]
    actual = desired_state(build_pipeline([*fixed, http_route("r", before)]))
    return diff(
        desired_state(build_pipeline([*fixed, http_route("r", after)]), actual.state, actual).state, actual.state
    )


def _steps(plan: Plan, *tables: Table) -> list[str]:
    """Give what a plan does to rows of some tables, without values and what all keys begin with."""
    found = [
        str(step).split() for step in plan.operations if isinstance(step, SetRow | RemoveRow) and step.table in tables
    ]
    return [f"{sign} {key.removeprefix('default/gateway/http/')}" for sign, _, key, *_ in found]


def test_paths_that_stay_protected_have_their_rows_when_the_shorter_prefix_is_opened() -> None:
    auth = [{"type": "ExternalAuth", "externalAuth": _AUTH}]
    all_protected = [prefix_rule("/", backend("s1"), filters=auth)]
    exact = {"matches": [{"path": {"type": "Exact", "value": "/x"}}], "backendRefs": [backend("s1")], "filters": auth}
    some = [prefix_rule(path, backend("s1"), filters=auth) for path in ("/a", "/a/b")]
    opened = [prefix_rule("/", backend("s1")), exact, *some]
    paths = (Table.PATHS_EXACT, Table.PATHS_PREFIX)
    plan = _plan_of_rules(all_protected, opened)
    assert _steps(plan, *paths) == ["+ _%2Fx", "+ _%2Fa%2Fb%2F", "+ _%2Fa%2F", "~ _%2F"]
    plan = _plan_of_rules(opened, all_protected)
    assert _steps(plan, *paths) == ["~ _%2F", "- _%2Fa%2F", "- _%2Fa%2Fb%2F", "- _%2Fx"]


def test_between_a_group_and_one_for_other_requests_stands_one_for_both() -> None:
    def rules(version: str) -> list[Manifest]:
        condition = {"headers": [{"name": "version", "value": version}]}
        return [
            {"matches": [{"path": {"type": "PathPrefix", "value": path}, **condition}], "backendRefs": [backend(name)]}
            for path, name in (("/", "s1"), ("/a", "s2"))
        ]

    plan = _plan_of_rules(rules("1"), rules("2"))
    assert _steps(plan, Table.PATHS_PREFIX) == ["~ _%2Fa%2F", "~ _%2F", "~ _%2F", "~ _%2Fa%2F"]
    assert [step[0] for step in _steps(plan, Table.GROUPS)] == ["+"] * 4 + ["-"] * 4
    plan = _plan_of_rules([*rules("1")[:1], rules("1")[1]], [rules("1")[0], rules("2")[1]])
    assert _steps(plan, Table.PATHS_PREFIX, Table.GROUPS)[1:-1] == ["~ _%2Fa%2F"], "no other row has these requests"


def test_a_certificate_is_served_once_hosts_are_there_and_before_handshakes_are_handed_over() -> None:
    pair = make_pair("*.test")
    listeners = [
        https_listener("a", 443, "pair", hostname="a.test"),
        tls_listener("t", 443, hostname="t.test"),
        https_listener("b", 443, "pair", hostname="b.test"),
    ]
    fixed = [gateway_class(), pair.secret("pair")]
    actual = desired_state(build_pipeline([*fixed, gateway(listeners[:2])]))
    after = build_pipeline([*fixed, gateway(listeners)])
    plan = diff(desired_state(after, actual.state, actual).state, actual.state)
    assert plan.transaction is None
    assert [str(step).split()[1] for step in plan.operations[:3]] == [
        Table.HOSTS,
        crt_list_name("gwctl.default.gateway.443.https"),
        Table.SNI,
    ], plan


@settings(deadline=None)
@given(RANDOM)
def test_tables_do_not_depend_on_the_order_of_resources(random: Random) -> None:
    manifests = cluster(random, random_listeners(random, 80))
    shuffled = random.sample(manifests, len(manifests))
    one, other = (desired_state(build_pipeline(order)).state for order in (manifests, shuffled))
    assert one == other


@settings(deadline=None)
@given(RANDOM)
def test_the_rows_answer_what_the_reference_matcher_answers(random: Random) -> None:
    pipeline = build_pipeline(cluster(random, random_listeners(random, 80)))
    state = desired_state(pipeline).state
    for _ in range(20):
        request = random_request(random)
        verdict = find_rule(pipeline.routing, FrontendKey("default", "gateway", 80), request)
        outcome = look_up(state.tables, "gwctl.default.gateway.80", request)
        expected = verdict.candidate.rule.name if verdict.candidate else ""
        assert outcome.rule == expected, (request, verdict)


def _one_service(*conditions: Manifest) -> list[Manifest]:
    """A Service with an endpoint for each of the conditions, at 10.0.0.1 and so on."""
    slices = endpoints("s1", [("10.0.0.1", 8080)])
    slices[0]["endpoints"] = [
        {"addresses": [f"10.0.0.{number}"], "conditions": given} for number, given in enumerate(conditions, 1)
    ]
    route = http_route("r", [prefix_rule("/", backend("s1"))])
    return [gateway_class(), gateway([listener("http", 80)]), service("s1"), route, *slices]


def test_a_pod_that_terminates_is_drained_only_when_the_one_that_replaces_it_is_ready() -> None:
    before = desired_state(build_pipeline(_one_service({"ready": True})))
    leaving = {"ready": False, "serving": True, "terminating": True}
    after = build_pipeline(_one_service(leaving, {"ready": True}))
    plan = diff(desired_state(after, before.state, before).state, before.state)
    assert [str(operation).rpartition("/")[2] for operation in plan.operations] == [
        "10.0.0.2_8080 ready",
        "10.0.0.1_8080 drain",
    ]
    for state in states(plan, before.state):
        assert "ready" in {server.state for server in state.servers["gwctl-http-00001"].values()}


def _own_services(prefix: str, number: int, network: int) -> list[Manifest]:
    """As many Services with a route each; all their endpoints are in one network."""
    manifests = [gateway_class(), gateway([listener("http", 80)])]
    for index in range(number):
        name = f"{prefix}{index}"
        manifests += [service(name), *endpoints(name, [(f"10.{network}.0.{index}", 8080)])]
        manifests.append(http_route(name, [prefix_rule(f"/{index}", backend(name))]))
    return manifests


def _assert_no_service_meets_the_servers_of_another(state: State, networks: dict[str, int]) -> None:
    for key, slot in state.tables[Table.SERVICES].items():
        network = networks[key.split("/")[1][0]]
        for server in state.servers.get(slot, {}).values():
            assert server.address.startswith(f"10.{network}."), (key, slot, server)


@pytest.mark.parametrize("number", [2, 6])
def test_services_that_replace_others_never_meet_their_servers(number: int) -> None:
    before = desired_state(build_pipeline(_own_services("a", number, 1)))
    after = desired_state(build_pipeline(_own_services("b", number, 2)), before.state, before)
    plan = diff(after.state, before.state)
    for state in states(plan, before.state):
        _assert_no_service_meets_the_servers_of_another(state, {"a": 1, "b": 2})
    assert without_empty(state) == without_empty(after.state)


def test_servers_left_by_a_plan_that_broke_off_never_meet_requests_of_another_service() -> None:
    empty = desired_state(build_pipeline(_own_services("b", 0, 2)))
    left = {"gwctl-http-00001": {"10.1.0.0_8080": Server("10.1.0.0", 8080, "ready")}}
    actual = State(empty.state.sections, empty.state.tables, left, empty.state.lua)
    plan = diff(desired_state(build_pipeline(_own_services("b", 1, 2)), actual, empty).state, actual)
    for state in states(plan, actual):
        _assert_no_service_meets_the_servers_of_another(state, {"b": 2})
