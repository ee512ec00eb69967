"""Filters: what is written becomes values, and two sets of filters become one that does what both do in turn."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gwctl.api.httproute import HTTPRouteFilter, HTTPRouteRetry
from gwctl.graph.node import REFUSED, FilterNode, ServicePort
from gwctl.routing.effect import change_headers
from gwctl.routing.filter import (
    NO_FILTERS,
    Auth,
    Filters,
    HeaderFilter,
    Mirror,
    PathChange,
    Redirect,
    Retry,
    Rewrite,
    build_filters,
    build_retry,
)

PREFIX = PathChange("prefix", "/x")
FULL = PathChange("full", "/y")


def build(*filters: dict[str, Any]) -> Filters:
    return build_filters(FilterNode(HTTPRouteFilter.model_validate(item)) for item in filters)


def request_headers(**changes: Any) -> dict[str, Any]:
    return {"type": "RequestHeaderModifier", "requestHeaderModifier": changes}


def rewrite(**fields: Any) -> dict[str, Any]:
    return {"type": "URLRewrite", "urlRewrite": fields}


def test_headers() -> None:
    changes = {"set": [{"name": "A", "value": "1"}], "add": [{"name": "b", "value": "2"}], "remove": ["C"]}
    headers = HeaderFilter((("A", "1"),), (("b", "2"),), ("C",))
    assert build(request_headers(**changes)) == Filters(request_headers=headers)
    response = {"type": "ResponseHeaderModifier", "responseHeaderModifier": changes}
    assert build(response) == Filters(response_headers=headers)
    assert build() is NO_FILTERS


@pytest.mark.parametrize(
    ("fields", "redirect"),
    [
        ({}, Redirect("", "", None, None, 302)),
        ({"statusCode": 308, "port": 80}, Redirect("", "", 80, None, 308)),
        ({"scheme": "https", "hostname": "b.test"}, Redirect("https", "b.test", None, None, 302)),
        ({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/y"}}, Redirect(path=FULL)),
        (
            {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": ""}},
            Redirect(path=PathChange("prefix", "")),
        ),
    ],
)
def test_redirect(fields: dict[str, Any], redirect: Redirect) -> None:
    assert build({"type": "RequestRedirect", "requestRedirect": fields}).redirect == redirect


def test_rewrite() -> None:
    path = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}
    assert build(rewrite(hostname="b.test", path=path)).rewrite == Rewrite("b.test", PREFIX)
    assert build(rewrite(hostname="b.test")).rewrite == Rewrite("b.test")
    assert build(rewrite(path=path)).rewrite == Rewrite("", PREFIX)


SHADOW = ServicePort("default", "shadow", 80)


def mirror(**fields: Any) -> FilterNode:
    item = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "shadow", "port": 80}, **fields}}
    return FilterNode(HTTPRouteFilter.model_validate(item), SHADOW)


@pytest.mark.parametrize(
    ("fields", "share"),
    [
        ({}, (100, 100)),
        ({"percent": 0}, (0, 100)),
        ({"percent": 33}, (33, 100)),
        ({"fraction": {"numerator": 5}}, (5, 100)),
        ({"fraction": {"numerator": 5, "denominator": 1000}}, (5, 1000)),
    ],
)
def test_mirror(fields: dict[str, Any], share: tuple[int, int]) -> None:
    (found,) = build_filters([mirror(**fields)]).mirrors
    assert found == Mirror(SHADOW, *share, NO_FILTERS)


NO_TLS = SHADOW._replace(tls=REFUSED)
"""A Service whose BackendTLSPolicy cannot be followed."""


@pytest.mark.parametrize("service", [None, NO_TLS])
def test_a_mirror_that_leads_nowhere_is_left_out(service: ServicePort | None) -> None:
    assert build_filters([FilterNode(mirror().resource, service)]) is NO_FILTERS


@pytest.mark.parametrize(("service", "asked"), [(SHADOW, SHADOW), (None, None), (NO_TLS, None)])
def test_a_question_that_leads_nowhere_is_kept(service: ServicePort | None, asked: ServicePort | None) -> None:
    http = {"path": "/check/", "allowedHeaders": ["X-B", "x-a", "x-b"]}
    auth = {"protocol": "HTTP", "backendRef": {"name": "shadow", "port": 80}, "http": http}
    item = HTTPRouteFilter.model_validate({"type": "ExternalAuth", "externalAuth": auth})
    (found,) = build_filters([FilterNode(item, service)]).auths
    assert found == Auth(asked, "/check", ("x-a", "x-b"), ())


def test_what_is_redirected_is_not_mirrored() -> None:
    item = HTTPRouteFilter.model_validate({"type": "RequestRedirect", "requestRedirect": {"hostname": "b.test"}})
    away = build_filters([mirror(), FilterNode(item)])
    assert (away.mirrors, build_filters([FilterNode(item), mirror()]).mirrors) == ((), ())
    assert build_filters([mirror()]).then(away).mirrors == ()


def test_a_copy_is_changed_by_the_filters_before_its_mirror() -> None:
    def node(item: dict[str, Any]) -> FilterNode:
        return FilterNode(HTTPRouteFilter.model_validate(item))

    change = node(request_headers(remove=["a"]))
    of_rule = build_filters([mirror(), node(rewrite(hostname="b.test")), mirror(), change])
    of_backend = build_filters([mirror(), node(rewrite(hostname="c.test")), mirror()])
    first, second, third, fourth = of_rule.then(of_backend).mirrors
    assert first.filters == NO_FILTERS
    assert second.filters == Filters(rewrite=Rewrite("b.test"))
    assert third.filters == Filters(HeaderFilter(remove=("a",)), rewrite=Rewrite("b.test"))
    assert fourth.filters == Filters(HeaderFilter(remove=("a",)), rewrite=Rewrite("c.test"))


@pytest.mark.parametrize(
    ("fields", "retry"),
    [
        ({}, Retry(1, 0, ())),
        ({"attempts": 3, "codes": [503, 500, 503], "backoff": "1s500ms"}, Retry(3, 1500, (500, 503))),
        ({"attempts": 0, "codes": [503]}, None),
    ],
)
def test_retry(fields: dict[str, Any], retry: Retry | None) -> None:
    assert build_retry(HTTPRouteRetry.model_validate(fields)) == retry
    assert build_retry(None) is None


def test_of_two_hosts_the_later_one_counts() -> None:
    host = request_headers(set=[{"name": "HOST", "value": "a.test"}])
    assert build(host, rewrite(hostname="b.test")).rewrite == Rewrite("b.test")
    assert build(rewrite(hostname="b.test"), host).rewrite == Rewrite("")


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        (Filters(rewrite=Rewrite("a", PREFIX)), Filters(rewrite=Rewrite("b")), Filters(rewrite=Rewrite("b", PREFIX))),
        (
            Filters(rewrite=Rewrite("a", PREFIX)),
            Filters(rewrite=Rewrite("", FULL)),
            Filters(rewrite=Rewrite("a", FULL)),
        ),
        (Filters(rewrite=Rewrite("a")), Filters(redirect=Redirect()), Filters(redirect=Redirect())),
        (Filters(redirect=Redirect("https")), Filters(redirect=Redirect()), Filters(redirect=Redirect())),
        (Filters(redirect=Redirect()), NO_FILTERS, Filters(redirect=Redirect())),
    ],
)
def test_a_later_path_or_host_replaces_an_earlier_one(first: Filters, second: Filters, both: Filters) -> None:
    assert first.then(second) == both


NAMES = st.sampled_from(["a", "A", "b", "B", "c"])
PAIRS = st.lists(st.tuples(NAMES, st.sampled_from("123")), max_size=4)
CHANGES = st.builds(
    HeaderFilter,
    PAIRS.map(lambda pairs: tuple({name.lower(): (name, value) for name, value in pairs}.values())),
    PAIRS.map(tuple),
    st.lists(NAMES, max_size=3).map(tuple),
)


@given(PAIRS, CHANGES, CHANGES)
def test_two_changes_of_headers_are_one(
    headers: list[tuple[str, str]], first: HeaderFilter, second: HeaderFilter
) -> None:
    both = Filters(request_headers=first).then(Filters(request_headers=second)).request_headers
    in_turn = change_headers(change_headers(headers, first), second)
    at_once = change_headers(headers, both)
    for name in "abc":
        assert [item for item in at_once if item[0] == name] == [item for item in in_turn if item[0] == name]
