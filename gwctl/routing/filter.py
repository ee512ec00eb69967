"""What the filters of a rule and of its backends say, freed from where they were written.

Filter nodes in, one `Filters` out, for whatever kind of route. The surprising fact: filters are closed under "first
these, then those". So what a backend adds to its rule is put together once, and a request meets one set of filters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from gwctl.api.httproute import (
    Fraction,
    HTTPAuthConfig,
    HTTPCORSFilter,
    HTTPExternalAuthFilter,
    HTTPHeader,
    HTTPHeaderFilter,
    HTTPPathModifier,
    HTTPRequestMirrorFilter,
    HTTPRequestRedirectFilter,
    HTTPRouteRetry,
    HTTPRouteTimeouts,
    duration_milliseconds,
)
from gwctl.graph.node import REFUSED, FilterNode, ServicePort

PathChangeKind = Literal["full", "prefix"]


@dataclass(frozen=True, slots=True)
class HeaderFilter:
    """A header modifier. Removed first, then set, then added."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PathChange:
    """A path modifier as written: the whole path is replaced, or the prefix that the rule matched."""

    kind: PathChangeKind
    path: str


@dataclass(frozen=True, slots=True)
class Redirect:
    """A redirect filter as written: None and empty mean "as in the request"."""

    scheme: str = ""
    hostname: str = ""
    port: int | None = None
    path: PathChange | None = None
    status: int = 302


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A rewrite filter as written: None and empty mean "as in the request"."""

    hostname: str = ""
    path: PathChange | None = None


@dataclass(frozen=True, slots=True)
class Cors:
    """A CORS filter as written. A ``*`` is alone in its list; ``max_age`` is in seconds."""

    origins: tuple[str, ...] = ()
    credentials: bool = False
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    max_age: int = 5


@dataclass(frozen=True, slots=True)
class Mirror:
    """Copies of requests, ``numerator`` of ``denominator``, to a Service.

    ``filters`` change the copy: the header changes and rewrites that come before the mirror. ``protocol``: ``h2`` for
    HTTP/2 without TLS.
    """

    service: ServicePort
    numerator: int
    denominator: int
    filters: Filters
    protocol: Literal["h2"] | None = None


@dataclass(frozen=True, slots=True)
class Auth:
    """A Service that is asked whether a request may pass; None where the reference leads nowhere: then none may.

    ``path`` goes before the request's. ``headers`` of the request are sent along, ``answer_headers`` of the answer go
    on to the backend: all where there are none. Names are in lower case. ``protocol`` is as a mirror's.
    """

    service: ServicePort | None
    path: str
    headers: tuple[str, ...]
    answer_headers: tuple[str, ...]
    protocol: Literal["h2"] | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """When a request is tried again: ``attempts`` times at most, after a pause in milliseconds.

    It is where a backend answers one of the codes, or none at all.
    """

    attempts: int
    pause: int
    codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts of a rule in milliseconds, as written: zero means no limit, None that nothing is said."""

    request: int | None = None
    backend_request: int | None = None


@dataclass(frozen=True, slots=True)
class Filters:
    """All that happens to a request and its response besides the choice of a backend.

    That is filters, and the timeouts and retries of a rule. There is a redirect or a rewrite, never both.
    """

    request_headers: HeaderFilter | None = None
    response_headers: HeaderFilter | None = None
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    timeouts: Timeouts | None = None
    cors: Cors | None = None
    mirrors: tuple[Mirror, ...] = ()
    retry: Retry | None = None
    auths: tuple[Auth, ...] = ()

    def then(self, other: Filters) -> Filters:
        """Give the filters that do what these do and after them the others.

        Of what there can be one only, such as a path or a CORS policy, the others' takes the place of this one's.
        """
        if other == NO_FILTERS:
            return self
        redirect = other.redirect or self.redirect
        host_is_set = _sets(other.request_headers, "host")
        return Filters(
            _chain(self.request_headers, other.request_headers),
            _chain(self.response_headers, other.response_headers),
            redirect,
            None if redirect else _rewrite_then(self.rewrite, other.rewrite, host_is_set),
            other.timeouts or self.timeouts,
            other.cors or self.cors,
            () if redirect else self.mirrors + other._mirrors_after(self),
            other.retry or self.retry,
            self.auths + other.auths,
        )

    def _mirrors_after(self, before: Filters) -> tuple[Mirror, ...]:
        return tuple(replace(item, filters=before.of_copy.then(item.filters)) for item in self.mirrors)

    @property
    def of_copy(self) -> Filters:
        """The part that changes a copy as well."""
        return Filters(request_headers=self.request_headers, rewrite=self.rewrite)


NO_FILTERS = Filters()


DEFAULT_RETRIES = 1
"""How often a request is tried again where the rule does not say it."""


def build_retry(retry: HTTPRouteRetry | None) -> Retry | None:
    """Build what a rule says of retries."""
    if retry is None or retry.attempts == 0:
        return None
    pause = duration_milliseconds(retry.backoff) if retry.backoff is not None else 0
    return Retry(retry.attempts or DEFAULT_RETRIES, pause, tuple(sorted(set(retry.codes))))


def build_timeouts(timeouts: HTTPRouteTimeouts | None) -> Timeouts | None:
    """Build a rule's timeouts."""
    if timeouts is None or timeouts == HTTPRouteTimeouts():
        return None
    found = (timeouts.request, timeouts.backend_request)
    return Timeouts(*(None if text is None else duration_milliseconds(text) for text in found))


def build_filters(nodes: Iterable[FilterNode], kind: str = "HTTPRoute") -> Filters:
    """Build the filters of a rule or a backend of a kind of routes, in the order in which they are written."""
    filters = NO_FILTERS
    for node in nodes:
        filters = filters.then(_build_filter(node, kind))
    return filters


def _build_filter(node: FilterNode, kind: str) -> Filters:
    item = node.resource
    if item.request_header_modifier is not None:
        return Filters(request_headers=_build_header_filter(item.request_header_modifier))
    if item.response_header_modifier is not None:
        return Filters(response_headers=_build_header_filter(item.response_header_modifier))
    if item.request_redirect is not None:
        return Filters(redirect=_build_redirect(item.request_redirect))
    if item.url_rewrite is not None:
        return Filters(rewrite=Rewrite(item.url_rewrite.hostname or "", _build_path_change(item.url_rewrite.path)))
    # Where no TLS can be spoken that a policy wants, nothing is sent.
    service = None if node.service is None or node.service.tls == REFUSED else node.service
    if item.request_mirror is not None and service is not None:
        return Filters(mirrors=(_build_mirror(item.request_mirror, service, kind),))
    if item.external_auth is not None:
        return Filters(auths=(_build_auth(item.external_auth, service, kind),))
    if item.cors is not None:
        return Filters(cors=_build_cors(item.cors))
    return NO_FILTERS


H2C = "kubernetes.io/h2c"
"""The appProtocol of a Service's port that speaks HTTP/2 without TLS (KEP-3726)."""


def choose_protocol(service: ServicePort, kind: str) -> Literal["h2"] | None:
    """HTTP/2 where the Service asks for it, and for gRPC, which cannot do without."""
    return "h2" if kind == "GRPCRoute" or service.app_protocol == H2C else None


def _build_mirror(mirror: HTTPRequestMirrorFilter, service: ServicePort, kind: str) -> Mirror:
    fraction = mirror.fraction or Fraction(numerator=100 if mirror.percent is None else mirror.percent)
    return Mirror(service, fraction.numerator, fraction.denominator, NO_FILTERS, choose_protocol(service, kind))


def _build_auth(auth: HTTPExternalAuthFilter, service: ServicePort | None, kind: str) -> Auth:
    http = auth.http or HTTPAuthConfig()
    path = (http.path or "").strip("/")
    headers, answer_headers = (
        tuple(sorted({name.lower() for name in names}))
        for names in (http.allowed_headers, http.allowed_response_headers)
    )
    protocol = None if service is None else choose_protocol(service, kind)
    return Auth(service, f"/{path}" if path else "", headers, answer_headers, protocol)


def _build_cors(cors: HTTPCORSFilter) -> Cors:
    return Cors(
        cors.allow_origins,
        bool(cors.allow_credentials),
        cors.allow_methods,
        _all_or(cors.allow_headers),
        _all_or(cors.expose_headers),
        cors.max_age,
    )


def _all_or(names: tuple[str, ...]) -> tuple[str, ...]:
    """A ``*`` says it all, whatever else is there (HTTPCORSFilter.exposeHeaders)."""
    return ("*",) if "*" in names else names


def _build_header_filter(modifier: HTTPHeaderFilter) -> HeaderFilter:
    return HeaderFilter(_pairs(modifier.set), _pairs(modifier.add), modifier.remove)


def _pairs(headers: Iterable[HTTPHeader]) -> tuple[tuple[str, str], ...]:
    """Spaces around a value are no part of it (RFC 9110, section 5.5), and HTTP/2 does not allow them there."""
    return tuple((header.name, header.value.strip(" \t")) for header in headers)


def _build_redirect(redirect: HTTPRequestRedirectFilter) -> Redirect:
    path = _build_path_change(redirect.path)
    return Redirect(redirect.scheme or "", redirect.hostname or "", redirect.port, path, redirect.status_code)


def _build_path_change(path: HTTPPathModifier | None) -> PathChange | None:
    if path is None:
        return None
    if path.type == "ReplaceFullPath":
        return PathChange("full", path.replace_full_path or "")
    return PathChange("prefix", path.replace_prefix_match or "")


def _chain(first: HeaderFilter | None, second: HeaderFilter | None) -> HeaderFilter | None:
    if first is None or second is None:
        return first or second
    gone = {name.lower() for name in second.remove} | {name.lower() for name, _ in second.set}
    return HeaderFilter(
        (*((name, value) for name, value in first.set if name.lower() not in gone), *second.set),
        (*((name, value) for name, value in first.add if name.lower() not in gone), *second.add),
        tuple({name.lower(): name for name in (*first.remove, *second.remove)}.values()),
    )


def _sets(headers: HeaderFilter | None, name: str) -> bool:
    return headers is not None and any(header.lower() == name for header, _ in headers.set)


def _rewrite_then(first: Rewrite | None, second: Rewrite | None, host_is_set: bool) -> Rewrite | None:
    if first is not None and host_is_set:
        first = replace(first, hostname="")
    if first is None or second is None:
        return first or second
    return Rewrite(second.hostname or first.hostname, second.path or first.path)
