"""GRPCRoutes: what a match means for a request, and the order of rules, criterion by criterion."""

from __future__ import annotations

from typing import Any

import pytest

from gwctl.graph.node import ServicePort
from gwctl.routing.matcher import find_rule
from gwctl.routing.request import Request
from gwctl.routing.rule import Backend, Candidate, PathKey, ValueMatch, build_candidates
from gwctl.routing.virtualhost import FrontendKey
from tests.manifests import Manifest, backend, gateway, gateway_class, grpc_route, http_route, listener, service
from tests.pipeline import build_pipeline


def candidates(*routes: Manifest) -> list[Candidate]:
    """Give the candidates of routes, in their order."""
    graph = build_pipeline([gateway_class(), gateway([listener("http", 80)]), service("web"), *routes]).graph
    found = [candidate for node in graph.routes.values() for candidate in build_candidates(node)]
    return sorted(found, key=lambda candidate: candidate.order)


def route(name: str, *matches: Manifest, created: str = "") -> Manifest:
    """A route with one rule."""
    manifest = grpc_route(name, [{"matches": list(matches)}])
    manifest["metadata"] |= {"creationTimestamp": created} if created else {}
    return manifest


def call(service: str = "", method: str = "", kind: str = "Exact", headers: int = 0) -> Manifest:
    """A match; the service and the method are left out where they are empty."""
    match: dict[str, Any] = {"headers": [{"name": f"h{number}", "value": "1"} for number in range(headers)]}
    if service or method:
        named = {"service": service, "method": method}
        match["method"] = {"type": kind, **{key: text for key, text in named.items() if text}}
    return match


REGEX = "RegularExpression"


# Each first match has less of everything that comes after the criterion.
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (call("a.B"), call("", "Echo", headers=2)),
        (call("a.B"), call("a.*and.more", "E.*", REGEX, headers=2)),
        (call("a.*", kind=REGEX), call("", "Echo", headers=2)),
        (call("a.B"), call(headers=2)),
        (call("a.B", "Echo"), call("a.B", headers=2)),
        (call("a.*b", "", REGEX), call("a.*", "Echo", REGEX, headers=2)),
        (call("a.*", "Ech.*", REGEX), call("a.*", "E.*", REGEX, headers=2)),
        (call("", "Echo"), call("", "Ech.*", REGEX, headers=2)),
        (call("", "E.*", REGEX), call(headers=2)),
        (call("a.B", "Echo", headers=2), call("a.B", "Echo", headers=1)),
        (call(headers=1), call()),
    ],
)
def test_each_criterion_decides_alone(first: Manifest, second: Manifest) -> None:
    # The second route is the older one.
    found = candidates(route("z", first), route("a", second, created="2020-01-01T00:00:00Z"))
    assert [candidate.rule.route.name for candidate in found] == ["z", "a"]


def test_age_then_name_then_place_decide_the_rest() -> None:
    one, two = "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"
    found = candidates(
        route("c", call("a.B"), created=two),
        route("b", call("a.B"), call("a.B"), created=two),
        route("z", call("a.B"), created=one),
    )
    assert [(c.rule.route.name, c.order[-1]) for c in found] == [("z", 0), ("b", 0), ("b", 1), ("c", 0)]


@pytest.mark.parametrize(
    ("match", "path", "place"),
    [
        (call("a.B", "Echo"), PathKey("exact", "/a.B/Echo"), PathKey("exact", "/a.B/Echo")),
        (call("a.B"), PathKey("prefix", "/a.B"), PathKey("prefix", "/a.B")),
        (call("", "Echo"), PathKey("regex", "/[^/]+/Echo"), PathKey("prefix", "")),
        (
            call("a.*", "", REGEX),
            PathKey("regex", r"(?=/[^/]+/[^/]+\z)/(?:a.*)/(?:[^/]+)"),
            PathKey("prefix", ""),
        ),
        (call(), PathKey("prefix", ""), PathKey("prefix", "")),
        ({"method": {"type": REGEX, "service": "", "method": ""}}, PathKey("prefix", ""), PathKey("prefix", "")),
    ],
)
def test_a_method_is_a_path(match: Manifest, path: PathKey, place: PathKey) -> None:
    (candidate,) = candidates(route("r", match))
    assert (candidate.match.path, candidate.place) == (path, place)
    assert candidate.match.method == ""


def test_headers_are_conditions_of_which_the_first_of_a_name_counts() -> None:
    headers = [
        {"name": "Version", "value": "2 ü"},
        {"name": "b", "type": REGEX, "value": ".*"},
        {"name": "version", "value": "3"},
    ]
    (candidate,) = candidates(route("r", {"headers": headers}))
    assert candidate.match.headers == (ValueMatch("b", ".*", True), ValueMatch("version", "2 ü", False))


def test_backends_speak_http2() -> None:
    (candidate,) = candidates(grpc_route("r", [{"backendRefs": [backend("web", weight=2), backend("missing")]}]))
    assert candidate.rule.backends == (Backend(2, ServicePort("default", "web", 80), protocol="h2"), Backend(1, None))


def test_a_service_asks_for_http2_by_its_app_protocol() -> None:
    h2c = service("h2c")
    h2c["spec"]["ports"][0]["appProtocol"] = "kubernetes.io/h2c"
    ws = service("ws")
    ws["spec"]["ports"][0]["appProtocol"] = "kubernetes.io/ws"
    (candidate,) = candidates(h2c, ws, http_route("r", [{"backendRefs": [backend("h2c"), backend("ws")]}]))
    assert [item.protocol for item in candidate.rule.backends] == ["h2", None]


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/a.B/Echo", "both"),
        ("/a.B/Other", "service"),
        ("/a.C/Echo", "service-expression"),
        ("/b.B/Echo", "method"),
        ("/b.B/Eat", "method-expression"),
        ("/b.B/Run", "all"),
        ("/b.B/Run/Away", "all"),
        ("/", "all"),
    ],
)
def test_the_most_specific_rule_takes_a_request(path: str, rule: str) -> None:
    matches = {
        "all": call(),
        "method-expression": call("", "E.*", REGEX),
        "method": call("", "Echo"),
        "service-expression": call("a[.].*", "", REGEX),
        "service": call("a.B"),
        "both": call("a.B", "Echo"),
    }
    manifest = grpc_route("r", [{"matches": [match]} for match in matches.values()])
    routing = build_pipeline([gateway_class(), gateway([listener("http", 80)]), manifest]).routing
    verdict = find_rule(routing, FrontendKey("default", "gateway", 80), Request("POST", "a.com", path))
    assert verdict.candidate is not None
    assert list(matches)[verdict.candidate.rule.index] == rule
