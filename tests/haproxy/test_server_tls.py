"""Servers with TLS in states and plans: what HAProxy must hold for them, before them and as long as they are there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gwctl.haproxy.desired import build_state
from gwctl.haproxy.names import is_authorities
from gwctl.haproxy.plan import Plan, RemoveAuthorities, RemoveCertificate, SetServer, diff, leaves_tls
from gwctl.haproxy.state import Server, ServerTLS, State, protocol_of, server_name, tls_of
from gwctl.runtime.pipeline import Pipeline
from tests.certificates import make_authority, make_pair
from tests.manifests import (
    Manifest,
    backend,
    backend_tls_policy,
    config_map,
    endpoints,
    gateway,
    gateway_class,
    http_route,
    listener,
    prefix_rule,
    service,
)
from tests.pipeline import LAYOUT, NOTHING, POOLS, build_pipeline, desired_state

ROOT, NEXT_ROOT = make_authority("root"), make_authority("next root")


def cluster(*policies: Manifest, client: str = "", root: str = ROOT) -> Pipeline:
    entry = gateway([listener("http", 80)])
    if client:
        entry["spec"]["tls"] = {"backend": {"clientCertificateRef": {"name": client}}}
    pairs = [make_pair("one", serial=number).secret(name) for number, name in enumerate(("one", "two"), 1)]
    route = http_route("r", [prefix_rule("/", backend("web"))])
    web = [service("web"), *endpoints("web", [("10.0.0.1", 8443)])]
    return build_pipeline([gateway_class(), entry, route, *web, config_map("ca", root), *pairs, *policies])


def settled(state: State) -> State:
    """What HAProxy has after a plan, as far as the next one asks."""
    return replace(state, changes={})


def names(plan: Plan) -> list[str]:
    return [type(operation).__name__ for operation in plan.operations]


POLICY = backend_tls_policy("p", "web", "ca")


def test_what_a_server_is_verified_by_is_there_before_it_and_goes_when_the_last_server_has_gone() -> None:
    plain = desired_state(cluster())
    first = desired_state(cluster(POLICY, client="one"), settled(plain.state), plain)
    plan = diff(first.state, settled(plain.state))
    made = [name for name in names(plan) if name in ("AddAuthorities", "AddCertificate", "SetServer")]
    assert made == ["AddAuthorities", "AddCertificate", "SetServer"]
    assert plan.transaction is None
    (server,) = [operation for operation in plan.operations if isinstance(operation, SetServer)]
    assert dict(server.options) == {
        "ssl": "enabled",
        "verify": "required",
        "ssl_cafile": next(iter(first.state.authorities)),
        "sni": "str(backend.test)",
        "ssl_min_ver": "TLSv1.2",
        "ssl_certificate": next(iter(first.state.certificates)),
        "alpn": "http/1.1",
    }
    after = desired_state(cluster(POLICY, client="two", root=NEXT_ROOT), settled(first.state), first)
    plan = diff(after.state, settled(first.state))
    assert not {"RemoveAuthorities", "RemoveCertificate"} & {*names(plan)}
    slot, old = next((slot, there) for slot, there in first.state.servers.items() if there)
    waiting = {slot: {name: one._replace(state="maint") for name, one in old.items()}}
    held = replace(
        settled(after.state),
        servers={**after.state.servers, **waiting},
        certificates=after.state.certificates | first.state.certificates,
        authorities=after.state.authorities | first.state.authorities,
    )
    assert leaves_tls(after.state, held)
    assert not diff(after.state, held)
    gone = replace(held, servers=after.state.servers)
    found = diff(after.state, gone).operations
    assert {type(operation) for operation in found} == {RemoveAuthorities, RemoveCertificate}


def test_a_reload_loads_no_server_whose_authorities_haproxy_has_not_taken_before() -> None:
    first = desired_state(cluster(POLICY, client="one"))
    transaction = diff(first.state, NOTHING).transaction
    assert transaction is not None
    assert transaction.state.authorities == transaction.state.certificates == frozenset()
    assert not any(transaction.state.servers.values())
    restarted = replace(settled(first.state), lua="another")
    again = diff(first.state, restarted).transaction
    assert again is not None
    assert again.state == first.state


@pytest.mark.parametrize("what", ["authorities", "certificates"])
def test_servers_that_need_what_haproxy_did_not_take_are_left_out_and_plain_ones_do_not_come_instead(what: str) -> None:
    pipeline = cluster(POLICY, client="one")
    first = desired_state(pipeline)
    refused: frozenset[str] = getattr(first.state, what)
    after = build_state(pipeline.routing, pipeline.tables, settled(first.state), LAYOUT, POOLS, first, refused).state
    assert not any(after.servers.values())
    assert not getattr(after, what) & refused
    assert all("~tls-" in key for key in after.tables[next(iter(t for t in after.tables if "services" in t))])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"hostname": "other.test"}),
        ({}, {"authorities": "@system-ca"}),
        ({}, {"certificate": "gwctl-2.pem"}),
        ({}, {"alpn": "h2"}),
    ],
)
def test_another_tls_has_another_identity(one: dict[str, Any], other: dict[str, Any]) -> None:
    base = ServerTLS("a.test", "gwctl-ca-1.pem", "", "http/1.1")
    assert base._replace(**one).identity != base._replace(**other).identity


def test_the_name_of_a_server_says_its_protocol_and_tls() -> None:
    for protocol, tls in ((None, None), ("h2", None), (None, "ab12"), ("h2", "ab12")):
        name = server_name("fd00::1", 80, protocol, tls)  # type: ignore[arg-type]
        assert (protocol_of(name), tls_of(name)) == (protocol, tls)


def test_authorities_are_told_from_certificates_by_their_names() -> None:
    found = desired_state(cluster(POLICY, client="one")).state
    assert [is_authorities(name) for name in (*found.authorities, *found.certificates)] == [True, False]
    assert State.options_of(found, Server("10.0.0.1", 80, "ready", "h2")) == {"proto": "h2"}
