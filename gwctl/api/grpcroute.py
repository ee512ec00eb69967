"""GRPCRoute: every field of version 1.6 of the specification.

What it shares with HTTPRoute (filters, backendRefs, session persistence) is of the same types, so that the same code
reads it. The surprising facts: a GRPCRoute may have no rule at all, where an HTTPRoute then has one that fits
everything; and equal names in the headers of one match are let through, of which the first counts, as with HTTPRoutes.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, StrictStr

from gwctl.api.httproute import HTTPBackendRef, HTTPRouteFilter, SessionPersistence, check_filters, check_session
from gwctl.api.meta import Object
from gwctl.api.wire import (
    HeaderName,
    Hostname,
    Loc,
    ParentRefs,
    SectionName,
    Violation,
    Wire,
    check_backend_port,
    check_matches,
    check_parent_refs,
)

_SERVICE = re.compile(r"\.?[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*")
_METHOD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


class GRPCMethodMatch(Wire):
    """``service`` or ``method`` is given; None, and an empty regular expression, stand for any."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    service: Annotated[StrictStr, Field(max_length=1024)] | None = None
    method: Annotated[StrictStr, Field(max_length=1024)] | None = None


class GRPCHeaderMatch(Wire):
    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: HeaderName
    value: Annotated[StrictStr, Field(min_length=1, max_length=4096)]


class GRPCRouteMatch(Wire):
    """All of it must fit. ``method`` None: any method of any service."""

    method: GRPCMethodMatch | None = None
    headers: Annotated[tuple[GRPCHeaderMatch, ...], Field(max_length=16)] = ()


class GRPCRouteFilter(HTTPRouteFilter):
    """A filter of an HTTPRoute, of those kinds that make sense for gRPC."""

    type: Literal["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef"]


Filters = Annotated[tuple[GRPCRouteFilter, ...], Field(max_length=16)]


class GRPCBackendRef(HTTPBackendRef):
    filters: Filters = ()


_ANY_REQUEST = (GRPCRouteMatch(),)


def _at_least_one(matches: tuple[GRPCRouteMatch, ...]) -> tuple[GRPCRouteMatch, ...]:
    return matches or _ANY_REQUEST


Matches = Annotated[tuple[GRPCRouteMatch, ...], Field(max_length=64), AfterValidator(_at_least_one)]


class GRPCRouteRule(Wire):
    """A rule. It always has at least one match: without any, the one that fits every request."""

    name: SectionName | None = None
    matches: Matches = _ANY_REQUEST
    filters: Filters = ()
    backend_refs: Annotated[tuple[GRPCBackendRef, ...], Field(max_length=16)] = ()
    session_persistence: SessionPersistence | None = None


class GRPCRouteSpec(Wire):
    parent_refs: ParentRefs = ()
    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=16)] = ()
    rules: Annotated[tuple[GRPCRouteRule, ...], Field(max_length=16)] = ()
    use_default_gateways: Literal["All", "None"] | None = None


class GRPCRoute(Object):
    kind: ClassVar[str] = "GRPCRoute"

    spec: GRPCRouteSpec

    def check(self) -> list[Violation]:
        found = super().check()
        found += check_parent_refs(self.spec.parent_refs, ("spec", "parentRefs"))
        found += check_matches(len(rule.matches) for rule in self.spec.rules)
        for index, rule in enumerate(self.spec.rules):
            _check_rule(rule, ("spec", "rules", index), found)
        return found


def _check_rule(rule: GRPCRouteRule, loc: Loc, found: list[Violation]) -> None:
    for index, match in enumerate(rule.matches):
        if match.method is not None:
            _check_method(match.method, (*loc, "matches", index, "method"), found)
    check_filters(rule.filters, (), (*loc, "filters"), found)
    for index, ref in enumerate(rule.backend_refs):
        ref_loc: Loc = (*loc, "backendRefs", index)
        found += check_backend_port(ref, ref_loc)
        check_filters(ref.filters, (), (*ref_loc, "filters"), found)
    check_session(rule.session_persistence, (*loc, "sessionPersistence"), found)


def _check_method(match: GRPCMethodMatch, loc: Loc, found: list[Violation]) -> None:
    if match.service is None and match.method is None:
        found.append(Violation(loc, "one or both of service and method must be specified"))
    if match.type != "Exact":
        return
    if match.service is not None and not _SERVICE.fullmatch(match.service):
        message = "must be names of letters, digits and '_', not beginning with a digit, joined by '.'"
        found.append(Violation((*loc, "service"), message))
    if match.method is not None and not _METHOD.fullmatch(match.method):
        message = "must be letters, digits and '_', not beginning with a digit"
        found.append(Violation((*loc, "method"), message))
