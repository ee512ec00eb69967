"""The graph as a whole: built upon a previous one it equals one built anew, and order means nothing."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gwctl.api.parse import Resource
from gwctl.api.ref import Ref
from gwctl.graph.build import build_graph
from gwctl.graph.node import Graph
from gwctl.snapshot import Snapshot
from tests.certificates import make_authority, make_pair, tls_secret
from tests.graph.manifests import CONTROLLER, GATEWAY, read, read_all
from tests.manifests import backend_tls_policy, config_map, validation

NAMES = st.sampled_from(["a", "b"])
NAMESPACES = st.sampled_from(["default", "default", "n"])
TIMES = st.sampled_from([None, "2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z"])
HOSTS = st.sampled_from(["a.com", "x.a.com", "*.a.com", "*.x.a.com", "b.com"])
PORTS = st.sampled_from([80, 81])


def some(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(parts)


def maybe(
    required: dict[str, st.SearchStrategy[Any]], **optional: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


def manifest(kind: str, spec: st.SearchStrategy[Any]) -> Any:
    return some(
        kind=st.just(kind),
        metadata=maybe({"name": NAMES}, namespace=NAMESPACES, creationTimestamp=TIMES),
        spec=spec,
    )


ALLOWED = st.sampled_from(
    [
        {},
        {"namespaces": {"from": "All"}},
        {"namespaces": {"from": "All"}, "kinds": [{"kind": "TCPRoute"}]},
        {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"t": "x"}}}},
    ]
)
LISTENERS = st.lists(
    st.one_of(
        maybe({"protocol": st.just("HTTP"), "port": PORTS, "allowedRoutes": ALLOWED}, hostname=HOSTS),
        some(protocol=st.sampled_from(["TCP", "UDP"]), port=PORTS, allowedRoutes=ALLOWED),
        maybe({"protocol": st.just("TLS"), "port": PORTS, "tls": st.just({"mode": "Passthrough"})}, hostname=HOSTS),
        some(
            protocol=st.sampled_from(["HTTPS", "TLS"]),
            port=PORTS,
            tls=some(certificateRefs=st.lists(maybe({"name": NAMES}, namespace=NAMESPACES), min_size=1, max_size=2)),
        ),
    ),
    min_size=1,
    max_size=4,
).map(lambda items: [{**item, "name": f"l{index}"} for index, item in enumerate(items)])
BACKENDS = st.lists(
    maybe({"name": NAMES, "port": PORTS}, namespace=NAMESPACES, weight=st.integers(0, 2)),
    min_size=1,
    max_size=2,
)
PARENTS = st.lists(
    maybe({"name": st.sampled_from(["a", "a", "a", "b", "c"])}, namespace=NAMESPACES),
    min_size=1,
    max_size=2,
    unique_by=lambda item: (item["name"], item.get("namespace")),
)
CLOSED = st.just([{"type": "ExtensionRef", "extensionRef": {"group": "g", "kind": "K", "name": "n"}}])
RULES = st.lists(
    maybe({"backendRefs": BACKENDS}, timeouts=st.just({"request": "1s"}), filters=CLOSED), min_size=1, max_size=2
)
RULES_OF_GRPC = st.lists(maybe({"backendRefs": BACKENDS}, sessionPersistence=st.just({}), filters=CLOSED), max_size=2)
HTTP_ROUTES = manifest(
    "HTTPRoute", maybe({"parentRefs": PARENTS, "rules": RULES}, hostnames=st.lists(HOSTS, max_size=2))
)
GRPC_ROUTES = manifest(
    "GRPCRoute", maybe({"parentRefs": PARENTS}, rules=RULES_OF_GRPC, hostnames=st.lists(HOSTS, max_size=2))
)
TCP_ROUTES = manifest("TCPRoute", some(parentRefs=PARENTS, rules=st.tuples(some(backendRefs=BACKENDS)).map(list)))
TLS_ROUTES = manifest(
    "TLSRoute",
    maybe(
        {"parentRefs": PARENTS, "rules": st.tuples(some(backendRefs=BACKENDS)).map(list)},
        hostnames=st.lists(HOSTS, max_size=2),
    ),
)
SERVICES = manifest(
    "Service",
    maybe(
        {
            "ports": st.sampled_from(
                [
                    [],
                    [{"port": 80, "name": "p"}],
                    [{"port": 80, "name": "q"}],
                    [{"port": 80, "name": "p"}, {"port": 81, "name": "q", "appProtocol": "x"}],
                ]
            )
        },
        type=st.sampled_from(["ClusterIP", "ClusterIP", "ExternalName"]),
    ),
)
SLICES = some(
    kind=st.just("EndpointSlice"),
    metadata=some(name=NAMES, labels=NAMES.map(lambda name: {"kubernetes.io/service-name": name})),
    addressType=st.just("IPv4"),
    ports=st.sampled_from([[{"name": "p", "port": 8080}], [{"name": "q", "port": 8081}]]),
    endpoints=st.lists(st.sampled_from([{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]), max_size=2),
)
SPACES = some(
    kind=st.just("Namespace"),
    metadata=some(name=st.sampled_from(["default", "n"]), labels=st.sampled_from([{}, {"t": "x"}])),
)
PAIRS = [make_pair("a.com"), make_pair("a.com", serial=2), make_pair("b.com")]
SECRETS = st.builds(
    lambda pair, key, name, namespace: tls_secret(name, pair.certificate, key.key, namespace),
    st.sampled_from(PAIRS),
    st.sampled_from(PAIRS),
    NAMES,
    NAMESPACES,
)
POLICIES = st.builds(
    lambda name, service, trusted, section, day: backend_tls_policy(
        name, service, *trusted, section=section, created=f"2026-01-0{day}T00:00:00Z"
    ),
    NAMES,
    NAMES,
    st.lists(NAMES, min_size=1, max_size=2),
    st.sampled_from(["", "", "p"]),
    st.integers(1, 3),
)
CONFIG_MAPS = st.builds(
    lambda name, number: config_map(name, *[make_authority("one"), make_authority("two")][:number]),
    NAMES,
    st.integers(0, 2),
)
VALIDATIONS = st.builds(
    lambda names, mode: validation(*names, mode=mode),
    st.lists(NAMES, min_size=1, max_size=2, unique=True),
    st.sampled_from(["AllowValidOnly", "AllowValidOnly", "AllowInsecureFallback"]),
)
FRONTENDS = st.builds(
    lambda default, port, own: {"default": default, "perPort": [{"port": port, "tls": own}]},
    st.one_of(st.just({}), VALIDATIONS),
    PORTS,
    st.one_of(st.just({}), VALIDATIONS),
)
GRANT = {
    "from": [
        {"group": "gateway.networking.k8s.io", "kind": kind, "namespace": namespace}
        for kind, namespace in (("HTTPRoute", "default"), ("Gateway", "default"), ("GRPCRoute", "n"))
    ],
    "to": [{"group": "", "kind": "Service"}, {"group": "", "kind": "Secret"}],
}
ROUTES = (HTTP_ROUTES, GRPC_ROUTES, GRPC_ROUTES, TCP_ROUTES, TCP_ROUTES, TLS_ROUTES, TLS_ROUTES)
SMALL = st.one_of(*ROUTES, SERVICES, SLICES, SPACES, SECRETS, POLICIES, POLICIES, CONFIG_MAPS).map(read)
LARGE = st.one_of(
    manifest("GatewayClass", some(controllerName=st.sampled_from([CONTROLLER, "example.com/other"]))),
    manifest(
        "Gateway",
        maybe(
            {"gatewayClassName": NAMES, "listeners": LISTENERS},
            tls=maybe(
                {},
                backend=some(clientCertificateRef=maybe({"name": NAMES}, namespace=NAMESPACES)),
                frontend=FRONTENDS,
            ),
        ),
    ),
    manifest("ReferenceGrant", st.just(GRANT)),
).map(read)
RESOURCES = st.one_of(SMALL, SMALL, LARGE)
# Something for the others to meet.
BASE = read_all(
    """
{kind: GatewayClass, metadata: {name: a}, spec: {controllerName: example.com/gwctl}}
---
kind: Gateway
metadata: {name: a}
spec:
  gatewayClassName: a
  listeners:
  - {name: l0, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
  - {name: l1, port: 81, protocol: TCP, allowedRoutes: {namespaces: {from: All}}}
  - name: l2
    port: 80
    protocol: HTTP
    hostname: '*.a.com'
    allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {t: x}}}}
  - {name: l3, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: a}, {name: b, namespace: n}]}}
---
{kind: Service, metadata: {name: a}, spec: {ports: [{port: 80, name: p}]}}
---
kind: HTTPRoute
metadata: {name: r}
spec: {parentRefs: [{name: a}], rules: [{backendRefs: [{name: a, port: 80}]}]}
---
kind: TCPRoute
metadata: {name: z}
spec: {parentRefs: [{name: a}], rules: [{backendRefs: [{name: b, port: 80}]}]}
"""
)
# Batches of changes; True takes the object away.
BATCHES = st.lists(
    st.lists(st.tuples(st.one_of(SMALL, SMALL, SMALL, SMALL, LARGE), st.booleans()), min_size=1, max_size=3),
    min_size=1,
    max_size=8,
)


def assert_same(one: Graph, other: Graph) -> None:
    assert one == other
    assert one.problems == other.problems
    assert one.index is not None
    assert other.index is not None
    assert one.index == other.index


@settings(max_examples=200, deadline=None)
@given(st.lists(RESOURCES, max_size=12), BATCHES)
def test_incremental_build_equals_a_full_one(start: list[Resource], batches: list[list[tuple[Resource, bool]]]) -> None:
    snapshot = Snapshot.of([*BASE, *start])
    graph = build_graph(snapshot, CONTROLLER)
    assert graph.changed_routes is None
    for batch in batches:
        changes = {resource.ref: None if gone else resource for resource, gone in batch}
        snapshot = snapshot.apply(changes)
        before, graph = graph, build_graph(snapshot, CONTROLLER, graph, frozenset(changes))
        assert_same(graph, build_graph(snapshot, CONTROLLER))
        if graph.changed_routes is not None:
            assert set(graph.changed_routes) == differing(before.routes, graph.routes)
            assert set(graph.changed_endpoints or ()) == differing(before.endpoints, graph.endpoints)


def differing(old: Mapping[Any, object], new: Mapping[Any, object]) -> set[Any]:
    return {key for key in {*old, *new} if old.get(key) != new.get(key)}


@settings(max_examples=100, deadline=None)
@given(st.lists(RESOURCES, max_size=20), st.randoms(use_true_random=False))
def test_order_of_resources_means_nothing(resources: list[Resource], chance: random.Random) -> None:
    unique = list({resource.ref: resource for resource in [*BASE, *resources]}.values())
    graph = build_graph(Snapshot.of(unique), CONTROLLER)
    chance.shuffle(unique)
    assert_same(graph, build_graph(Snapshot.of(unique), CONTROLLER))


WORLD = (
    GATEWAY
    + """
kind: HTTPRoute
metadata: {name: r}
spec: {parentRefs: [{name: gw}], rules: [{backendRefs: [{name: s, port: 80}]}]}
---
kind: HTTPRoute
metadata: {name: q}
spec: {parentRefs: [{name: gw}], rules: [{backendRefs: [{name: t, port: 80}]}]}
---
{kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}
---
{kind: EndpointSlice, metadata: {name: e, labels: {kubernetes.io/service-name: s}}, addressType: IPv4,
 ports: [{port: 1}], endpoints: [{addresses: [10.0.0.1]}]}
---
"""
)


def step(changes: dict[Ref, Resource | None]) -> tuple[Graph, Graph]:
    """The graph before and after the changes, the latter built upon the former."""
    snapshot = Snapshot.of(read_all(WORLD))
    before = build_graph(snapshot, CONTROLLER)
    after = build_graph(snapshot.apply(changes), CONTROLLER, before, frozenset(changes))
    return before, after


def test_endpoint_change_touches_no_route() -> None:
    (entry,) = read_all(
        "{kind: EndpointSlice, metadata: {name: e, labels: {kubernetes.io/service-name: s}}, "
        "addressType: IPv4, "
        "ports: [{port: 1}], endpoints: [{addresses: [10.0.0.2]}]}"
    )
    before, after = step({entry.ref: entry})
    assert after.changed_routes == frozenset()
    assert [port.name for port in after.changed_endpoints or ()] == ["s"]
    assert all(after.routes[ref] is node for ref, node in before.routes.items())


def test_renamed_port_of_a_service_finds_other_endpoints() -> None:
    (service,) = read_all("{kind: Service, metadata: {name: s}, spec: {ports: [{port: 80, name: other}]}}")
    before, after = step({service.ref: service})
    assert [len(found) for found in before.endpoints.values()] == [1]
    assert [len(found) for found in after.endpoints.values()] == [0]
    assert after.changed_routes == frozenset()


def test_service_that_appears_heals_the_routes_that_wait_for_it() -> None:
    (service,) = read_all("{kind: Service, metadata: {name: t}, spec: {ports: [{port: 80}]}}")
    before, after = step({service.ref: service})
    assert [item.reason for item in before.problems] == ["BackendNotFound"]
    assert after.problems == ()
    assert after.changed_routes == frozenset({Ref("HTTPRoute", "default", "q")})


def test_removed_route_is_among_the_changed_and_is_no_longer_counted() -> None:
    ref = Ref("HTTPRoute", "default", "r")
    before, after = step({ref: None})
    assert after.changed_routes == frozenset({ref})
    assert [node.attached_routes for node in before.listeners.values()] == [2]
    assert [node.attached_routes for node in after.listeners.values()] == [1]
    assert [node.attached_routes for gateway in after.gateways.values() for node in gateway.listeners] == [1]
    assert after.endpoints == {}


def test_gateway_change_rebuilds_all() -> None:
    (gateway,) = read_all(
        "{kind: Gateway, metadata: {name: gw}, spec: {gatewayClassName: gwctl, "
        "listeners: [{name: http, port: 81, protocol: HTTP}]}}"
    )
    assert step({gateway.ref: gateway})[1].changed_routes is None


def test_object_that_did_not_really_change_changes_nothing() -> None:
    resources = read_all(WORLD)
    before, after = step({resource.ref: resource for resource in resources})
    assert after.changed_routes == frozenset()
    assert after == before


def test_namespace_matters_only_where_a_selector_reads_it() -> None:
    (namespace,) = read_all("{kind: Namespace, metadata: {name: n, labels: {t: x}}}")
    assert step({namespace.ref: namespace})[1].changed_routes == frozenset()


def test_other_settings_rebuild_all() -> None:
    snapshot = Snapshot.of(read_all(WORLD))
    before = build_graph(snapshot, CONTROLLER)
    assert build_graph(snapshot, "example.com/other", before, frozenset()).gateways == {}
    in_cluster = build_graph(snapshot, CONTROLLER, before, frozenset(), service_namespace="gwctl-system")
    assert in_cluster.changed_routes is None
