"""What a manifest becomes: resources with the CRDs' defaults, and every mistake with its field."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gwctl.api.gateway import Gateway
from gwctl.api.httproute import HTTPRoute, HTTPRouteMatch, duration_milliseconds
from gwctl.api.parse import INVALID, UNKNOWN_FIELD, UNSUPPORTED_KIND, is_unreadable, parse_resource
from gwctl.api.ref import Ref
from gwctl.api.service import Service
from gwctl.api.tlsroute import TLSRoute

V1 = "gateway.networking.k8s.io/v1"


def route(spec: str, metadata: str = "{name: r}") -> dict[str, Any]:
    return {
        "apiVersion": V1,
        "kind": "HTTPRoute",
        "metadata": yaml.safe_load(metadata),
        "spec": yaml.safe_load(spec),
    }


def gateway(listeners: str, more: str = "{}") -> dict[str, Any]:
    spec = {"gatewayClassName": "c", "listeners": yaml.safe_load(listeners), **yaml.safe_load(more)}
    return {"apiVersion": V1, "kind": "Gateway", "metadata": {"name": "g"}, "spec": spec}


def wrong(manifest: object) -> list[tuple[str, str]]:
    result = parse_resource(manifest)
    assert result.resource is None or is_unreadable(result.resource)
    assert result.invalid
    return [(item.field, item.message) for item in result.invalid]


def fields(manifest: object) -> list[str]:
    return [field for field, _ in wrong(manifest)]


def read_route(spec: str) -> HTTPRoute:
    result = parse_resource(route(spec))
    assert result.invalid == ()
    assert isinstance(result.resource, HTTPRoute)
    return result.resource


def read_gateway(manifest: dict[str, Any]) -> Gateway:
    result = parse_resource(manifest)
    assert result.invalid == ()
    assert isinstance(result.resource, Gateway)
    return result.resource


def test_route_without_rules_has_one_that_takes_everything() -> None:
    (rule,) = read_route("{}").spec.rules
    assert rule.matches == (HTTPRouteMatch(),)
    assert (rule.matches[0].path.type, rule.matches[0].path.value) == ("PathPrefix", "/")


@pytest.mark.parametrize("rule", ["{}", "{matches: []}", "{matches: [{}]}", "{matches: [{path: {}}]}"])
def test_rule_without_matches_has_the_default_match(rule: str) -> None:
    assert read_route(f"rules: [{rule}]").spec.rules[0].matches == (HTTPRouteMatch(),)


def test_defaults_of_references_and_matches() -> None:
    spec = read_route(
        "{parentRefs: [{name: g}], rules: [{backendRefs: [{name: s, port: 80}], "
        "matches: [{headers: [{name: a, value: b}]}], "
        "filters: [{type: RequestRedirect, requestRedirect: {}}]}]}"
    ).spec
    parent, rule = spec.parent_refs[0], spec.rules[0]
    assert (parent.group, parent.kind, parent.namespace) == ("gateway.networking.k8s.io", "Gateway", None)
    ref = rule.backend_refs[0]
    assert (ref.group, ref.kind, ref.namespace, ref.weight) == ("", "Service", None, 1)
    assert rule.matches[0].headers[0].type == "Exact"
    assert rule.matches[0].path.value == "/"
    redirect = rule.filters[0].request_redirect
    assert redirect is not None
    assert redirect.status_code == 302


def test_listener_defaults_to_routes_of_its_own_namespace() -> None:
    resource = read_gateway(gateway("[{name: a, port: 80, protocol: HTTP}]"))
    allowed = resource.spec.listeners[0].allowed_routes
    assert (allowed.namespaces.from_, allowed.kinds) == ("Same", ())
    kinds = "[{name: a, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: HTTPRoute}]}}]"
    allowed = read_gateway(gateway(kinds)).spec.listeners[0].allowed_routes
    assert (allowed.namespaces.from_, allowed.kinds[0].group) == ("Same", "gateway.networking.k8s.io")


def test_what_only_the_experimental_channel_refuses_is_let_through() -> None:
    first, second = read_route(
        "{rules: [{name: a, matches: [{headers: [{name: a, value: ' b'}]}]}, {name: a, filters: ["
        "{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: a, value: 'b;  ü'}]}}]}]}"
    ).spec.rules
    assert (first.name, second.name) == ("a", "a")
    assert first.matches[0].headers[0].value == " b"
    modifier = second.filters[0].response_header_modifier
    assert modifier is not None
    assert modifier.set[0].value == "b;  ü"


def test_every_filter_and_field_of_a_rule_is_kept() -> None:
    rule = read_route(
        """
rules:
- name: all
  matches:
  - path: {type: PathPrefix, value: /a}
    method: GET
    queryParams: [{name: q, value: 'ü;"', type: Exact}]
  filters:
  - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: A, value: b c}], remove: [x]}}
  - {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: A, value: b}]}}
  - {type: RequestMirror, requestMirror: {backendRef: {name: m, port: 1}, fraction: {numerator: 1}}}
  - {type: RequestMirror, requestMirror: {backendRef: {name: m, port: 1}, percent: 42}}
  - {type: URLRewrite, urlRewrite: {hostname: a.b, path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}
  - {type: CORS, cors: {allowOrigins: ['https://*.a.com:80'], allowMethods: [GET], allowCredentials: true}}
  - {type: ExtensionRef, extensionRef: {group: x.y, kind: Z, name: n}}
  - {type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: a, port: 1}, http: {path: /p}}}
  timeouts: {request: 1h30m, backendRequest: 500ms}
  retry: {codes: [500, 502], attempts: 3, backoff: 10ms}
  sessionPersistence:
    {sessionName: s, type: Cookie, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}
  backendRefs:
  - {name: s, port: 80, weight: 0, filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}
"""
    ).spec.rules[0]
    assert [item.type for item in rule.filters] == [
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestMirror",
        "URLRewrite",
        "CORS",
        "ExtensionRef",
        "ExternalAuth",
    ]
    mirror = rule.filters[2].request_mirror
    assert mirror is not None
    assert mirror.fraction is not None
    assert mirror.fraction.denominator == 100
    cors = rule.filters[5].cors
    assert cors is not None
    assert cors.max_age == 5
    assert rule.timeouts is not None
    assert rule.retry is not None
    assert rule.retry.codes == (500, 502)
    assert rule.session_persistence is not None
    assert rule.backend_refs[0].weight == 0
    assert rule.matches[0].query_params[0].value == 'ü;"'


def test_gateway_keeps_what_later_issues_need() -> None:
    resource = read_gateway(
        gateway(
            "[{name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}]",
            """
addresses: [{value: 10.0.0.1}, {type: Hostname, value: a.b}, {value: ''}, {}]
infrastructure: {labels: {a.b/c: d}, annotations: {e: f}, parametersRef: {group: g, kind: K, name: n}}
allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {a: b}}}}
tls:
  backend: {clientCertificateRef: {name: c}}
  frontend:
    default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}
    perPort: [{port: 443, tls: {}}]
""",
        )
    )
    assert resource.spec.listeners[0].tls is not None
    assert resource.spec.listeners[0].tls.certificate_refs[0].kind == "Secret"
    assert [address.type for address in resource.spec.addresses] == [
        "IPAddress",
        "Hostname",
        "IPAddress",
        "IPAddress",
    ]
    assert resource.spec.tls is not None


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("foo", "must be an absolute path"),
        ("/a//b", "must not contain '//'"),
        ("/a/./b", "must not contain '/./'"),
        ("/a/../b", "must not contain '/../'"),
        ("/a%2fb", "must not contain '%2f'"),
        ("/a%2Fb", "must not contain '%2F'"),
        ("/a#b", "must not contain '#'"),
        ("/a/..", "must not end with '/..'"),
        ("/a/.", "must not end with '/.'"),
        ("/a b", "must only contain"),
        ("/ä", "must only contain"),
        ("/a;\\b", "must only contain"),
        ('/"', "must only contain"),
        ("/%zz", "must only contain"),
        ("/a\n", "must only contain"),
        ("", "must be an absolute path"),
    ],
)
@pytest.mark.parametrize("kind", ["Exact", "PathPrefix"])
def test_path_that_an_api_server_refuses(kind: str, path: str, message: str) -> None:
    spec = {"rules": [{}, {"matches": [{}, {"path": {"type": kind, "value": path}}]}]}
    found = wrong(route(json.dumps(spec)))
    assert found[0][0] == "spec.rules[1].matches[1].path.value"
    assert any(message in text for _, text in found)


@pytest.mark.parametrize("path", ["/", "/a;b", "/a%20b", "/%C3%BC", "/a:b@c,d=e$f&g!h'(i)*+", "/.a", "/a..", "/~"])
def test_path_that_an_api_server_takes(path: str) -> None:
    spec = {"rules": [{"matches": [{"path": {"type": "Exact", "value": path}}]}]}
    assert read_route(json.dumps(spec)).spec.rules[0].matches[0].path.value == path


def test_regular_expression_path_may_hold_anything() -> None:
    spec = '{rules: [{matches: [{path: {type: RegularExpression, value: "^a //[^ ]#"}}]}]}'
    assert read_route(spec).spec.rules[0].matches[0].path.type == "RegularExpression"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("{hostnames: [UPPER.com]}", "spec.hostnames[0]"),
        ("{hostnames: ['a.*.com']}", "spec.hostnames[0]"),
        ("{hostnames: ['*']}", "spec.hostnames[0]"),
        ("{hostnames: a.com}", "spec.hostnames"),
        ("{rules: []}", "spec.rules"),
        ("{rules: [{matches: [{method: get}]}]}", "spec.rules[0].matches[0].method"),
        ("{rules: [{matches: [{path: {type: Prefix}}]}]}", "spec.rules[0].matches[0].path.type"),
        (
            "{rules: [{matches: [{headers: [{name: 'a b', value: c}]}]}]}",
            "spec.rules[0].matches[0].headers[0].name",
        ),
        ("{rules: [{backendRefs: [{name: s}]}]}", "spec.rules[0].backendRefs[0].port"),
        ("{rules: [{backendRefs: [{name: s, port: '80'}]}]}", "spec.rules[0].backendRefs[0].port"),
        ("{rules: [{backendRefs: [{name: s, port: 0}]}]}", "spec.rules[0].backendRefs[0].port"),
        ("{rules: [{backendRefs: [{name: s, port: 65536}]}]}", "spec.rules[0].backendRefs[0].port"),
        ("{rules: [{backendRefs: [{port: 80}]}]}", "spec.rules[0].backendRefs[0].name"),
        (
            "{rules: [{backendRefs: [{name: s, port: 80, weight: -1}]}]}",
            "spec.rules[0].backendRefs[0].weight",
        ),
        (
            "{rules: [{backendRefs: [{name: s, port: 80, weight: true}]}]}",
            "spec.rules[0].backendRefs[0].weight",
        ),
        ("{rules: [{filters: [{type: Bogus}]}]}", "spec.rules[0].filters[0].type"),
        ("{rules: [{filters: [{type: URLRewrite}]}]}", "spec.rules[0].filters[0].urlRewrite"),
        (
            "{rules: [{filters: [{type: URLRewrite, urlRewrite: {}, cors: {}}]}]}",
            "spec.rules[0].filters[0].cors",
        ),
        (
            "{rules: [{filters: [{type: URLRewrite, urlRewrite: {}}, {type: URLRewrite, urlRewrite: {}}]}]}",
            "spec.rules[0].filters",
        ),
        (
            """
rules:
- filters: [{type: URLRewrite, urlRewrite: {}}, {type: RequestRedirect, requestRedirect: {}}]
""",
            "spec.rules[0].filters",
        ),
        (
            """
rules:
- matches: [{}, {}]
  filters:
  - {type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}
""",
            "spec.rules[0].filters[0].requestRedirect.path.replacePrefixMatch",
        ),
        (
            "rules: [{filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath}}}]}]",
            "spec.rules[0].filters[0].requestRedirect.path.replaceFullPath",
        ),
        (
            "{rules: [{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 304}}]}]}",
            "spec.rules[0].filters[0].requestRedirect.statusCode",
        ),
        (
            """
rules:
- filters:
  - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}, {name: a, value: c}]}}
""",
            "spec.rules[0].filters[0].requestHeaderModifier.set[1]",
        ),
        (
            "{rules: [{timeouts: {request: 1s, backendRequest: 1m}}]}",
            "spec.rules[0].timeouts.backendRequest",
        ),
        ("{rules: [{timeouts: {request: 1.5s}}]}", "spec.rules[0].timeouts.request"),
        ("{parentRefs: [{name: g}, {name: g}]}", "spec.parentRefs[1]"),
        ("{parentRefs: [{name: g}, {name: g, sectionName: s}]}", "spec.parentRefs[1]"),
        ("{parentRefs: [{name: g, namespace: 'A B'}]}", "spec.parentRefs[0].namespace"),
    ],
)
def test_route_that_an_api_server_refuses(spec: str, field: str) -> None:
    assert fields(route(spec)) == [field]


@pytest.mark.parametrize(
    ("listeners", "field"),
    [
        ("[]", "spec.listeners"),
        ("[{name: a, port: 80, protocol: TCP, hostname: a.b}]", "spec.listeners[0].hostname"),
        ("[{name: a, port: 80, protocol: HTTP, tls: {options: {a: b}}}]", "spec.listeners[0].tls"),
        (
            "[{name: a, port: 80, protocol: HTTP}, {name: a, port: 81, protocol: HTTP}]",
            "spec.listeners[1].name",
        ),
        ("[{name: A, port: 80, protocol: HTTP}]", "spec.listeners[0].name"),
        ("[{name: a, port: 80}]", "spec.listeners[0].protocol"),
        ("[{name: a, port: 80, protocol: HTTPS, tls: {}}]", "spec.listeners[0].tls"),
        (
            "[{name: a, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Some}}}]",
            "spec.listeners[0].allowedRoutes.namespaces.from",
        ),
    ],
)
def test_listener_that_an_api_server_refuses(listeners: str, field: str) -> None:
    assert fields(gateway(listeners)) == [field]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ("addresses: [{value: nope}]", "spec.addresses[0].value"),
        ("addresses: [{value: fe80::1%eth0}]", "spec.addresses[0].value"),
        ("addresses: [{value: 10.0.0.1}, {value: 10.0.0.1}]", "spec.addresses[1].value"),
        ("addresses: [{type: Hostname, value: 'a b'}]", "spec.addresses[0].value"),
        ("infrastructure: {annotations: {'a b': c}}", "spec.infrastructure.annotations[a b]"),
    ],
)
def test_gateway_that_an_api_server_refuses(more: str, field: str) -> None:
    assert fields(gateway("[{name: a, port: 80, protocol: HTTP}]", more)) == [field]


def test_unknown_fields_are_reported_and_the_resource_stands() -> None:
    result = parse_resource(route("{hostname: a.com, rules: [{match: [], backendRefs: [{name: s, port: 1}]}]}"))
    assert isinstance(result.resource, HTTPRoute)
    assert result.resource.spec.hostnames == ()
    found = {(item.field, item.message, item.reason) for item in result.invalid}
    assert found == {
        ("spec.hostname", "unknown field", UNKNOWN_FIELD),
        ("spec.rules[0].match", "unknown field", UNKNOWN_FIELD),
    }


def test_unknown_field_does_not_hide_what_is_wrong_beside_it() -> None:
    manifest = route("{bogus: 1, rules: [{bogus: 1, matches: [{path: {value: a}}]}]}")
    assert set(fields(manifest)) == {
        "spec.bogus",
        "spec.rules[0].bogus",
        "spec.rules[0].matches[0].path.value",
    }


def test_null_is_an_absent_field() -> None:
    manifest = route(
        "{rules: [{matches: null, backendRefs: [{name: s, port: 80, weight: null}]}]}",
        "{name: r, creationTimestamp: null, labels: null}",
    )
    result = parse_resource({**manifest, "status": None})
    assert result.invalid == ()
    assert isinstance(result.resource, HTTPRoute)
    assert result.resource.spec.rules[0].backend_refs[0].weight == 1
    assert fields(route("{rules: [{backendRefs: [{name: null, port: 80}]}]}")) == ["spec.rules[0].backendRefs[0].name"]


def test_creation_time_from_text_and_from_yaml() -> None:
    expected = datetime(2026, 1, 31, 12, tzinfo=UTC)
    texts = ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00"]
    for value in (*texts, datetime(2026, 1, 31, 12)):  # noqa: DTZ001
        manifest = route("{}")
        manifest["metadata"]["creationTimestamp"] = value
        resource = parse_resource(manifest).resource
        assert resource is not None
        assert resource.metadata.creation_timestamp == expected
        assert resource.age == ("2026-01-31T12:00:00.000000+00:00", "default/r")
    assert fields(route("{}", "{name: r, creationTimestamp: soon}")) == ["metadata.creationTimestamp"]


@pytest.mark.parametrize("name", ["", "A", "a b", "a;b", "a/b", "ä", "a\n", "-a", "a" * 254, '"', "\\", "%"])
def test_wild_names_are_refused(name: str) -> None:
    assert fields(route("{}", json.dumps({"name": name}))) == ["metadata.name"]
    assert "metadata.namespace" in fields(route("{}", json.dumps({"name": "r", "namespace": name or "A"})))


def test_service_names_are_labels() -> None:
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a.b"}, "spec": {}}
    assert fields(manifest) == ["metadata.name"]


def test_namespace_defaults_and_cluster_scoped_kinds_have_none() -> None:
    assert parse_resource(route("{}")).resource.ref == Ref("HTTPRoute", "default", "r")  # type: ignore[union-attr]
    manifest = {
        "apiVersion": V1,
        "kind": "GatewayClass",
        "metadata": {"name": "c", "namespace": "x"},
        "spec": {"controllerName": "a.b/c"},
    }
    assert parse_resource(manifest).resource.ref == Ref("GatewayClass", "", "c")  # type: ignore[union-attr]


def test_service_keeps_ports_and_ignores_the_rest() -> None:
    manifest = yaml.safe_load(
        """
apiVersion: v1
kind: Service
metadata: {name: s, managedFields: [{manager: x}], resourceVersion: '1'}
spec:
  selector: {a: b}
  clusterIP: None
  ports:
  - {name: a, port: 80, targetPort: http, appProtocol: kubernetes.io/h2c}
  - {name: b, port: 81, nodePort: 3}
status: {loadBalancer: {}}
"""
    )
    result = parse_resource(manifest)
    assert result.invalid == ()
    assert isinstance(result.resource, Service)
    assert [(port.name, port.port, port.app_protocol) for port in result.resource.spec.ports] == [
        ("a", 80, "kubernetes.io/h2c"),
        ("b", 81, None),
    ]


def test_service_with_two_ports_must_name_them() -> None:
    spec = {"ports": [{"port": 80}, {"port": 81}]}
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}
    assert fields(manifest) == ["spec.ports[1].name"]


@pytest.mark.parametrize(
    ("kind", "address", "ok"),
    [
        ("IPv4", "10.0.0.1", True),
        ("IPv6", "2001:DB8::0:1", True),
        ("IPv4", "10.0.0.1; drop", False),
        ("IPv4", "::1", False),
        ("IPv6", "10.0.0.1", False),
        ("IPv6", "fe80::1%lo", False),
        ("FQDN", "a.example.com", True),
    ],
)
def test_endpoint_addresses_are_what_their_slice_says(kind: str, address: str, ok: bool) -> None:
    manifest = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "s"},
        "addressType": kind,
        "endpoints": [{"addresses": [address], "nodeName": "n", "hints": {}}],
    }
    if ok:
        assert parse_resource(manifest).invalid == ()
    else:
        assert fields(manifest) == ["endpoints[0].addresses[0]"]


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("v1alpha2", "UDPRoute"),
    ],
)
def test_kinds_of_later_issues_are_reported(version: str, kind: str) -> None:
    manifest = {
        "apiVersion": f"gateway.networking.k8s.io/{version}",
        "kind": kind,
        "metadata": {"name": "x"},
    }
    (found,) = parse_resource(manifest).invalid
    assert (found.subject, found.reason) == (Ref(kind, "default", "x"), UNSUPPORTED_KIND)


def tls_route(hostnames: object, version: str = "v1", rules: int = 1) -> dict[str, object]:
    spec = {"hostnames": hostnames, "rules": [{"backendRefs": [{"name": "s", "port": 443}]}] * rules}
    return {
        "apiVersion": f"gateway.networking.k8s.io/{version}",
        "kind": "TLSRoute",
        "metadata": {"name": "r"},
        "spec": spec,
    }


@pytest.mark.parametrize("version", ["v1", "v1alpha3", "v1alpha2"])
def test_tls_routes_of_all_versions_are_one_kind(version: str) -> None:
    result = parse_resource(tls_route(["a.test", "*.b.test"], version))
    assert result.invalid == ()
    assert isinstance(result.resource, TLSRoute)
    assert result.resource.spec.hostnames == ("a.test", "*.b.test")
    # Versions before v1 may leave the names out.
    assert parse_resource(tls_route([], version)).invalid == ()


@pytest.mark.parametrize(
    ("manifest", "field"),
    [
        (tls_route(["a.test", "192.0.2.1"]), "spec.hostnames[1]"),
        (tls_route(["a.*.test"]), "spec.hostnames[0]"),
        (tls_route(["a.test"], rules=2), "spec.rules"),
        (tls_route(["a.test"], rules=0), "spec.rules"),
    ],
)
def test_tls_routes_that_are_wrong(manifest: dict[str, object], field: str) -> None:
    (found,) = parse_resource(manifest).invalid
    assert found.field == field


@pytest.mark.parametrize(
    ("version", "kind"),
    [("v1", "Pod"), ("apps/v1", "Deployment"), ("x.io/v1", "Gateway")],
)
def test_other_kinds_are_ignored(version: str, kind: str) -> None:
    assert parse_resource({"apiVersion": version, "kind": kind}) == (None, ())


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha2"])
def test_every_version_that_was_served_is_read(version: str) -> None:
    manifest = {**route("{}"), "apiVersion": f"gateway.networking.k8s.io/{version}"}
    assert isinstance(parse_resource(manifest).resource, HTTPRoute)


def test_wrong_version_and_misspelt_kind_are_reported() -> None:
    assert fields({**route("{}"), "apiVersion": "gateway.networking.k8s.io/v9"}) == ["apiVersion"]
    assert fields({**route("{}"), "kind": "HTTPRout"}) == ["kind"]
    assert fields({}) == ["apiVersion", "kind"]
    assert fields([]) == [""]
    assert fields({**route("{}"), "metadata": []}) == ["metadata"]
    assert fields({"apiVersion": V1, "kind": "HTTPRoute"}) == ["metadata", "spec"]


def test_durations() -> None:
    assert duration_milliseconds("1h30m5s7ms") == 5_405_007
    assert duration_milliseconds("0s") == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)
VERSIONS = st.sampled_from([V1, "v1", "discovery.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"])
KINDS = st.sampled_from(
    [
        "GatewayClass",
        "Gateway",
        "HTTPRoute",
        "TCPRoute",
        "TLSRoute",
        "ReferenceGrant",
        "Service",
        "EndpointSlice",
        "Namespace",
    ]
)
FIELDS = st.sampled_from(
    [
        "name",
        "namespace",
        "metadata",
        "spec",
        "rules",
        "matches",
        "path",
        "type",
        "value",
        "filters",
        "backendRefs",
        "port",
        "weight",
        "hostnames",
        "listeners",
        "protocol",
        "labels",
        "addresses",
        "endpoints",
        "ports",
        "addressType",
        "conditions",
        "ready",
        "from",
        "to",
        "group",
        "kind",
        "parentRefs",
        "requestRedirect",
        "requestHeaderModifier",
        "set",
        "add",
        "remove",
        "timeouts",
        "request",
        "controllerName",
        "gatewayClassName",
    ]
)
LIKELY = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 70000) | st.text(max_size=5) | st.sampled_from(["a", "/", "Exact"]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(FIELDS | st.text(max_size=2), children),
    max_leaves=30,
)


@given(JSON)
def test_parse_never_raises_on_any_json(value: object) -> None:
    parse_resource(value)


@given(VERSIONS, KINDS, st.dictionaries(FIELDS, LIKELY), LIKELY, LIKELY)
def test_parse_never_raises_on_likely_manifests(
    version: str, kind: str, more: dict[str, object], metadata: object, spec: object
) -> None:
    manifest = {**more, "metadata": metadata, "spec": spec, "apiVersion": version, "kind": kind}
    found = parse_resource(manifest).invalid
    assert all(item.reason in (INVALID, UNKNOWN_FIELD) for item in found)


WHOLE: list[dict[str, Any]] = [
    route(
        "{parentRefs: [{name: g}], hostnames: [a.b], "
        "rules: [{name: n, matches: [{path: {type: Exact, value: /}, "
        "headers: [{name: a, value: b}]}], filters: [{type: CORS, cors: {allowOrigins: ['*']}}], "
        "backendRefs: [{name: s, port: 80}], timeouts: {request: 1s}}]}",
        "{name: r, labels: {a: b}, creationTimestamp: '2026-01-31T12:00:00Z'}",
    ),
    gateway("[{name: a, port: 80, protocol: HTTP, hostname: a.b}]", "addresses: [{value: 10.0.0.1}]"),
    {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "s"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}],
        "ports": [{"name": "", "port": 80}],
    },
]


def replace_somewhere(value: Any, new: object, choose: Callable[[int], int]) -> Any:
    """The value with one of its parts replaced."""
    if not isinstance(value, dict | list) or not value or choose(4) == 0:
        return new
    keys = sorted(value) if isinstance(value, dict) else list(range(len(value)))
    chosen = keys[choose(len(keys))]
    copy = value.copy()
    copy[chosen] = replace_somewhere(value[chosen], new, choose)
    return copy


@given(st.sampled_from(WHOLE), JSON | LIKELY, st.data())
def test_parse_never_raises_on_a_manifest_with_one_part_replaced(
    manifest: dict[str, Any], new: object, data: st.DataObject
) -> None:
    changed = replace_somewhere(manifest, new, lambda n: data.draw(st.integers(0, n - 1)))
    result = parse_resource(changed)
    assert result.resource is None or result.resource.ref.name
