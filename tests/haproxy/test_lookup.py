"""The interpreter of rows: it agrees with the reference matcher, and finds rows that lead nowhere."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gwctl.haproxy.lookup import DanglingReference, Outcome, look_up, look_up_connection, look_up_handshake
from gwctl.haproxy.names import Table, frontend_name
from gwctl.haproxy.state import Rows
from gwctl.haproxy.table import ERROR_TARGET, Upstream, service_key
from gwctl.routing.matcher import find_rule, find_sni_rule
from gwctl.routing.request import Request
from gwctl.routing.rule import Rule
from gwctl.routing.virtualhost import FrontendKey
from tests.manifests import (
    gateway,
    gateway_class,
    http_route,
    listener,
    random_call,
    random_grpc_routes,
    random_listeners,
    random_request,
    random_routes,
    random_tls_listeners,
    random_tls_routes,
    service,
)
from tests.pipeline import build_pipeline, desired_state

FRONTEND = "gwctl.default.gw.80"
HOST = "default/gw/http/a.com"


def tables(**rows: Rows) -> dict[Table, Rows]:
    base: dict[Table, Rows] = {
        Table.HOSTS: {f"{FRONTEND}/a.com": HOST},
        Table.SERVICES: {"default/s/80": "gwctl-http-00001"},
    }
    return {**base, **{Table[name.upper()]: value for name, value in rows.items()}}


def get(path: str, host: str = "a.com", **more: object) -> Request:
    return Request("GET", host, path, **more)  # type: ignore[arg-type]


def shares(rule: Rule, mode: str = "http") -> dict[str, int]:
    found: dict[str, int] = {}
    for backend in rule.backends:
        mode = backend.protocol or mode
        key = ERROR_TARGET if backend.service is None else service_key(Upstream(backend.service), mode)
        found[key] = found.get(key, 0) + backend.weight
    return found


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_it_agrees_with_the_reference_matcher(seed: int) -> None:
    random = Random(seed)
    services = ["s1", "s2"]
    manifests = [gateway_class(), gateway(random_listeners(random, 80)), *map(service, services)]
    routes = random_routes(random, [*services, "missing"], 8)
    if random.random() < 0.5:
        routes += random_grpc_routes(random, [*services, "missing"], 6)
    pipeline = build_pipeline([*manifests, *routes])
    rows = desired_state(pipeline).state.tables
    for key in pipeline.routing.frontends:
        for number in range(60):
            request = random_call(random) if number % 3 == 0 else random_request(random)
            verdict = find_rule(pipeline.routing, key, request)
            outcome = look_up(rows, frontend_name(*key), request)
            if verdict.candidate is None:
                assert (outcome.status, outcome.rule) == (404, ""), request
                continue
            rule = verdict.candidate.rule
            assert outcome.rule == rule.name, request
            if rule.filters.redirect is not None:
                assert outcome.status == rule.filters.redirect.status
                assert outcome.shares[0].location
                continue
            found: dict[str, int] = {}
            for share in outcome.shares:
                found[share.target] = found.get(share.target, 0) + share.weight
            expected = shares(rule) or {ERROR_TARGET: 1}
            assert found == expected or list(found) == list(expected)


SERVER_NAMES = ("", "a.test", "x.a.test", "y.x.a.test", "z.y.x.a.test", "B.test", "y.b.test", "c.test.")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_it_agrees_with_the_reference_matcher_about_handshakes(seed: int) -> None:
    random = Random(seed)
    services = ["s1", "s2"]
    manifests = [gateway_class(), gateway(random_tls_listeners(random, 443)), *map(service, services)]
    routes = random_tls_routes(random, [*services, "missing"], 6)
    pipeline = build_pipeline([*manifests, *routes])
    rows = desired_state(pipeline).state.tables
    for key, frontend in pipeline.routing.frontends.items():
        for name in SERVER_NAMES if frontend.mode == "tls" else ():
            verdict = find_sni_rule(pipeline.routing, key, name)
            outcome = look_up_handshake(rows, frontend_name(*key), name)
            if verdict is None or (verdict.rule is None and verdict.inner != "https"):
                assert outcome is None, name
                continue
            assert outcome is not None, name
            if verdict.rule is None:
                assert (outcome.entry, outcome.rule, outcome.shares) == (">https", "", ()), name
                continue
            assert outcome.rule == verdict.rule.name, name
            found: dict[str, int] = {}
            for share in outcome.shares:
                found[share.target] = found.get(share.target, 0) + share.weight
            expected = {target: weight for target, weight in shares(verdict.rule, "tcp").items() if weight}
            assert found == (expected or {ERROR_TARGET: 1}) or list(found) == list(expected)


def test_nothing_is_404() -> None:
    assert look_up({}, FRONTEND, get("/")) == Outcome()
    assert look_up(tables(), FRONTEND, get("/")) == Outcome(HOST)


def test_hosts_are_looked_up_from_the_most_specific_on() -> None:
    hosts = {f"{FRONTEND}/{key}": key for key in ("a.com", "_.a.com", "_.b.a.com", "_")}
    rows = {Table.HOSTS: hosts}
    for host, found in {
        "a.com": "a.com",
        "A.COM.:80": "a.com",
        "x.a.com": "_.a.com",
        "x.b.a.com": "_.b.a.com",
        "y.x.b.a.com": "_.b.a.com",
        "b.a.com": "_.a.com",
        "[::1]:80": "_",
        "com": "_",
        "": "_",
    }.items():
        assert look_up(rows, FRONTEND, get("/", host)).host == found, host


def test_exact_then_regular_expression_then_longest_prefix() -> None:
    rows = tables(
        paths_exact={f"{HOST}%2Fv2": "!|exact"},
        paths_regex={HOST: "~g1"},
        paths_prefix={f"{HOST}%2F": "!|root", f"{HOST}%2Fv2%2F": "!|prefix"},
        groups={"g1": "p~%2Fv%5B0-9%5D%2B%2Fx?!|regex"},
    )
    for path, rule in {
        "/v2": "exact", "/v2/x": "regex", "/v2/x/": "prefix", "/v2/": "prefix", "/v2x": "root", "/": "root",
    }.items():  # fmt: skip
        assert look_up(rows, FRONTEND, get(path)).rule == rule, path


def test_a_group_that_does_not_fit_hands_on_to_the_shorter_prefix() -> None:
    rows = tables(
        paths_prefix={f"{HOST}%2F": "~g2", f"{HOST}%2Fa%2Fb%2F": f"~g1>{HOST}%2Fa%2F"},
        groups={"g1": "h:x:1?!|long", "g2": "q:p:a%20b?!|query&?!|short"},
    )
    assert look_up(rows, FRONTEND, get("/a/b", headers=(("X", "1"),))).rule == "long"
    assert look_up(rows, FRONTEND, get("/a/b", query="p=a+b")).rule == "query"
    assert look_up(rows, FRONTEND, get("/a/b", query="p=&p=a+b")).rule == "short"
    rows[Table.PATHS_PREFIX] = {f"{HOST}%2Fa%2Fb%2F": f"~g1>{HOST}%2Fa%2F"}
    assert look_up(rows, FRONTEND, get("/a/b")) == Outcome(HOST)


def test_conditions_see_one_value_and_all_of_it() -> None:
    rows = tables(
        paths_prefix={f"{HOST}%2F": "~g"},
        groups={"g": "m:PUT?!|method&h~x:a.%2Ab?!|header&q~q:%28?!|broken&?!|rest"},
    )
    assert look_up(rows, FRONTEND, Request("PUT", "a.com", "/")).rule == "method"
    assert look_up(rows, FRONTEND, get("/", headers=(("X", "a"), ("x", "b")))).rule == "header"
    assert look_up(rows, FRONTEND, get("/", headers=(("X", "a"), ("y", "b")))).rule == "rest"
    assert look_up(rows, FRONTEND, get("/", query="q=(")).rule == "rest"


def test_shares_and_slots() -> None:
    rows = tables(paths_prefix={f"{HOST}%2F": "*1:!+3:default/s/80|r"})
    outcome = look_up(rows, FRONTEND, get("/"))
    assert outcome.status is None
    assert [(share.weight, share.target, share.slot, share.status) for share in outcome.shares] == [
        (1, "!", "", 500),
        (3, "default/s/80", "gwctl-http-00001", None),
    ]
    assert look_up(tables(paths_prefix={f"{HOST}%2F": "!|r"}), FRONTEND, get("/")).status == 500


@pytest.mark.parametrize(
    ("row", "location"),
    [
        ("|||||301|https", "https://A.com/a/b?q=1"),
        ("full|%2Fx%20y|||b.com|302|http|:8080", "http://b.com:8080/x y?q=1"),
        ("prefix|%2Fx|%2Fx|2|b.com|308|http", "http://b.com/x/b?q=1"),
        ("prefix|%2F||2|b.com|308|http", "http://b.com/b?q=1"),
        ("prefix|%2Fx|%2Fx|4|b.com|308|http", "http://b.com/x?q=1"),
    ],
)
def test_redirects(row: str, location: str) -> None:
    rows = tables(paths_prefix={f"{HOST}%2F": "-|r|f"}, filters={"f": "||d"}, locations={"d": row})
    outcome = look_up(rows, FRONTEND, get("/a/b", host="A.com:80", query="q=1"))
    assert (outcome.status, outcome.shares[0].location) == (int(row.split("|")[5]), location)


def test_filters_of_a_rule_and_of_a_share() -> None:
    rows = tables(
        paths_prefix={f"{HOST}%2F": "*1:!+2:default/s/80+3:default/s/80@g|r|f"},
        filters={"f": "h|i|l", "g": "h"},
        request_headers={"h": "eA"},
        response_headers={"i": "eQ"},
        locations={"l": "prefix|%2Fnew|%2Fnew|2|b.com"},
    )
    error, plain, own = look_up(rows, FRONTEND, get("/a/b")).shares
    assert (error.status, plain.status, own.status) == (500, None, None)
    assert (plain.path, plain.hostname) == ("/new/b", "b.com")
    assert (own.path, own.hostname) == ("/a/b", "a.com")
    assert [row for _, row in plain.filters] == ["h|i|l", "eA", "eQ", "prefix|%2Fnew|%2Fnew|2|b.com"]
    assert own.filters == ((Table.FILTERS, "h"), (Table.REQUEST_HEADERS, "eA"))


@pytest.mark.parametrize(
    ("rows", "table"),
    [
        (tables(paths_prefix={f"{HOST}%2F": "~g"}), Table.GROUPS),
        (tables(paths_prefix={f"{HOST}%2F": "!|r|f"}), Table.FILTERS),
        (tables(paths_prefix={f"{HOST}%2F": "!|r|f"}, filters={"f": "h"}), Table.REQUEST_HEADERS),
        (tables(paths_prefix={f"{HOST}%2F": "-|r|f"}, filters={"f": "||d"}), Table.LOCATIONS),
        (tables(paths_prefix={f"{HOST}%2F": "*1:!+1:default/s/80@f|r"}), Table.FILTERS),
        (tables(paths_prefix={f"{HOST}%2F": "*1:default/s/80+1:default/t/80|r"}), Table.SERVICES),
    ],
)
def test_a_row_that_leads_nowhere_is_named(rows: dict[Table, Rows], table: Table) -> None:
    with pytest.raises(DanglingReference) as caught:
        look_up(rows, FRONTEND, get("/"))
    assert caught.value.table is table
    assert str(table) in str(caught.value)


def test_connections() -> None:
    rows = tables(tcp={FRONTEND: "*1:!+3:default/s/80|default/r/0"})
    outcome = look_up_connection(rows, FRONTEND)
    assert outcome is not None
    assert (outcome.rule, outcome.shares[1].slot) == ("default/r/0", "gwctl-http-00001")
    assert look_up_connection(rows, "gwctl.default.gw.81") is None
    with pytest.raises(DanglingReference, match="default/t/80"):
        look_up_connection(tables(tcp={FRONTEND: "default/t/80|r"}), FRONTEND)


def test_a_frontend_has_a_key() -> None:
    assert frontend_name(*FrontendKey("default", "gw", 80)) == FRONTEND


def test_a_regular_expression_that_goes_astray_fits_nothing() -> None:
    rule = {"path": {"value": "/"}, "headers": [{"name": "x", "type": "RegularExpression", "value": "(a+)+[bc]"}]}
    route = http_route("r", [{"matches": [rule], "backendRefs": []}])
    tables = desired_state(build_pipeline([gateway_class(), gateway([listener("http", 80)]), route])).state.tables
    request = Request("GET", "a.test", "/", headers=(("x", "a" * 1000 + "!"),))
    assert look_up(tables, "gwctl.default.gateway.80", request).status == 404
