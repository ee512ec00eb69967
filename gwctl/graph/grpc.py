"""GRPCRoutes' rules: which of them we can serve, and what the method of a match means for a request's path.

A gRPC request is a POST to ``/service/method``. The surprising fact: services and methods never hold a ``/``, but
regular expressions for them may well match one; so an expression sees a path of exactly two elements, or nothing.
"""

from __future__ import annotations

import re
from urllib.parse import quote

import pcre2

from gwctl.api.grpcroute import GRPCMethodMatch, GRPCRouteMatch, GRPCRouteRule
from gwctl.api.httproute import HTTPRouteRule
from gwctl.graph.validate import MATCH_LIMIT, Refusal, check_header_match, check_rule, find_refused, regex_error

METHOD_LIMIT = 1024
"""Longest service and method together: as long as the path of an HTTPRoute."""

_ANY = "[^/]+"
_GROUP_NUMBER = re.compile(r"\\[1-9g]|\(\?[-+]?[0-9]")


def check_grpc_rule(rule: GRPCRouteRule) -> list[Refusal]:
    """Everything for which a rule is refused; empty when it stands."""
    found: list[Refusal] = []
    for index, match in enumerate(rule.matches):
        _check_match(match, f"matches[{index}]", found)
    return [*found, *check_rule(shared_part(rule))]


def find_unfit_grpc(matches: tuple[GRPCRouteMatch, ...]) -> frozenset[int]:
    """The places of the matches that HAProxy cannot have."""
    return find_refused(matches, _check_match)


def shared_part(rule: GRPCRouteRule) -> HTTPRouteRule:
    """All of a rule but its matches, as the rule of an HTTPRoute: there it means the same."""
    return HTTPRouteRule.model_construct(
        matches=(),
        filters=rule.filters,
        backend_refs=rule.backend_refs,
        session_persistence=rule.session_persistence,
    )


def method_pattern(match: GRPCMethodMatch) -> str:
    """The regular expression for the whole path of the requests that a match takes; of exact ones only a method."""
    if match.type == "Exact":
        return f"/{_ANY}/{match.method}"
    return f"(?=/{_ANY}/{_ANY}\\z)/(?:{match.service or _ANY})/(?:{match.method or _ANY})"


def _check_match(match: GRPCRouteMatch, field: str, found: list[Refusal]) -> None:
    if match.method is not None:
        _check_method(match.method, f"{field}.method", found)
    for index, header in enumerate(match.headers):
        check_header_match(header, f"{field}.headers[{index}].value", found)
    texts = [text for header in match.headers for text in (header.name, header.value)]
    if match.method is not None and match.method.type == "RegularExpression":
        texts.append(method_pattern(match.method))
    if sum(len(quote(text, safe="")) + 4 for text in texts) > MATCH_LIMIT:
        message = f"is longer than {MATCH_LIMIT} bytes when percent-encoded, which is all that HAProxy takes"
        found.append(Refusal(field, message))


def _check_method(match: GRPCMethodMatch, field: str, found: list[Refusal]) -> None:
    service, method = match.service or "", match.method or ""
    if match.type == "Exact":
        if len(service) + len(method) + 2 > METHOD_LIMIT:
            found.append(Refusal(field, f"service and method are longer than {METHOD_LIMIT - 2} characters together"))
        return
    errors = [
        Refusal(f"{field}.{name}", error)
        for name, pattern in (("service", service), ("method", method))
        if (error := regex_error(pattern)) is not None
    ]
    if not errors and _GROUP_NUMBER.search(method) and pcre2.compile(service.encode()).groups:
        # In the one expression that both become, the groups of the service count first.
        errors.append(Refusal(f"{field}.method", "must not refer to groups where the service's expression has some"))
    if not errors and (error := regex_error(method_pattern(match))) is not None:
        errors.append(Refusal(field, f"service and method together: {error}"))
    found += errors
