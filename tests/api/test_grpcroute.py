"""GRPCRoutes: the CRD's defaults, and every mistake with its field."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from gwctl.api.grpcroute import GRPCRoute, GRPCRouteMatch
from gwctl.api.parse import UNKNOWN_FIELD, ParseResult, is_unreadable, parse_resource


def parse(spec: str, version: str = "v1") -> ParseResult:
    manifest: dict[str, Any] = {
        "apiVersion": f"gateway.networking.k8s.io/{version}",
        "kind": "GRPCRoute",
        "metadata": {"name": "r"},
        "spec": yaml.safe_load(spec),
    }
    return parse_resource(manifest)


def read(spec: str) -> GRPCRoute:
    result = parse(spec)
    assert result.invalid == ()
    assert isinstance(result.resource, GRPCRoute)
    return result.resource


def test_a_route_may_have_no_rule() -> None:
    assert read("{}").spec.rules == ()


@pytest.mark.parametrize("rule", ["{}", "{matches: []}", "{matches: [{}]}"])
def test_a_rule_without_matches_fits_everything(rule: str) -> None:
    assert read(f"rules: [{rule}]").spec.rules[0].matches == (GRPCRouteMatch(),)


def test_every_field_is_kept() -> None:
    spec = read(
        """
parentRefs: [{name: g, sectionName: grpc}]
hostnames: [grpc.example.com]
rules:
- name: all
  matches:
  - method: {service: foo.Bar, method: Login}
    headers: [{name: Version, value: 'ü;"'}, {name: x, type: RegularExpression, value: '[0-9]+'}]
  - method: {type: RegularExpression, service: 'foo\\..*'}
  filters:
  - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: A, value: b c}], remove: [x]}}
  - {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: A, value: b}]}}
  - {type: RequestMirror, requestMirror: {backendRef: {name: m, port: 1}, percent: 42}}
  - {type: RequestMirror, requestMirror: {backendRef: {name: n, port: 1}}}
  - {type: ExtensionRef, extensionRef: {group: x.y, kind: Z, name: n}}
  sessionPersistence: {sessionName: s, type: Header}
  backendRefs:
  - {name: s, port: 80, weight: 0, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [y]}}]}
"""
    ).spec
    (rule,) = spec.rules
    first, second = rule.matches
    assert first.method is not None
    assert (first.method.type, first.method.service, first.method.method) == ("Exact", "foo.Bar", "Login")
    assert [(header.type, header.name) for header in first.headers] == [
        ("Exact", "Version"),
        ("RegularExpression", "x"),
    ]
    assert second.method is not None
    assert (second.method.type, second.method.method) == ("RegularExpression", None)
    assert [item.type for item in rule.filters] == [
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestMirror",
        "ExtensionRef",
    ]
    assert rule.session_persistence is not None
    assert (rule.backend_refs[0].weight, len(rule.backend_refs[0].filters)) == (0, 1)


HEADERS = "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x]}}"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("rules: [{matches: [{method: {}}]}]", "spec.rules[0].matches[0].method"),
        ("rules: [{matches: [{method: {type: Prefix, service: a}}]}]", "spec.rules[0].matches[0].method.type"),
        ("rules: [{matches: [{method: {service: ''}}]}]", "spec.rules[0].matches[0].method.service"),
        ("rules: [{matches: [{method: {service: a/b}}]}]", "spec.rules[0].matches[0].method.service"),
        ("rules: [{matches: [{method: {service: a..b}}]}]", "spec.rules[0].matches[0].method.service"),
        ("rules: [{matches: [{method: {service: 1a}}]}]", "spec.rules[0].matches[0].method.service"),
        ("rules: [{matches: [{method: {service: ä}}]}]", "spec.rules[0].matches[0].method.service"),
        ("rules: [{matches: [{method: {method: a.b}}]}]", "spec.rules[0].matches[0].method.method"),
        ("rules: [{matches: [{method: {method: a/b}}]}]", "spec.rules[0].matches[0].method.method"),
        ("rules: [{matches: [{method: {method: ''}}]}]", "spec.rules[0].matches[0].method.method"),
        ("rules: [{matches: [{headers: [{name: 'a b', value: x}]}]}]", "spec.rules[0].matches[0].headers[0].name"),
        ("rules: [{matches: [{headers: [{name: a, value: ''}]}]}]", "spec.rules[0].matches[0].headers[0].value"),
        ("rules: [{matches: [{headers: [{name: a}]}]}]", "spec.rules[0].matches[0].headers[0].value"),
        (f"rules: [{{filters: [{HEADERS}, {HEADERS}]}}]", "spec.rules[0].filters"),
        ("rules: [{filters: [{type: RequestRedirect, requestRedirect: {}}]}]", "spec.rules[0].filters[0].type"),
        ("rules: [{filters: [{type: URLRewrite, urlRewrite: {}}]}]", "spec.rules[0].filters[0].type"),
        ("rules: [{filters: [{type: RequestMirror}]}]", "spec.rules[0].filters[0].requestMirror"),
        (
            "rules: [{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a}}}]}]",
            "spec.rules[0].filters[0].requestMirror.backendRef.port",
        ),
        ("rules: [{backendRefs: [{name: a}]}]", "spec.rules[0].backendRefs[0].port"),
        (
            "rules: [{backendRefs: [{name: a, port: 1, filters: [{type: CORS, cors: {}}]}]}]",
            "spec.rules[0].backendRefs[0].filters[0].type",
        ),
        (
            "rules: [{sessionPersistence: {type: Header, cookieConfig: {}}}]",
            "spec.rules[0].sessionPersistence.cookieConfig",
        ),
        ("parentRefs: [{name: a}, {name: a}]", "spec.parentRefs[1]"),
        ("hostnames: [A.com]", "spec.hostnames[0]"),
        ("hostnames: [1.2.3.4.]", "spec.hostnames[0]"),
    ],
)
def test_route_that_an_api_server_refuses(spec: str, field: str) -> None:
    result = parse(spec)
    assert is_unreadable(result.resource)
    assert {item.field for item in result.invalid} == {field}


def test_too_many_matches() -> None:
    matches = ", ".join(["{}"] * 64)
    result = parse(f"rules: [{{matches: [{matches}]}}, {{matches: [{matches}]}}, {{}}]")
    assert [(item.field, item.message) for item in result.invalid] == [
        ("spec.rules", "the rules have more than 128 matches in all")
    ]


@pytest.mark.parametrize("name", ["foo.Bar", ".foo.Bar", "_a._1", "B"])
def test_services_that_an_api_server_takes(name: str) -> None:
    assert read(f"rules: [{{matches: [{{method: {{service: {name}, method: _m1}}}}]}}]").spec.rules


def test_regular_expressions_may_hold_anything() -> None:
    assert read("rules: [{matches: [{method: {type: RegularExpression, service: 'a/(b', method: ''}}]}]").spec.rules


def test_what_only_an_httproute_has_is_an_unknown_field() -> None:
    result = parse("rules: [{timeouts: {request: 1s}}]")
    assert isinstance(result.resource, GRPCRoute)
    assert [(item.field, item.reason) for item in result.invalid] == [("spec.rules[0].timeouts", UNKNOWN_FIELD)]


@pytest.mark.parametrize("version", ["v1", "v1alpha2"])
def test_every_version_that_was_served_is_read(version: str) -> None:
    assert isinstance(parse("{}", version).resource, GRPCRoute)
