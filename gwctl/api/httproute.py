"""HTTPRoute: every field of version 1.6 of the specification.

The surprising fact: equal names in the headers or queryParams of one match are let through although an API
server refuses them; the specification says that the first counts, and the graph does as it says. The same
goes for a RequestRedirect beside backendRefs: the redirect wins. What only the experimental channel's CRDs
refuse, as some values of headers and equal names of rules, is let through too, and so is what older ones admit, as no
attempts of retries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictInt, StrictStr

from gwctl.api.meta import Object
from gwctl.api.wire import (
    BackendObjectReference,
    BackendRef,
    Duration,
    HeaderName,
    HeaderValue,
    Hostname,
    Loc,
    LocalObjectReference,
    ParentRefs,
    PortNumber,
    PreciseHostname,
    SectionName,
    Violation,
    Wire,
    check_backend_port,
    check_matches,
    check_parent_refs,
)

AUTH_PATH_PATTERN = r"^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$"

_PATH = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+")
_DURATION = re.compile(r"([0-9]+)(h|ms|m|s)")
_MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}

Method = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
FilterType = Literal[
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestMirror",
    "RequestRedirect",
    "URLRewrite",
    "ExtensionRef",
    "CORS",
    "ExternalAuth",
]
# A filter's type to the field that holds it, as the CRD's CEL rules pair them.
FILTER_FIELDS: dict[str, tuple[str, str]] = {
    "RequestHeaderModifier": ("request_header_modifier", "requestHeaderModifier"),
    "ResponseHeaderModifier": ("response_header_modifier", "responseHeaderModifier"),
    "RequestMirror": ("request_mirror", "requestMirror"),
    "RequestRedirect": ("request_redirect", "requestRedirect"),
    "URLRewrite": ("url_rewrite", "urlRewrite"),
    "ExtensionRef": ("extension_ref", "extensionRef"),
    "CORS": ("cors", "cors"),
    "ExternalAuth": ("external_auth", "externalAuth"),
}


class HTTPPathMatch(Wire):
    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: Annotated[StrictStr, Field(max_length=1024)] = "/"


class HTTPHeaderMatch(Wire):
    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: HeaderName
    value: HeaderValue


class HTTPQueryParamMatch(Wire):
    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: HeaderName
    value: Annotated[StrictStr, Field(min_length=1, max_length=1024)]


class HTTPRouteMatch(Wire):
    """All of it must fit. ``method`` None: any."""

    path: HTTPPathMatch = HTTPPathMatch()
    headers: Annotated[tuple[HTTPHeaderMatch, ...], Field(max_length=16)] = ()
    query_params: Annotated[tuple[HTTPQueryParamMatch, ...], Field(max_length=16)] = ()
    method: Method | None = None


class HTTPHeader(Wire):
    name: HeaderName
    value: HeaderValue


class HTTPHeaderFilter(Wire):
    set: Annotated[tuple[HTTPHeader, ...], Field(max_length=16)] = ()
    add: Annotated[tuple[HTTPHeader, ...], Field(max_length=16)] = ()
    remove: Annotated[tuple[StrictStr, ...], Field(max_length=16)] = ()


class HTTPPathModifier(Wire):
    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: Annotated[StrictStr, Field(max_length=1024)] | None = None
    replace_prefix_match: Annotated[StrictStr, Field(max_length=1024)] | None = None


class HTTPRequestRedirectFilter(Wire):
    scheme: Literal["http", "https"] | None = None
    hostname: PreciseHostname | None = None
    path: HTTPPathModifier | None = None
    port: PortNumber | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class HTTPURLRewriteFilter(Wire):
    hostname: PreciseHostname | None = None
    path: HTTPPathModifier | None = None


class Fraction(Wire):
    numerator: Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]
    denominator: Annotated[StrictInt, Field(ge=1, le=2**31 - 1)] = 100


class HTTPRequestMirrorFilter(Wire):
    backend_ref: BackendObjectReference
    percent: Annotated[StrictInt, Field(ge=0, le=100)] | None = None
    fraction: Fraction | None = None


class HTTPCORSFilter(Wire):
    allow_origins: Annotated[
        tuple[Annotated[StrictStr, Field(min_length=1, max_length=253)], ...],
        Field(max_length=64),
    ] = ()
    allow_credentials: StrictBool | None = None
    allow_methods: Annotated[
        tuple[
            Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"],
            ...,
        ],
        Field(max_length=9),
    ] = ()
    allow_headers: Annotated[tuple[HeaderName, ...], Field(max_length=64)] = ()
    expose_headers: Annotated[tuple[HeaderName, ...], Field(max_length=64)] = ()
    max_age: Annotated[StrictInt, Field(ge=1, le=2**31 - 1)] = 5


class GRPCAuthConfig(Wire):
    allowed_headers: Annotated[tuple[StrictStr, ...], Field(max_length=64)] = ()


class HTTPAuthConfig(Wire):
    path: Annotated[StrictStr, Field(max_length=1024, pattern=AUTH_PATH_PATTERN)] | None = None
    allowed_headers: Annotated[tuple[StrictStr, ...], Field(max_length=64)] = ()
    allowed_response_headers: Annotated[tuple[StrictStr, ...], Field(max_length=64)] = ()


class ForwardBody(Wire):
    max_size: StrictInt | None = None


class HTTPExternalAuthFilter(Wire):
    protocol: Literal["HTTP", "GRPC"]
    backend_ref: BackendObjectReference
    grpc: GRPCAuthConfig | None = None
    http: HTTPAuthConfig | None = None
    forward_body: ForwardBody | None = None


class HTTPRouteFilter(Wire):
    """A filter: the field that ``type`` names is set, the others are None."""

    type: FilterType
    request_header_modifier: HTTPHeaderFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    request_mirror: HTTPRequestMirrorFilter | None = None
    request_redirect: HTTPRequestRedirectFilter | None = None
    url_rewrite: HTTPURLRewriteFilter | None = None
    cors: HTTPCORSFilter | None = None
    extension_ref: LocalObjectReference | None = None
    external_auth: HTTPExternalAuthFilter | None = None


Filters = Annotated[tuple[HTTPRouteFilter, ...], Field(max_length=16)]


class HTTPBackendRef(BackendRef):
    filters: Filters = ()


class HTTPRouteTimeouts(Wire):
    """Durations as GEP-2257 writes them; zero means no limit."""

    request: Duration | None = None
    backend_request: Duration | None = None


class HTTPRouteRetry(Wire):
    codes: tuple[Annotated[StrictInt, Field(ge=400, le=599)], ...] = ()
    attempts: StrictInt | None = None
    backoff: Duration | None = None


class CookieConfig(Wire):
    lifetime_type: Literal["Permanent", "Session"] = "Session"


class SessionPersistence(Wire):
    session_name: Annotated[StrictStr, Field(max_length=128)] | None = None
    absolute_timeout: Duration | None = None
    type: Literal["Cookie", "Header"] = "Cookie"
    cookie_config: CookieConfig | None = None


_ANY_REQUEST = (HTTPRouteMatch(),)


def _at_least_one(matches: tuple[HTTPRouteMatch, ...]) -> tuple[HTTPRouteMatch, ...]:
    return matches or _ANY_REQUEST


Matches = Annotated[tuple[HTTPRouteMatch, ...], Field(max_length=64), AfterValidator(_at_least_one)]


class HTTPRouteRule(Wire):
    """A rule. It always has at least one match: without any, the one that fits every request."""

    name: SectionName | None = None
    matches: Matches = _ANY_REQUEST
    filters: Filters = ()
    backend_refs: Annotated[tuple[HTTPBackendRef, ...], Field(max_length=16)] = ()
    timeouts: HTTPRouteTimeouts | None = None
    retry: HTTPRouteRetry | None = None
    session_persistence: SessionPersistence | None = None


class HTTPRouteSpec(Wire):
    parent_refs: ParentRefs = ()
    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=16)] = ()
    rules: Annotated[tuple[HTTPRouteRule, ...], Field(min_length=1, max_length=16)] = (HTTPRouteRule(),)
    use_default_gateways: Literal["All", "None"] | None = None


class HTTPRoute(Object):
    kind: ClassVar[str] = "HTTPRoute"

    spec: HTTPRouteSpec

    def check(self) -> list[Violation]:
        found = super().check()
        found += check_parent_refs(self.spec.parent_refs, ("spec", "parentRefs"))
        found += check_matches(len(rule.matches) for rule in self.spec.rules)
        for index, rule in enumerate(self.spec.rules):
            _check_rule(rule, ("spec", "rules", index), found)
        return found


def duration_milliseconds(text: str) -> int:
    """The length of a duration that fits ``DURATION_PATTERN`` (GEP-2257), in milliseconds."""
    return sum(int(number) * _MILLISECONDS[unit] for number, unit in _DURATION.findall(text))


def _check_rule(rule: HTTPRouteRule, loc: Loc, found: list[Violation]) -> None:
    for index, match in enumerate(rule.matches):
        if match.path.type != "RegularExpression":
            _check_path(match.path.value, (*loc, "matches", index, "path", "value"), found)
    check_filters(rule.filters, rule.matches, (*loc, "filters"), found)
    for index, ref in enumerate(rule.backend_refs):
        ref_loc: Loc = (*loc, "backendRefs", index)
        found += check_backend_port(ref, ref_loc)
        check_filters(ref.filters, rule.matches, (*ref_loc, "filters"), found)
    timeouts = rule.timeouts
    if timeouts is not None and timeouts.request is not None and timeouts.backend_request is not None:
        request = duration_milliseconds(timeouts.request)
        if request and duration_milliseconds(timeouts.backend_request) > request:
            message = "cannot be longer than the request timeout"
            found.append(Violation((*loc, "timeouts", "backendRequest"), message))
    check_session(rule.session_persistence, (*loc, "sessionPersistence"), found)


def check_session(session: SessionPersistence | None, loc: Loc, found: list[Violation]) -> None:
    """The rules of session persistence, of every kind of route."""
    if session is not None and session.cookie_config is not None:
        cookie_loc: Loc = (*loc, "cookieConfig")
        if session.type != "Cookie":
            found.append(Violation(cookie_loc, "can only be set with type Cookie"))
        if session.cookie_config.lifetime_type == "Permanent" and session.absolute_timeout is None:
            found.append(Violation(cookie_loc, "absoluteTimeout must be specified when lifetimeType is Permanent"))


def _check_path(path: str, loc: Loc, found: list[Violation]) -> None:
    if not path.startswith("/"):
        found.append(Violation(loc, "must be an absolute path and start with '/'"))
    banned = [text for text in ("//", "/./", "/../", "%2f", "%2F", "#") if text in path]
    found += (Violation(loc, f"must not contain '{text}'") for text in banned)
    endings = [text for text in ("/..", "/.") if path.endswith(text)]
    found += (Violation(loc, f"must not end with '{text}'") for text in endings)
    if not _PATH.fullmatch(path):
        message = "must only contain letters, digits, -/._~!$&'()*+,;=:@ and percent-encoded bytes"
        found.append(Violation(loc, message))


def check_filters(
    filters: Sequence[HTTPRouteFilter], matches: tuple[HTTPRouteMatch, ...], loc: Loc, found: list[Violation]
) -> None:
    """The rules of filters, of every kind of route; ``matches`` are those of their rule."""
    if not filters:
        return
    types: list[str] = [item.type for item in filters]
    once = ("RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "CORS")
    repeated = [kind for kind in once if types.count(kind) > 1]
    found += (Violation(loc, f"the {kind} filter cannot be repeated") for kind in repeated)
    if "RequestRedirect" in types and "URLRewrite" in types:
        found.append(Violation(loc, "may have either RequestRedirect or URLRewrite, but not both"))
    for index, item in enumerate(filters):
        _check_filter(item, matches, (*loc, index), found)


def _check_filter(item: HTTPRouteFilter, matches: tuple[HTTPRouteMatch, ...], loc: Loc, found: list[Violation]) -> None:
    for kind, (attribute, field) in FILTER_FIELDS.items():
        if (getattr(item, attribute) is not None) != (item.type == kind):
            verb = "must be specified" if item.type == kind else "must be left out"
            found.append(Violation((*loc, field), f"{verb} when the filter's type is {item.type}"))
    for field, headers in (
        ("requestHeaderModifier", item.request_header_modifier),
        ("responseHeaderModifier", item.response_header_modifier),
    ):
        if headers is not None:
            _check_unique([header.name for header in headers.set], (*loc, field, "set"), found)
            _check_unique([header.name for header in headers.add], (*loc, field, "add"), found)
            _check_unique(headers.remove, (*loc, field, "remove"), found)
    if item.request_redirect is not None and item.request_redirect.path is not None:
        _check_path_modifier(item.request_redirect.path, matches, (*loc, "requestRedirect", "path"), found)
    if item.url_rewrite is not None and item.url_rewrite.path is not None:
        _check_path_modifier(item.url_rewrite.path, matches, (*loc, "urlRewrite", "path"), found)
    mirror = item.request_mirror
    if mirror is not None:
        found += check_backend_port(mirror.backend_ref, (*loc, "requestMirror", "backendRef"))
        if mirror.percent is not None and mirror.fraction is not None:
            found.append(Violation((*loc, "requestMirror"), "only one of percent or fraction may be specified"))
        if mirror.fraction is not None and mirror.fraction.numerator > mirror.fraction.denominator:
            message = "numerator must be less than or equal to denominator"
            found.append(Violation((*loc, "requestMirror", "fraction"), message))
    if item.cors is not None:
        lists: tuple[tuple[str, tuple[str, ...]], ...] = (
            ("allowOrigins", item.cors.allow_origins),
            ("allowMethods", item.cors.allow_methods),
        )
        for field, values in lists:
            if "*" in values and len(values) > 1:
                found.append(Violation((*loc, "cors", field), "cannot contain '*' alongside other values"))
            _check_unique(values, (*loc, "cors", field), found)
        _check_unique(item.cors.allow_headers, (*loc, "cors", "allowHeaders"), found)
        _check_unique(item.cors.expose_headers, (*loc, "cors", "exposeHeaders"), found)
    auth = item.external_auth
    if auth is not None:
        found += check_backend_port(auth.backend_ref, (*loc, "externalAuth", "backendRef"))
        for field, wanted, value in (("grpc", "GRPC", auth.grpc), ("http", "HTTP", auth.http)):
            if (value is not None) != (auth.protocol == wanted):
                verb = "must be specified" if auth.protocol == wanted else "must be left out"
                found.append(Violation((*loc, "externalAuth", field), f"{verb} when protocol is {auth.protocol}"))


def _check_path_modifier(
    path: HTTPPathModifier, matches: tuple[HTTPRouteMatch, ...], loc: Loc, found: list[Violation]
) -> None:
    for kind, field, value in (
        ("ReplaceFullPath", "replaceFullPath", path.replace_full_path),
        ("ReplacePrefixMatch", "replacePrefixMatch", path.replace_prefix_match),
    ):
        if (value is not None) != (path.type == kind):
            verb = "must be specified" if path.type == kind else "must be left out"
            found.append(Violation((*loc, field), f"{verb} when type is {path.type}"))
    lone_prefix = len(matches) == 1 and matches[0].path.type == "PathPrefix"
    if path.type == "ReplacePrefixMatch" and not lone_prefix:
        message = "replacePrefixMatch needs exactly one PathPrefix match in the rule"
        found.append(Violation((*loc, "replacePrefixMatch"), message))


def _check_unique(values: Iterable[str | int], loc: Loc, found: list[Violation]) -> None:
    seen: set[str | int] = set()
    for index, value in enumerate(values):
        if value in seen:
            found.append(Violation((*loc, index), f"duplicate value {value!r}"))
        seen.add(value)
