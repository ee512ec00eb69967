"""What a route's rule means, freed from where it was written.

A rule of a route becomes one `Candidate` for each of its matches. Candidates are totally ordered by the precedence of
the specification (HTTPRouteRule.matches, GRPCRouteRule.matches), so ties never depend on the order of arrival. The
surprising fact: the two orders differ, and never meet, because a host belongs to routes of one kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from gwctl.api.grpcroute import GRPCMethodMatch, GRPCRouteMatch
from gwctl.api.httproute import HTTPRouteMatch
from gwctl.api.ref import Ref
from gwctl.graph.grpc import method_pattern
from gwctl.graph.node import BackendNode, GRPCRuleNode, HTTPRuleNode, RouteNode, ServicePort, TCPRuleNode
from gwctl.routing.filter import NO_FILTERS, Filters, build_filters, build_retry, build_timeouts, choose_protocol
from gwctl.routing.session import Session, build_session

PathKind = Literal["exact", "regex", "prefix"]

ANYTHING = "(?s:.*)"
"""A regular expression that everything fits, newlines included."""

_PATH_RANK: dict[str, int] = {"exact": 0, "regex": 1, "prefix": 2}
_PATH_KINDS: dict[str, PathKind] = {"Exact": "exact", "RegularExpression": "regex", "PathPrefix": "prefix"}


class PathKey(NamedTuple):
    """A path as rules name it. A prefix is held without its final slash, so ``/`` is the empty string."""

    kind: PathKind
    value: str


@dataclass(frozen=True, slots=True)
class ValueMatch:
    """A condition on one header or query parameter. Header names are in lower case."""

    name: str
    value: str
    regex: bool


@dataclass(frozen=True, slots=True)
class Match:
    """All conditions of one match; they are joined by and. An empty ``method`` means any.

    ``preflights``: a CORS preflight that asks about the method fits too.
    """

    path: PathKey
    method: str
    headers: tuple[ValueMatch, ...]
    queries: tuple[ValueMatch, ...]
    preflights: bool = False


@dataclass(frozen=True, slots=True)
class Backend:
    """A share of a rule's requests. ``service`` None answers 500. ``filters`` come after those of the rule.

    ``protocol``: ``h2`` for HTTP/2 without TLS.
    """

    weight: int
    service: ServicePort | None
    filters: Filters = NO_FILTERS
    protocol: Literal["h2"] | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to a request that the rule takes. Without a redirect and without weight it is answered 500."""

    route: Ref
    index: int
    backends: tuple[Backend, ...]
    filters: Filters = NO_FILTERS
    session: Session | None = None

    @property
    def name(self) -> str:
        """The rule's name in logs and metrics: namespace/name/index."""
        return f"{self.route.namespace}/{self.route.name}/{self.index}"

    def filters_of(self, backend: Backend | None) -> Filters:
        """Give all filters that a request meets on its way to a backend; None and one that is missing have none."""
        if backend is None or backend.service is None:
            return self.filters
        return self.filters.then(backend.filters)


Precedence = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A match with its rule. Of the candidates that fit a request, the least ``order`` takes it."""

    order: tuple[int, int, int, int, int, str, str, int, int]
    match: Match
    rule: Rule

    @property
    def place(self) -> PathKey:
        """The path under which the data plane finds it.

        A regular expression of a GRPCRoute comes after every service that is named exactly, so it is found where all
        paths are, and not among the expressions of HTTPRoutes, which come before prefixes.
        """
        path = self.match.path
        return PathKey("prefix", "") if path.kind == "regex" and self.rule.route.kind == "GRPCRoute" else path


def build_candidates(node: RouteNode) -> Iterator[Candidate]:
    """Yield a candidate for every match of every rule that stands in an HTTPRoute or a GRPCRoute."""
    for rule_node in node.rules:
        if isinstance(rule_node, TCPRuleNode):
            continue
        rule = _build_rule(node.ref, rule_node)
        age = (*node.resource.age, rule_node.index)
        for match_index, (match, precedence) in enumerate(_read_matches(rule_node)):
            yield Candidate((*precedence, *age, match_index), match, rule)


def _read_matches(node: HTTPRuleNode | GRPCRuleNode) -> Iterator[tuple[Match, Precedence]]:
    if isinstance(node, HTTPRuleNode):
        filters = [*node.filters, *(item for backend in node.backends for item in backend.filters)]
        preflights = any(item.resource.cors is not None for item in filters)
        for index, http in enumerate(node.matches):
            match = _build_match(http, preflights)
            # What is left of a match that cannot be had takes at least its requests, and where its place is.
            yield _widen(match) if index in node.unfit else match, _http_precedence(match)
    else:
        for index, grpc in enumerate(node.matches):
            match = _build_grpc_match(grpc)
            yield _widen(match) if index in node.unfit else match, _grpc_precedence(grpc.method, match)


def _widen(match: Match) -> Match:
    path = PathKey("regex", ANYTHING) if match.path.kind == "regex" else match.path
    return replace(match, path=path, headers=(), queries=())


def _http_precedence(match: Match) -> Precedence:
    return (
        _PATH_RANK[match.path.kind],
        -len(match.path.value) if match.path.kind == "prefix" else 0,
        0 if match.method else 1,
        -len(match.headers),
        -len(match.queries),
    )


def _grpc_precedence(method: GRPCMethodMatch | None, match: Match) -> Precedence:
    """Most characters in the service, then in the method; regular expressions come after what is named exactly."""
    service, name = (method.service or "", method.method or "") if method is not None else ("", "")
    is_regex = method is not None and method.type == "RegularExpression"
    ranks = [2 if not text else 1 if is_regex else 0 for text in (service, name)]
    return ranks[0], -len(service), ranks[1], -len(name), -len(match.headers)


def build_tcp_rule(node: RouteNode) -> Rule | None:
    """Give the rule of a TCPRoute or a TLSRoute, None where it has none that stands."""
    for rule in node.rules:
        return Rule(node.ref, rule.index, _build_backends(rule.backends, node.ref.kind))
    return None


def _build_rule(route: Ref, node: HTTPRuleNode | GRPCRuleNode) -> Rule:
    filters = build_filters(node.filters, route.kind)
    if isinstance(node, HTTPRuleNode) and (node.timeouts, node.retry) != (None, None):
        filters = replace(filters, timeouts=build_timeouts(node.timeouts), retry=build_retry(node.retry))
    backends = _build_backends(node.backends, route.kind)
    return Rule(route, node.index, backends, filters, build_session(node.session))


def _build_backends(nodes: Iterable[BackendNode], kind: str) -> tuple[Backend, ...]:
    return tuple(
        Backend(node.weight, node.service, build_filters(node.filters, kind), _protocol(node.service, kind))
        for node in nodes
        if node.weight > 0
    )


def _protocol(service: ServicePort | None, kind: str) -> Literal["h2"] | None:
    return None if service is None or kind in ("TCPRoute", "TLSRoute") else choose_protocol(service, kind)


def _build_match(match: HTTPRouteMatch, preflights: bool) -> Match:
    kind = _PATH_KINDS[match.path.type]
    path = match.path.value.rstrip("/") if kind == "prefix" else match.path.value
    return Match(
        PathKey(kind, path),
        match.method or "",
        _first_of_each(ValueMatch(h.name.lower(), h.value, h.type == "RegularExpression") for h in match.headers),
        _first_of_each(ValueMatch(q.name, q.value, q.type == "RegularExpression") for q in match.query_params),
        preflights and match.method is not None,
    )


def _build_grpc_match(match: GRPCRouteMatch) -> Match:
    headers = (ValueMatch(h.name.lower(), h.value, h.type == "RegularExpression") for h in match.headers)
    return Match(_grpc_path(match.method), "", _first_of_each(headers), ())


def _grpc_path(match: GRPCMethodMatch | None) -> PathKey:
    """The path of a gRPC request is ``/service/method``."""
    if match is None or not (match.service or match.method):
        return PathKey("prefix", "")
    if match.type == "Exact" and match.service:
        service = f"/{match.service}"
        return PathKey("exact", f"{service}/{match.method}") if match.method else PathKey("prefix", service)
    return PathKey("regex", method_pattern(match))


def _first_of_each(matches: Iterable[ValueMatch]) -> tuple[ValueMatch, ...]:
    """Of equal names only the first counts (HTTPRouteMatch.headers, .queryParams); the rest is put in order."""
    first: dict[str, ValueMatch] = {}
    for match in matches:
        first.setdefault(match.name, match)
    return tuple(first[name] for name in sorted(first))
