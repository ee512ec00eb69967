"""The node of a route, as if it were alone: where it attaches, which of its rules stand, and where these lead.

A route and a snapshot in; out comes a `RouteNode` with what is wrong. The surprising fact: a refused rule stays,
closed, where it has filters without which no request may pass: its requests are then errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from gwctl.api.grpcroute import GRPCRoute
from gwctl.api.httproute import HTTPBackendRef, HTTPRoute, HTTPRouteFilter
from gwctl.api.ref import Ref
from gwctl.api.tcproute import TCPRoute
from gwctl.api.tlsroute import TLSRoute
from gwctl.api.unreadable import UnreadableRoute
from gwctl.api.wire import BackendObjectReference, BackendRef
from gwctl.graph import problem
from gwctl.graph.attach import Attached, Parents, attach_route
from gwctl.graph.backendref import resolve_backend
from gwctl.graph.grpc import check_grpc_rule, find_unfit_grpc
from gwctl.graph.node import (
    BackendNode,
    FilterNode,
    GRPCRuleNode,
    HTTPRuleNode,
    Policies,
    Problem,
    Route,
    RouteNode,
    Rules,
    ServicePort,
    TCPRuleNode,
    in_order,
)
from gwctl.graph.validate import (
    Refusal,
    check_rule,
    find_unfit,
    first_of_equal_headers,
    first_of_equal_names,
    protects,
)
from gwctl.snapshot import Snapshot


def build_route(route: Route, snapshot: Snapshot, parents: Parents, policies: Policies) -> RouteNode | None:
    """Build the node of a route, as if it were alone; None when all its parents are those of others."""
    attached = attach_route(route, parents, snapshot)
    if not attached.is_ours:
        return None
    if isinstance(route, UnreadableRoute):
        told = (problem.unreadable_route(route.ref, field, message) for field, message in route.wrong)
        return RouteNode(route.ref, route, (), (), attached.references, in_order(told))
    builder = _RuleBuilder(route, snapshot, policies, attached)
    rules = builder.build()
    problems = builder.problems
    if route.spec.use_default_gateways == "All":
        message = "default Gateways are not supported"
        problems.append(problem.unsupported_route_field(route.ref, "spec.useDefaultGateways", message))
    # A GRPCRoute may have no rule to begin with.
    stands = any(map(_rule_stands, rules)) or not route.spec.rules
    return RouteNode(
        route.ref,
        route,
        attached.attachments if stands or rules else (),
        rules,
        frozenset(builder.references),
        in_order(problems),
        # Only accepted routes are counted (ListenerStatus.attachedRoutes).
        attached.listeners if stands else (),
        frozenset(builder.forbidden),
    )


class _RuleBuilder:
    """Makes the rules of one route that stand or are closed, and collects what is wrong and what they refer to."""

    def __init__(self, route: Route, snapshot: Snapshot, policies: Policies, attached: Attached) -> None:
        self.route = route
        self.snapshot = snapshot
        self.policies = policies
        self.terminating = attached.terminating
        self.problems: list[Problem] = list(attached.problems)
        self.references: set[Ref] = set(attached.references)
        self.forbidden: set[Ref] = set()
        self.refused: list[tuple[int, Refusal]] = []

    def build(self) -> Rules:
        rules: Rules
        if isinstance(self.route, HTTPRoute):
            rules = tuple(self._http(self.route))
        elif isinstance(self.route, GRPCRoute):
            rules = tuple(self._grpc(self.route))
        else:
            rules = tuple(self._tcp(self.route))
        others_stand = any(map(_rule_stands, rules))
        for index, refusal in self.refused:
            field = f"spec.rules[{index}].{refusal.field}"
            message = refusal.message if not others_stand else f"rule {index}: {refusal.message}"
            self.problems.append(problem.unsupported_value(self.route.ref, field, message, others_stand=others_stand))
        return rules

    def _http(self, route: HTTPRoute) -> Iterator[HTTPRuleNode]:
        for index, rule in enumerate(route.spec.rules):
            if self._stands(index, check_rule(rule)):
                matches, filters = (
                    first_of_equal_names(rule.matches),
                    self._filters(f"spec.rules[{index}]", rule.filters),
                )
                backends = self._backends(index, rule.backend_refs)
                more = rule.timeouts, rule.retry, rule.session_persistence
                yield HTTPRuleNode(index, rule.name or "", matches, filters, backends, *more)
            elif protects(rule):
                matches, unfit = first_of_equal_names(rule.matches), find_unfit(rule.matches)
                yield HTTPRuleNode(index, rule.name or "", matches, (), (), closed=True, unfit=unfit)

    def _grpc(self, route: GRPCRoute) -> Iterator[GRPCRuleNode]:
        for index, rule in enumerate(route.spec.rules):
            if self._stands(index, check_grpc_rule(rule)):
                backends = self._backends(index, rule.backend_refs)
                filters = self._filters(f"spec.rules[{index}]", rule.filters)
                session = rule.session_persistence
                yield GRPCRuleNode(index, rule.name or "", rule.matches, filters, backends, session)
            elif protects(rule):
                unfit = find_unfit_grpc(rule.matches)
                yield GRPCRuleNode(index, rule.name or "", rule.matches, (), (), closed=True, unfit=unfit)

    def _tcp(self, route: TCPRoute | TLSRoute) -> Iterator[TCPRuleNode]:
        for index, rule in enumerate(route.spec.rules):
            yield TCPRuleNode(index, rule.name or "", self._backends(index, rule.backend_refs))

    def _stands(self, index: int, refusals: list[Refusal]) -> bool:
        self.refused += ((index, refusal) for refusal in refusals)
        return not refusals

    def _backends(self, index: int, refs: Sequence[BackendRef]) -> tuple[BackendNode, ...]:
        return tuple(self._backend(f"spec.rules[{index}].backendRefs[{place}]", ref) for place, ref in enumerate(refs))

    def _backend(self, field: str, ref: BackendRef) -> BackendNode:
        filters = self._filters(field, ref.filters) if isinstance(ref, HTTPBackendRef) else ()
        return BackendNode(ref.weight, self._resolve(field, ref), filters)

    def _filters(self, field: str, filters: Iterable[HTTPRouteFilter]) -> tuple[FilterNode, ...]:
        found: list[FilterNode] = []
        for index, item in enumerate(filters):
            service = None
            for name, asked in (("requestMirror", item.request_mirror), ("externalAuth", item.external_auth)):
                if asked is not None:
                    service = self._resolve(f"{field}.filters[{index}].{name}.backendRef", asked.backend_ref)
            found.append(FilterNode(first_of_equal_headers(item), service))
        return tuple(found)

    def _resolve(self, field: str, ref: BackendObjectReference) -> ServicePort | None:
        resolved = resolve_backend(self.snapshot, self.policies, self.route.ref, ref, field)
        if resolved.reference is not None:
            self.references.add(resolved.reference)
            if resolved.forbidden:
                self.forbidden.add(resolved.reference)
        if resolved.problem is not None and resolved.service is None:
            self.problems.append(resolved.problem)
        elif resolved.problem is not None:
            self.problems += (replace(resolved.problem, parent=index) for index in self.terminating)
        return resolved.service


def _rule_stands(rule: HTTPRuleNode | GRPCRuleNode | TCPRuleNode) -> bool:
    return isinstance(rule, TCPRuleNode) or not rule.closed
