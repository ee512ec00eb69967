"""The reference matcher: conditions one by one, and how hosts and candidates are chosen."""

from __future__ import annotations

import pytest

from gwctl.routing.matcher import Verdict, find_rule, match_fits, path_fits
from gwctl.routing.request import Request
from gwctl.routing.rule import Match, PathKey, ValueMatch
from gwctl.routing.virtualhost import FrontendKey
from tests.manifests import Manifest, gateway, gateway_class, http_route, listener, prefix_rule
from tests.pipeline import build_pipeline


@pytest.mark.parametrize(
    ("kind", "value", "fits", "fits_not"),
    [
        ("exact", "/", ["/"], ["", "//", "/a"]),
        ("exact", "/a", ["/a"], ["/A", "/a/", "/a/b", "/ab", "/%61"]),
        ("exact", "/a/", ["/a/"], ["/a", "/a//"]),
        ("prefix", "", ["/", "/a", "//"], ["", "*"]),
        ("prefix", "/v2", ["/v2", "/v2/", "/v2/x", "/v2//"], ["/v2x", "/v", "/V2", "/x/v2", "/v2;x", "/v2%2Fx"]),
        ("prefix", "/a%20b", ["/a%20b", "/a%20b/c"], ["/a b", "/a+b"]),
        ("regex", "/a|/b", ["/a", "/b"], ["/a/b", "/ab", "x/b"]),
        ("regex", "/a.*", ["/a", "/a/b", "/ab"], ["/", "/A"]),
        ("regex", "(?i)/a", ["/a", "/A"], ["/a/"]),
        ("regex", "^/a$", ["/a"], ["/a\n", "/a/"]),
        ("regex", "", [""], ["/"]),
    ],
)
def test_paths(kind: str, value: str, fits: list[str], fits_not: list[str]) -> None:
    path = PathKey(kind, value)  # type: ignore[arg-type]
    assert [item for item in (*fits, *fits_not) if path_fits(path, item)] == fits


def fits(request: Request, method: str = "", header: ValueMatch | None = None, query: ValueMatch | None = None) -> bool:
    return match_fits(
        Match(PathKey("prefix", ""), method, (header,) if header else (), (query,) if query else ()), request
    )


def test_method() -> None:
    assert fits(Request("GET", "a.test", "/"), "GET")
    assert fits(Request("GET", "a.test", "/"))
    assert not fits(Request("get", "a.test", "/"), "GET")


@pytest.mark.parametrize(
    ("value", "is_regex", "headers", "expected"),
    [
        ("1", False, (), False),
        ("1", False, (("X", "1"),), True),
        ("1", False, (("x", "11"),), False),
        ("a", False, (("x", "A"),), False),
        ("1", False, (("x", "1"), ("x", "2")), False),
        ("1,2", False, (("x", "1"), ("x", "2")), True),
        ("[0-9]+", True, (("x", "12"),), True),
        ("[0-9]+", True, (("x", "12a"),), False),
        ("1|2", True, (("x", "12"),), False),
        # nothing of another header, whatever the expression
        ("[^a]*", True, (("x", "b"), ("y", "a")), True),
        ("(?s).*secret.*", True, (("x", "b"), ("y", "secret")), False),
        ("(?s).*x.*", True, (("x", "b"),), False),
        ("(?m)^secret$", True, (("x", "b"), ("y", "secret")), False),
        ("", True, (("x", ""),), True),
        ("", True, (), False),
        ("^$", True, (("x", ""),), True),
        ("^b$", True, (("x", "b"),), True),
        (".", True, (("x", "Ã©"),), False),
        ("..", True, (("x", "Ã©"),), True),
    ],
)
def test_headers(value: str, is_regex: bool, headers: tuple[tuple[str, str], ...], expected: bool) -> None:
    request = Request("GET", "a.test", "/", headers=headers)
    assert fits(request, header=ValueMatch("x", value, is_regex)) == expected


@pytest.mark.parametrize(
    ("name", "value", "is_regex", "query", "expected"),
    [
        ("q", "a b", False, "q=a+b", True),
        ("q", "a+b", False, "q=a+b", False),
        ("q", "é", False, "q=%C3%A9", True),
        ("q", "é", False, "q=%E9", False),
        ("Q", "1", False, "q=1", False),
        ("q", "2", False, "q=1&q=2", False),
        ("q'%", "1", False, "q'%25=1", True),
        ("q", "a.b", True, "q=a%0Ab", False),
        ("q", "(?s)a.b", True, "q=a%0Ab", True),
        ("q", ".*", True, "p=1", False),
        ("q", ".*", True, "q", True),
    ],
)
def test_queries(name: str, value: str, is_regex: bool, query: str, expected: bool) -> None:
    request = Request("GET", "a.test", "/", query)
    assert fits(request, query=ValueMatch(name, value, is_regex)) == expected


KEY = FrontendKey("default", "gateway", 80)


def decide(manifests: list[Manifest], request: Request) -> tuple[str | None, str | None]:
    """Give the host and the rule that take a request."""
    verdict = find_rule(build_pipeline([gateway_class(), *manifests]).routing, KEY, request)
    host = verdict.host.host if verdict.host else None
    return host, verdict.candidate.rule.name if verdict.candidate else None


@pytest.mark.parametrize(
    ("host", "taken_by"),
    [
        ("a.test", "a.test"),
        ("A.TEST.:80", "a.test"),
        ("x.a.test", "*.a.test"),
        ("y.x.a.test", "*.x.a.test"),
        ("z.y.x.a.test", "*.x.a.test"),
        ("b.test", "*.test"),
        ("test", None),
        ("xa.test", "*.test"),
        ("", None),
        ("[::1]", None),
    ],
)
def test_the_most_specific_host_takes_a_request(host: str, taken_by: str | None) -> None:
    names = ("*.test", "*.x.a.test", "a.test", "*.a.test")
    routes = [http_route(f"r{index}", [{}], (name,)) for index, name in enumerate(names)]
    found = decide([gateway([listener("http", 80)]), *routes], Request("GET", host, "/"))
    rule = f"default/r{names.index(taken_by)}/0" if taken_by else None
    assert found == (taken_by or "*", rule)


def test_no_listener_for_the_host() -> None:
    manifests = [gateway([listener("http", 80, "a.test")]), http_route("r", [{}])]
    assert decide(manifests, Request("GET", "b.test", "/")) == (None, None)
    routing = build_pipeline([gateway_class(), *manifests]).routing
    assert find_rule(routing, FrontendKey("default", "gateway", 81), Request("GET", "a.test", "/")) == Verdict(
        None, None
    )


def test_a_host_whose_rules_do_not_fit_gives_nothing_to_a_wider_one() -> None:
    listeners = [listener("any", 80), listener("exact", 80, "a.test")]
    wide = http_route("wide", [{}], parents=({"name": "gateway", "sectionName": "any"},))
    narrow = http_route("narrow", [prefix_rule("/x")], parents=({"name": "gateway", "sectionName": "exact"},))
    manifests = [gateway(listeners), wide, narrow]
    assert decide(manifests, Request("GET", "a.test", "/")) == ("a.test", None)
    assert decide(manifests, Request("GET", "a.test", "/x")) == ("a.test", "default/narrow/0")
    assert decide(manifests, Request("GET", "b.test", "/x")) == ("*", "default/wide/0")


def test_what_was_passed_over() -> None:
    rules = [
        {"matches": [{"path": {"value": "/a"}, "method": "POST"}, {"path": {"type": "Exact", "value": "/a/b"}}]},
        prefix_rule("/"),
        {"matches": [{"headers": [{"name": "x", "value": "1"}]}]},
    ]
    routing = build_pipeline([gateway_class(), gateway([listener("http", 80)]), http_route("r", rules)]).routing
    verdict = find_rule(routing, KEY, Request("GET", "a.test", "/a"))
    assert verdict.candidate is not None and verdict.candidate.rule.index == 1
    assert [item.rule.index for item in verdict.passed_over] == [0, 0, 2]
    verdict = find_rule(routing, KEY, Request("GET", "a.test", ""))
    assert verdict.candidate is None and len(verdict.passed_over) == 4


def test_a_regular_expression_that_goes_astray_fits_nothing() -> None:
    match = Match(PathKey("prefix", ""), "", (ValueMatch("x", "(a+)+[bc]", regex=True),), ())
    assert not match_fits(match, Request("GET", "a.test", "/", headers=(("x", "a" * 1000 + "!"),)))
