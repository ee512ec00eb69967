"""What a rule means, and the order of rules: every criterion of the specification by itself."""

from __future__ import annotations

from typing import Any

import pytest

from gwctl.graph.node import ServicePort
from gwctl.routing.filter import NO_FILTERS, Filters, HeaderFilter
from gwctl.routing.rule import Backend, Candidate, PathKey, Rule, ValueMatch, build_candidates
from tests.manifests import Manifest, backend, gateway, gateway_class, http_route, listener, service
from tests.pipeline import build_pipeline


def candidates(*routes: Manifest) -> list[Candidate]:
    """Give the candidates of routes, in their order."""
    manifests = [gateway_class(), gateway([listener("http", 80)]), service("web"), *routes]
    graph = build_pipeline(manifests).graph
    found = [candidate for node in graph.routes.values() for candidate in build_candidates(node)]
    return sorted(found, key=lambda candidate: candidate.order)


def route(name: str, *matches: Manifest, created: str = "", namespace: str = "default") -> Manifest:
    """A route with one rule."""
    manifest = http_route(name, [{"matches": list(matches)}], (), ({"name": "gateway", "namespace": "default"},))
    manifest["metadata"] |= {"namespace": namespace, **({"creationTimestamp": created} if created else {})}
    return manifest


def exact(path: str, **more: Any) -> Manifest:
    return {"path": {"type": "Exact", "value": path}, **more}


def prefix(path: str, **more: Any) -> Manifest:
    return {"path": {"type": "PathPrefix", "value": path}, **more}


def regex(path: str, **more: Any) -> Manifest:
    return {"path": {"type": "RegularExpression", "value": path}, **more}


def values(*names: str) -> list[Manifest]:
    return [{"name": name, "value": "1"} for name in names]


# Each first match has less of everything that comes after the criterion.
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (exact("/a"), regex("/a", method="GET", headers=values("x"), queryParams=values("q"))),
        (exact("/a"), prefix("/a/long/path", method="GET", headers=values("x"), queryParams=values("q"))),
        (regex("/.*"), prefix("/a/long/path", method="GET", headers=values("x"), queryParams=values("q"))),
        (prefix("/a/b"), prefix("/a", method="GET", headers=values("x"), queryParams=values("q"))),
        (prefix("/a"), prefix("/", method="GET")),
        (prefix("/a", method="GET"), prefix("/a", headers=values("x", "y"), queryParams=values("q"))),
        (prefix("/a", headers=values("x", "y")), prefix("/a", headers=values("x"), queryParams=values("q", "r"))),
        (prefix("/a", headers=values("x")), prefix("/a", queryParams=values("q", "r"))),
        (prefix("/a", queryParams=values("q", "r")), prefix("/a", queryParams=values("q"))),
        (prefix("/a", queryParams=values("q")), prefix("/a")),
        (regex("/a", method="GET"), regex("/a.*", headers=values("x"))),
        (regex("/a", headers=values("x")), regex("/a.*")),
    ],
)
def test_precedence_of_matches(first: Manifest, second: Manifest) -> None:
    """The second match is that of an older route with a smaller name, which must not help it."""
    one, other = route("z", first, created="2026-01-02T00:00:00Z"), route("a", second, created="2026-01-01T00:00:00Z")
    assert [candidate.rule.route.name for candidate in candidates(one, other)] == ["z", "a"]


@pytest.mark.parametrize(
    "path", [prefix("/a"), prefix("/a/"), exact("/a"), regex("/a")], ids=["prefix", "slash", "exact", "regex"]
)
def test_precedence_of_equal_matches(path: Manifest) -> None:
    """The oldest, whatever its time zone; then namespace, name, rule and match. No timestamp is oldest."""
    oldest = route("z", path, namespace="z")
    old = route("y", path, created="2026-01-01T23:30:00-01:00", namespace="y")
    young_b = route("a", path, created="2026-01-02T01:00:00Z", namespace="b")
    young_a = route("b", path, path, created="2026-01-02T01:00:00Z", namespace="a")
    young_a["spec"]["rules"] *= 2
    first_a = route("a", path, created="2026-01-02T01:00:00Z", namespace="a")
    found = candidates(young_b, young_a, first_a, old, oldest)
    assert [(item.rule.route.namespace, item.rule.route.name, *item.order[-2:]) for item in found] == [
        ("z", "z", 0, 0),
        ("y", "y", 0, 0),
        ("a", "a", 0, 0),
        ("a", "b", 0, 0),
        ("a", "b", 0, 1),
        ("a", "b", 1, 0),
        ("a", "b", 1, 1),
        ("b", "a", 0, 0),
    ]


def test_ties_are_decided_by_namespace_and_name_as_one_text() -> None:
    """``-`` and ``.`` come before ``/`` in it, so ``team-a/x`` before ``team/x``."""
    routes = [route("x", prefix("/a"), namespace=namespace) for namespace in ("team", "team-a", "teams")]
    found = [candidate.rule.route.namespace for candidate in candidates(*routes)]
    assert found == ["team-a", "team", "teams"]


def test_prefixes_count_without_their_final_slash() -> None:
    one, other = route("b", prefix("/a/"), created="2026-01-01T00:00:00Z"), route("a", prefix("/a"))
    assert [candidate.rule.route.name for candidate in candidates(one, other)] == ["a", "b"]


def test_a_repeated_header_counts_once() -> None:
    """In whatever case it is written; query parameters differ by case."""
    headers = [*values("X-One", "x-one"), {"name": "a", "type": "RegularExpression", "value": "."}]
    (found,) = candidates(route("r", prefix("/", headers=headers, queryParams=values("q", "Q", "q"))))
    assert found.match.headers == (ValueMatch("a", ".", True), ValueMatch("x-one", "1", False))
    assert found.match.queries == (ValueMatch("Q", "1", False), ValueMatch("q", "1", False))
    assert found.order[3:5] == (-2, -2)


@pytest.mark.parametrize(
    ("match", "path", "is_conditional"),
    [
        ({}, PathKey("prefix", ""), False),
        (prefix("/"), PathKey("prefix", ""), False),
        (prefix("/a/"), PathKey("prefix", "/a"), False),
        (exact("/"), PathKey("exact", "/"), False),
        (exact("/a/"), PathKey("exact", "/a/"), False),
        (regex("/a/"), PathKey("regex", "/a/"), False),
        ({"method": "GET"}, PathKey("prefix", ""), True),
        ({"headers": values("x")}, PathKey("prefix", ""), True),
        ({"queryParams": values("q")}, PathKey("prefix", ""), True),
    ],
)
def test_match(match: Manifest, path: PathKey, is_conditional: bool) -> None:
    (found,) = candidates(route("r", match))
    assert found.match.path == path
    assert bool(found.match.method or found.match.headers or found.match.queries) == is_conditional


def rule(**fields: Any) -> Rule:
    (found,) = candidates(http_route("r", [fields]))
    return found.rule


def test_a_rule_without_matches_takes_everything() -> None:
    assert [item.match.path for item in candidates(http_route("r", [{}]))] == [PathKey("prefix", "")]


def test_backends_without_weight_are_left_out_and_missing_ones_kept() -> None:
    refs = [backend("web", weight=3), backend("gone", weight=2), backend("web", weight=0), backend("gone", weight=0)]
    assert rule(backendRefs=refs).backends == (Backend(3, ServicePort("default", "web", 80)), Backend(2, None))
    assert rule(backendRefs=[backend("web", weight=0)]).backends == ()
    assert rule().backends == ()


def test_filters_of_a_rule_and_of_its_backends() -> None:
    def change(value: str) -> list[Manifest]:
        modifier = {"set": [{"name": "A", "value": value}]}
        return [{"type": "RequestHeaderModifier", "requestHeaderModifier": modifier}]

    found = rule(filters=change("1"), backendRefs=[backend("web"), backend("web") | {"filters": change("2")}])
    assert found.filters == Filters(HeaderFilter((("A", "1"),)))
    assert [item.filters for item in found.backends] == [NO_FILTERS, Filters(HeaderFilter((("A", "2"),)))]


def test_the_name_of_a_rule() -> None:
    assert rule().name == "default/r/0"
