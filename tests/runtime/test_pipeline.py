"""The pure steps together: what is built upon the last value equals what is built anew."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from gwctl.api.ref import Ref
from gwctl.haproxy.plan import diff
from gwctl.runtime.pipeline import Pipeline, advance
from tests.certificates import make_authority, make_pair
from tests.manifests import (
    CONTROLLER,
    Manifest,
    allowed_listeners,
    attach_to_sets,
    backend_tls_policy,
    config_map,
    endpoints,
    gateway,
    gateway_class,
    listener,
    random_listener_sets,
    random_listeners,
    random_routes,
    random_tls_listeners,
    random_tls_routes,
    service,
    tcp_route,
)
from tests.pipeline import desired_state, parse

SERVICES = ["s1", "s2", "s3"]
AUTHORITIES = [make_authority("one"), make_authority("two")]
PAIRS = [make_pair("client.test"), make_pair("client.test", serial=2)]


def _random_objects(random: Random, listeners: list[Manifest]) -> list[Manifest]:
    """Some of the objects that a cluster may hold at one moment."""
    routes = random_routes(random, SERVICES, 5)
    routes = attach_to_sets(random, routes, 3)
    manifests = [*random.sample(routes, random.randint(0, 5))]
    manifests += random.sample(random_listener_sets(random, 80, 3, (81, 90)), random.randint(0, 3))
    for name in SERVICES:
        ports: list[dict[str, int] | int] = [80, 80, 81, {"p": 80}]
        if random.random() < 0.8:
            manifests.append(service(name, random.choice(ports)))
        manifests += endpoints(name, [("10.0.0.1", 80 + random.randint(0, 2))] * random.randint(0, 1))
    if random.random() < 0.5:
        manifests.append(tcp_route("t", [{"name": random.choice(SERVICES), "port": 80}]))
    tls_routes = random_tls_routes(random, SERVICES, 4)
    manifests += random.sample(tls_routes, random.randint(0, 4))
    if random.random() < 0.9:
        tcp = listener("tcp", 90, protocol="TCP")
        allowed = allowed_listeners(random.choice(["Same", "Same", "None"]))
        manifests.append(gateway([*(listeners if random.random() < 0.8 else listeners[:1]), tcp], **allowed))
        if random.random() < 0.7:
            manifests[-1]["spec"]["tls"] = {"backend": {"clientCertificateRef": {"name": "client"}}}
    manifests += _random_policies(random)
    return [gateway_class(), *manifests]


def _random_policies(random: Random) -> list[Manifest]:
    """Policies for backends, and what they and Gateways refer to."""
    manifests = [config_map(name, *random.sample(AUTHORITIES, random.randint(0, 2))) for name in ("a", "b")]
    manifests.append(random.choice(PAIRS).secret("client"))
    for number in range(random.randint(0, 4)):
        created = f"2026-01-0{random.randint(1, 3)}T00:00:00Z"
        target, trusted = random.choice(SERVICES), random.sample(["a", "b", "missing"], random.randint(1, 2))
        host, section = random.choice(["x.test", "y.test"]), random.choice(["", "", "p"])
        manifests.append(
            backend_tls_policy(f"p{number}", target, *trusted, hostname=host, section=section, created=created)
        )
    return manifests


def _assert_equal(one: Pipeline, other: Pipeline) -> None:
    assert one.routing.hosts == other.routing.hosts
    assert {host: paths for host, paths in one.routing.paths.items() if paths} == {
        host: paths for host, paths in other.routing.paths.items() if paths
    }
    assert one.routing.sni == other.routing.sni
    assert one.tables.rows == other.tables.rows
    assert one.tables.services == other.tables.services
    assert one.tables.uses == other.tables.uses
    assert one.graph.listeners == other.graph.listeners
    assert one.graph.listener_sets == other.graph.listener_sets
    assert set(one.problems) == set(other.problems)
    assert one.graph.policies == other.graph.policies


@settings(deadline=None, max_examples=60)
@given(st.randoms(use_true_random=True))  # a state takes more choices than Hypothesis would draw itself
def test_step_by_step_equals_all_at_once(random: Random) -> None:
    listeners = [*random_listeners(random, 80), *random_tls_listeners(random, 443)]
    there = parse(_random_objects(random, listeners))
    pipeline = advance(None, there, CONTROLLER)
    desired = desired_state(pipeline)
    for _ in range(4):
        after = parse(_random_objects(random, listeners))
        some = random.sample(sorted({*there, *after}), random.randint(1, len({*there, *after})))
        changes = {ref: after.get(ref) for ref in some if after.get(ref) != there.get(ref)}
        for ref, resource in changes.items():
            if resource is None:
                there.pop(Ref(*ref), None)
            else:
                there[ref] = resource
        pipeline = advance(pipeline, changes, CONTROLLER)
        _assert_equal(pipeline, advance(None, there, CONTROLLER))
        actual = desired.state
        desired = desired_state(pipeline, actual, desired)
        anew = desired_state(advance(None, there, CONTROLLER), actual)
        assert desired.state == anew.state
        assert (desired.state.tls, desired.state.pems) == (anew.state.tls, anew.state.pems)
        assert diff(desired.state, actual) == diff(anew.state, actual)
