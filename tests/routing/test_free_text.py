"""Any text in any free-text field: it is reported by the field's name, or it is honoured to the letter and every row
stays within the alphabet that the Data Plane API carries unharmed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gwctl.api.parse import is_unreadable, parse_resource
from gwctl.api.ref import Ref
from gwctl.haproxy.encoding import KEY_ALPHABET, VALUE_ALPHABET
from gwctl.haproxy.lookup import look_up
from gwctl.haproxy.table import GROUP_LIMIT, ROW_LIMIT
from gwctl.routing.matcher import find_rule
from gwctl.routing.request import Request
from gwctl.routing.virtualhost import FrontendKey
from gwctl.runtime.pipeline import advance
from tests.manifests import CONTROLLER, Manifest, gateway, gateway_class, http_route, listener, service
from tests.pipeline import desired_state, parse

FIXED = parse([gateway_class(), gateway([listener("http", 80)]), service("web")])
FRONTEND = FrontendKey("default", "gateway", 80)
REF = Ref("HTTPRoute", "default", "r")

AWKWARD = st.sampled_from([*" ;\"'\\%,=\t\n\r\0é€𐍈/|&?>~+*:#()[]{}$^.", "\r\nx: 1", "%2F", "%0a", "a", "/a"])
TEXT = st.one_of(st.text(max_size=40), st.lists(AWKWARD, max_size=10).map("".join))
TOKEN = st.one_of(TEXT, st.text("aB1!#$%&'*+-.^_`|~", min_size=1, max_size=10))
PATH = st.one_of(TEXT, st.text("/aB1;,='%20*()!$&@:~.", max_size=20).map(lambda text: "/" + text))


class Field(NamedTuple):
    """``at`` is its path in a manifest. ``request`` gives a request that the rule must take when ``text`` is taken."""

    at: str
    texts: st.SearchStrategy[str]
    manifest: Callable[[str], Manifest]
    request: Callable[[str], Request | None] = lambda _: None


def rule(**fields: Any) -> Manifest:
    return http_route("r", [{"backendRefs": [{"name": "web", "port": 80}], **fields}])


def match(**fields: Any) -> Manifest:
    return rule(matches=[fields])


def regex(name: str, value: str) -> list[Manifest]:
    return [{"type": "RegularExpression", "name": name, "value": value}]


def headers(**changes: Any) -> Manifest:
    return rule(filters=[{"type": "RequestHeaderModifier", "requestHeaderModifier": changes}])


def answer(**changes: Any) -> Manifest:
    return rule(filters=[{"type": "ResponseHeaderModifier", "responseHeaderModifier": changes}])


def redirect(**fields: Any) -> Manifest:
    return rule(filters=[{"type": "RequestRedirect", "requestRedirect": fields}])


def cors(**fields: Any) -> Manifest:
    return rule(filters=[{"type": "CORS", "cors": fields}])


def rewrite(**fields: Any) -> Manifest:
    return rule(filters=[{"type": "URLRewrite", "urlRewrite": fields}])


def path_modifier(kind: str, text: str) -> Manifest:
    return {"type": kind, kind[0].lower() + kind[1:]: text}


def get(path: str = "/", **more: Any) -> Request:
    return Request("GET", "a.test", path, **more)


def sent(text: str) -> str:
    return text.encode().decode("latin-1")


MATCH = "spec.rules[0].matches[0]"
CHANGE = "spec.rules[0].filters[0].requestHeaderModifier"
ANSWER = "spec.rules[0].filters[0].responseHeaderModifier"
REDIRECT = "spec.rules[0].filters[0].requestRedirect"
CORS = "spec.rules[0].filters[0].cors"
REWRITE = "spec.rules[0].filters[0].urlRewrite"
BACKEND = "spec.rules[0].backendRefs[0]"

FIELDS = {
    "exact path": Field(
        f"{MATCH}.path.value", PATH, lambda text: match(path={"type": "Exact", "value": text}), lambda text: get(text)
    ),
    "prefix": Field(
        f"{MATCH}.path.value", PATH, lambda text: match(path={"value": text}), lambda text: get(text.rstrip("/") + "/x")
    ),
    "path regex": Field(
        f"{MATCH}.path.value", TEXT, lambda text: match(path={"type": "RegularExpression", "value": text})
    ),
    "method": Field(f"{MATCH}.method", TEXT, lambda text: match(method=text)),
    "header name": Field(
        f"{MATCH}.headers[0].name",
        TOKEN,
        lambda text: match(headers=[{"name": text, "value": "1"}]),
        lambda text: get(headers=((text, "1"),)) if text.lower() != "host" else None,
    ),
    "header value": Field(
        f"{MATCH}.headers[0].value",
        TEXT,
        lambda text: match(headers=[{"name": "x", "value": text}]),
        lambda text: get(headers=(("x", sent(text)),)),
    ),
    "header regex": Field(f"{MATCH}.headers[0].value", TEXT, lambda text: match(headers=regex("x", text))),
    "query name": Field(
        f"{MATCH}.queryParams[0].name",
        TOKEN,
        lambda text: match(queryParams=[{"name": text, "value": "1"}]),
        lambda text: get(query=f"{quote(text, safe='')}=1"),
    ),
    "query value": Field(
        f"{MATCH}.queryParams[0].value",
        TEXT,
        lambda text: match(queryParams=[{"name": "q", "value": text}]),
        lambda text: get(query=f"q={quote(text, safe='')}"),
    ),
    "query regex": Field(f"{MATCH}.queryParams[0].value", TEXT, lambda text: match(queryParams=regex("q", text))),
    "set name": Field(f"{CHANGE}.set[0].name", TOKEN, lambda text: headers(set=[{"name": text, "value": "1"}])),
    "set value": Field(f"{CHANGE}.set[0].value", TEXT, lambda text: headers(set=[{"name": "x", "value": text}])),
    "add value": Field(f"{CHANGE}.add[0].value", TEXT, lambda text: headers(add=[{"name": "x", "value": text}])),
    "remove": Field(f"{CHANGE}.remove[0]", TOKEN, lambda text: headers(remove=[text])),
    "redirect hostname": Field(f"{REDIRECT}.hostname", TEXT, lambda text: redirect(hostname=text)),
    "redirect scheme": Field(f"{REDIRECT}.scheme", TEXT, lambda text: redirect(scheme=text)),
    "full path": Field(
        f"{REDIRECT}.path.replaceFullPath",
        PATH,
        lambda text: redirect(path=path_modifier("ReplaceFullPath", text)),
        lambda _: get(),
    ),
    "replacement": Field(
        f"{REDIRECT}.path.replacePrefixMatch",
        PATH,
        lambda text: redirect(path=path_modifier("ReplacePrefixMatch", text)),
        lambda _: get("/x"),
    ),
    "rewritten hostname": Field(f"{REWRITE}.hostname", TEXT, lambda text: rewrite(hostname=text), lambda _: get()),
    "rewritten path": Field(
        f"{REWRITE}.path.replaceFullPath",
        PATH,
        lambda text: rewrite(path=path_modifier("ReplaceFullPath", text)),
        lambda _: get(),
    ),
    "rewritten prefix": Field(
        f"{REWRITE}.path.replacePrefixMatch",
        PATH,
        lambda text: rewrite(path=path_modifier("ReplacePrefixMatch", text)),
        lambda _: get("/x"),
    ),
    "response header": Field(
        f"{ANSWER}.set[0].value", TEXT, lambda text: answer(set=[{"name": "x", "value": text}]), lambda _: get()
    ),
    "response header's name": Field(
        f"{ANSWER}.add[0].name", TOKEN, lambda text: answer(add=[{"name": text, "value": "x"}]), lambda _: get()
    ),
    "response header removed": Field(f"{ANSWER}.remove[0]", TOKEN, lambda text: answer(remove=[text]), lambda _: get()),
    "origin": Field(f"{CORS}.allowOrigins[0]", TEXT, lambda text: cors(allowOrigins=[text]), lambda _: get()),
    "allowed header": Field(f"{CORS}.allowHeaders[0]", TOKEN, lambda text: cors(allowHeaders=[text]), lambda _: get()),
    "exposed header": Field(
        f"{CORS}.exposeHeaders[0]", TOKEN, lambda text: cors(exposeHeaders=[text]), lambda _: get()
    ),
    "hostname": Field("spec.hostnames[0]", TEXT, lambda text: http_route("r", [{}], (text,))),
    "section": Field(
        "spec.parentRefs[0]", TEXT, lambda text: http_route("r", [{}], (), ({"name": "gateway", "sectionName": text},))
    ),
    "gateway": Field("spec.parentRefs[0]", TEXT, lambda text: http_route("r", [{}], (), ({"name": text},))),
    "backend": Field(BACKEND, TEXT, lambda text: rule(backendRefs=[{"name": text, "port": 80}])),
    "backend's namespace": Field(
        BACKEND, TEXT, lambda text: rule(backendRefs=[{"name": "web", "namespace": text, "port": 80}])
    ),
    "name": Field("metadata.name", TEXT, lambda text: http_route(text, [{}])),
}


@pytest.mark.parametrize("name", FIELDS)
def test_any_text_is_reported_or_honoured(name: str) -> None:
    field = FIELDS[name]

    @settings(deadline=None, max_examples=60, database=None)
    @given(field.texts)
    def check(text: str) -> None:
        result = parse_resource(field.manifest(text))
        if result.resource is None or is_unreadable(result.resource):
            assert {item.field for item in result.invalid if item.field.startswith(field.at)}, result.invalid
            return
        assert not result.invalid
        pipeline = advance(None, {**FIXED, result.resource.ref: result.resource}, CONTROLLER)
        rows = desired_state(pipeline).state.tables
        for table, found in rows.items():
            for key, value in found.items():
                assert KEY_ALPHABET.fullmatch(key), f"{table} {key}"
                assert VALUE_ALPHABET.fullmatch(value), f"{table} {value}"
                assert len(value) <= ROW_LIMIT + GROUP_LIMIT
        for problem in pipeline.problems:
            assert problem.subject == result.resource.ref
            assert problem.field.startswith(field.at), problem
        request = field.request(text)
        if request is not None and not pipeline.problems:
            request = Request("GET", "a.test", sent(request.path), request.query, request.headers)
            verdict = find_rule(pipeline.routing, FRONTEND, request)
            assert verdict.candidate is not None and verdict.candidate.rule.route == result.resource.ref
            outcome = look_up(rows, "gwctl.default.gateway.80", request)
            assert outcome.rule == "default/r/0"
            for share in outcome.shares:
                assert re.fullmatch("[!-~]*", share.location + share.hostname)

    check()
