"""What a route's rule means, freed from where it was written.

A rule of a route becomes one `Candidate` for each of its matches. Candidates are totally ordered by the precedence of
the specification (HTTPRouteRule.matches), so ties never depend on the order of arrival.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gwctl.api.httproute import HTTPRouteMatch
from gwctl.api.ref import Ref
from gwctl.graph.node import BackendNode, HTTPRuleNode, RouteNode, ServicePort
from gwctl.routing.filter import NO_FILTERS, Filters, build_filters

PathKind = Literal["exact", "regex", "prefix"]

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
    """All conditions of one match; they are joined by and. An empty ``method`` means any."""

    path: PathKey
    method: str
    headers: tuple[ValueMatch, ...]
    queries: tuple[ValueMatch, ...]


@dataclass(frozen=True, slots=True)
class Backend:
    """A share of a rule's requests. ``service`` None answers 500. ``filters`` come after those of the rule."""

    weight: int
    service: ServicePort | None
    filters: Filters = NO_FILTERS


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to a request that the rule takes. Without a redirect and without weight it is answered 500."""

    route: Ref
    index: int
    backends: tuple[Backend, ...]
    filters: Filters = NO_FILTERS

    @property
    def name(self) -> str:
        """The rule's name in logs and metrics: namespace/name/index."""
        return f"{self.route.namespace}/{self.route.name}/{self.index}"

    def filters_of(self, backend: Backend | None) -> Filters:
        """Give all filters that a request meets on its way to a backend; None and one that is missing have none."""
        if backend is None or backend.service is None:
            return self.filters
        return self.filters.then(backend.filters)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A match with its rule. Of the candidates that fit a request, the least ``order`` takes it."""

    order: tuple[int, int, int, int, int, str, str, str, int, int]
    match: Match
    rule: Rule


def build_candidates(node: RouteNode) -> Iterator[Candidate]:
    """Yield a candidate for every match of every rule that stands in an HTTPRoute."""
    created = node.resource.metadata.created
    for rule_node in node.rules:
        if not isinstance(rule_node, HTTPRuleNode):
            continue
        rule = _build_rule(node.ref, rule_node)
        for match_index, resource_match in enumerate(rule_node.matches):
            match = _build_match(resource_match)
            order = (
                _PATH_RANK[match.path.kind],
                -len(match.path.value) if match.path.kind == "prefix" else 0,
                0 if match.method else 1,
                -len(match.headers),
                -len(match.queries),
                created,
                node.ref.namespace,
                node.ref.name,
                rule_node.index,
                match_index,
            )
            yield Candidate(order, match, rule)


def build_tcp_rule(node: RouteNode) -> Rule | None:
    """Give the rule of a TCPRoute, None where it has none that stands."""
    for rule in node.rules:
        return Rule(node.ref, rule.index, _build_backends(rule.backends))
    return None


def _build_rule(route: Ref, node: HTTPRuleNode) -> Rule:
    return Rule(route, node.index, _build_backends(node.backends), build_filters(node.filters))


def _build_backends(nodes: Iterable[BackendNode]) -> tuple[Backend, ...]:
    return tuple(Backend(node.weight, node.service, build_filters(node.filters)) for node in nodes if node.weight > 0)


def _build_match(match: HTTPRouteMatch) -> Match:
    kind = _PATH_KINDS[match.path.type]
    path = match.path.value.rstrip("/") if kind == "prefix" else match.path.value
    return Match(
        PathKey(kind, path),
        match.method or "",
        _first_of_each(ValueMatch(h.name.lower(), h.value, h.type == "RegularExpression") for h in match.headers),
        _first_of_each(ValueMatch(q.name, q.value, q.type == "RegularExpression") for q in match.query_params),
    )


def _first_of_each(matches: Iterable[ValueMatch]) -> tuple[ValueMatch, ...]:
    """Of equal names only the first counts (HTTPRouteMatch.headers, .queryParams); the rest is put in order."""
    first: dict[str, ValueMatch] = {}
    for match in matches:
        first.setdefault(match.name, match)
    return tuple(first[name] for name in sorted(first))
