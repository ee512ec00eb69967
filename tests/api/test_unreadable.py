"""What stands in for Gateways and routes that cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

from gwctl.api.grpcroute import GRPCRoute
from gwctl.api.httproute import HTTPRoute
from gwctl.api.parse import UNKNOWN_FIELD, fall_back, is_unreadable, parse_resource
from gwctl.api.tcproute import TCPRoute
from gwctl.api.tlsroute import TLSRoute
from gwctl.api.unreadable import UnreadableGateway, UnreadableHTTPRoute, UnreadableRoute

ROUTES: dict[str, type] = {"HTTPRoute": HTTPRoute, "GRPCRoute": GRPCRoute, "TCPRoute": TCPRoute, "TLSRoute": TLSRoute}
BAD_RULES = [{"backendRefs": [{"name": "web", "port": -1}]}]
GOOD_RULES = [{"backendRefs": [{"name": "web", "port": 80}]}]


def route(kind: str = "HTTPRoute", rules: object = BAD_RULES, **more: Any) -> dict[str, Any]:
    spec = {"parentRefs": [{"name": "gw"}], "rules": rules, **more}
    metadata = {"name": "r", "namespace": "n", "uid": "u", "generation": 3}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def gateway(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "gw"},
        "spec": {"gatewayClassName": "gwctl", **spec},
    }


@pytest.mark.parametrize("kind", ROUTES)
def test_of_a_route_its_name_and_its_parents_are_known(kind: str) -> None:
    resource, invalid = parse_resource(route(kind))
    assert isinstance(resource, UnreadableRoute)
    assert isinstance(resource, ROUTES[kind])
    assert is_unreadable(resource)
    assert (resource.metadata.uid, resource.metadata.generation) == ("u", 3)
    assert [parent.name for parent in resource.spec.parent_refs] == ["gw"]
    assert resource.spec.rules == ()
    assert resource.wrong == tuple((item.field, item.message) for item in invalid)
    assert [field for field, _ in resource.wrong] == ["spec.rules[0].backendRefs[0].port"]


@pytest.mark.parametrize(
    ("refs", "names"),
    [
        ([{"name": "a"}, {"name": ""}, {"name": "b", "new": 1, "port": None}, 7], ["a", "b"]),
        ([{"name": f"g{index}"} for index in range(40)], [f"g{index}" for index in range(32)]),
        ("gw", []),
        (None, []),
    ],
)
def test_parents_that_can_be_read_count_beside_those_that_cannot(refs: object, names: list[str]) -> None:
    resource = parse_resource(route(parentRefs=refs)).resource
    assert isinstance(resource, UnreadableHTTPRoute)
    assert [parent.name for parent in resource.spec.parent_refs] == names


def test_fields_that_nobody_knows_are_not_what_is_wrong() -> None:
    resource, invalid = parse_resource(route(new=1))
    assert isinstance(resource, UnreadableRoute)
    assert [item.field for item in invalid if item.reason == UNKNOWN_FIELD] == ["spec.new"]
    assert [field for field, _ in resource.wrong] == ["spec.rules[0].backendRefs[0].port"]


def test_of_a_gateway_its_class_is_known() -> None:
    resource = parse_resource(gateway(listeners=[{"name": "http"}])).resource
    assert isinstance(resource, UnreadableGateway)
    assert (resource.spec.gateway_class_name, resource.spec.listeners) == ("gwctl", ())
    assert [field for field, _ in resource.wrong] == ["spec.listeners[0].port", "spec.listeners[0].protocol"]


@pytest.mark.parametrize(
    "manifest",
    [
        gateway(gatewayClassName=1),
        {**gateway(), "spec": None},
        {**route(), "metadata": {"name": "No Name"}},
        {**route(), "metadata": None},
        {**route(), "kind": "ReferenceGrant"},
    ],
)
def test_nothing_stands_for_what_cannot_be_told_of(manifest: dict[str, Any]) -> None:
    resource, invalid = parse_resource(manifest)
    assert resource is None
    assert invalid


def test_what_was_read_before_stays() -> None:
    good, bad, worse = (parse_resource(route(rules=rules)).resource for rules in (GOOD_RULES, BAD_RULES, 1))
    assert fall_back(bad, good) is good
    assert fall_back(good, bad) is good
    assert fall_back(worse, bad) is worse
    assert fall_back(bad, None) is bad
