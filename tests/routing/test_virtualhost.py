"""Hosts: which name covers which, which is more specific, and which listener a host belongs to."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gwctl.routing.rule import PathKey
from gwctl.routing.virtualhost import ANY_HOST, FrontendKey, Routing, VirtualHost, covers, specificity
from gwctl.runtime.pipeline import advance
from tests.manifests import (
    CONTROLLER,
    Manifest,
    backend,
    gateway,
    gateway_class,
    http_route,
    listener,
    prefix_rule,
    random_listeners,
    random_routes,
    service,
    tcp_route,
)
from tests.pipeline import build_pipeline, parse

KEY = FrontendKey("default", "gateway", 80)


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("*", "a.test", True),
        ("*", "*.test", True),
        ("*", "", True),
        ("a.test", "a.test", True),
        ("a.test", "x.a.test", False),
        ("a.test", "*.a.test", False),
        ("*.a.test", "x.a.test", True),
        ("*.a.test", "y.x.a.test", True),
        ("*.a.test", "a.test", False),
        ("*.a.test", "xa.test", False),
        ("*.a.test", "*.a.test", True),
        ("*.a.test", "*.x.a.test", True),
        ("*.x.a.test", "*.a.test", False),
    ],
)
def test_covers(pattern: str, host: str, expected: bool) -> None:
    assert covers(pattern, host) == expected


def test_specificity() -> None:
    hosts = ["*", "*.test", "*.a.test", "*.long.name.test", "a.test", "x.a.test"]
    assert sorted(set(hosts), key=specificity) == hosts


def routing(*manifests: Manifest) -> Routing:
    return build_pipeline([gateway_class(), *manifests]).routing


@pytest.mark.parametrize(
    ("host", "owner"),
    [
        ("a.test", "exact"),
        ("x.a.test", "wild"),
        ("*.a.test", "wild"),
        ("*.x.a.test", "wild"),
        ("y.x.a.test", "wild"),
        ("*.test", "any"),
        ("b.test", "any"),
        ("*", "any"),
    ],
)
def test_a_host_belongs_to_the_most_specific_listener(host: str, owner: str) -> None:
    listeners = [listener("any", 80), listener("wild", 80, "*.a.test"), listener("exact", 80, "a.test")]
    found = routing(gateway(listeners)).frontends[KEY].owner(host)
    assert found is not None and found.listener == owner


def test_no_listener_owns_a_host_that_none_covers() -> None:
    assert routing(gateway([listener("exact", 80, "a.test")])).frontends[KEY].owner("b.test") is None


def test_every_listener_has_its_own_host_even_without_routes() -> None:
    found = routing(gateway([listener("any", 80), listener("wild", 80, "*.a.test")]))
    assert set(found.hosts[KEY]) == {"*", "*.a.test"}
    assert not any(found.paths.values())


def test_a_route_at_two_listeners_serves_each_host_once() -> None:
    listeners = [listener("wide", 80, "*.test"), listener("narrow", 80, "*.a.test")]
    found = routing(gateway(listeners), http_route("r", [prefix_rule("/x")], ("b.test", "x.a.test")))
    assert {host: owner.listener.listener for host, owner in found.hosts[KEY].items()} == {
        "*.test": "wide",
        "*.a.test": "narrow",
        "b.test": "wide",
        "x.a.test": "narrow",
    }
    assert all(len(paths[PathKey("prefix", "/x")]) == 1 for paths in found.paths.values() if paths)


def test_routes_of_one_host_share_its_paths_in_their_order() -> None:
    found = routing(
        gateway([listener("http", 80, "a.test")]),
        http_route("b", [prefix_rule("/x"), prefix_rule("/y")]),
        http_route("a", [prefix_rule("/x/")]),
    )
    (host,) = found.paths
    assert isinstance(host, VirtualHost)
    names = {path.value: [item.rule.name for item in items] for path, items in found.paths[host].items()}
    assert names == {"/x": ["default/a/0", "default/b/0"], "/y": ["default/b/1"]}


def test_refused_listeners_and_gateways_have_no_frontend() -> None:
    one, other = listener("one", 80), listener("other", 80)
    found = routing(gateway([one, other, listener("good", 81)]), gateway([listener("udp", 53, protocol="UDP")], "udp"))
    assert set(found.frontends) == {FrontendKey("default", "gateway", 81)}
    assert set(found.hosts) == set(found.frontends)


def test_tcp_frontends() -> None:
    found = routing(
        gateway([listener("tcp", 80, protocol="TCP"), listener("none", 81, protocol="TCP")]),
        tcp_route("b", [backend("web")], ({"name": "gateway", "sectionName": "tcp"},)),
        tcp_route("a", [backend("web")], ({"name": "gateway", "sectionName": "tcp"},)),
        service("web"),
    )
    rule = found.tcp[KEY]
    assert rule is not None and rule.name == "default/a/0"
    assert found.tcp[FrontendKey("default", "gateway", 81)] is None
    assert found.hosts == {}


@settings(deadline=None, max_examples=30)
@given(st.randoms(use_true_random=True))  # a state takes more choices than Hypothesis would draw itself
def test_what_differs_from_the_last_routing_is_said(random: Random) -> None:
    fixed = parse([gateway_class(), gateway(random_listeners(random, 80)), service("s")])
    pipeline = advance(None, {**fixed, **parse(random_routes(random, ["s"], 5))}, CONTROLLER)
    for _ in range(4):
        new = parse(random_routes(random, ["s"], 5))
        some = random.sample(sorted(new), 2)
        before = pipeline.routing
        pipeline = advance(pipeline, {ref: random.choice([new[ref], None]) for ref in some}, CONTROLLER)
        after = pipeline.routing
        assert after.changed is not None
        for host in {*before.paths, *after.paths}:
            old, now = before.paths.get(host, {}), after.paths.get(host, {})
            differing = {(host, path) for path in {*old, *now} if old.get(path) != now.get(path)}
            assert differing <= after.changed


@settings(deadline=None)
@given(
    st.sets(st.sampled_from(["", "*.a.test", "*.x.a.test", "*.test", "a.test", "x.a.test", "b.test"]), min_size=1),
    st.sampled_from(
        ["a.test", "x.a.test", "y.x.a.test", "b.test", "*.a.test", "*.y.x.a.test", "*", "test", ".a.test", ""]
    ),
)
def test_a_host_is_the_most_specific_listeners(hostnames: set[str], host: str) -> None:
    listeners = [listener(f"l{index}", 80, hostname) for index, hostname in enumerate(sorted(hostnames))]
    (frontend,) = build_pipeline([gateway_class(), gateway(listeners)]).routing.frontends.values()
    covering = [node for node in frontend.listeners if covers(node.hostname or ANY_HOST, host)]
    best = max(covering, key=lambda node: specificity(node.hostname or ANY_HOST), default=None)
    assert frontend.owner(host) == (best.key if best is not None else None)
