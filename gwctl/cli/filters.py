"""Filters as ``gwctl explain`` tells them: a title and a text for each thing that they do."""

from __future__ import annotations

from collections.abc import Iterator

from gwctl.routing.effect import origin_fits, rewritten_path
from gwctl.routing.filter import Cors, Filters, HeaderFilter, Retry, Timeouts
from gwctl.routing.request import Request
from gwctl.routing.rule import PathKey
from gwctl.routing.session import Session


def describe_filters(filters: Filters, matched: PathKey, request: Request) -> Iterator[tuple[str, str]]:
    """Yield what filters do to a request, but for a redirect."""
    if filters.request_headers is not None:
        yield "headers", _describe_headers(filters.request_headers)
    if filters.response_headers is not None:
        yield "response", _describe_headers(filters.response_headers)
    if filters.rewrite is not None:
        parts = [f"host {filters.rewrite.hostname}"] if filters.rewrite.hostname else []
        if filters.rewrite.path is not None:
            parts.append(f"path {rewritten_path(filters.rewrite, matched, request.path)}")
        yield "rewrite", ", ".join(parts)
    if filters.cors is not None:
        yield "cors", _describe_cors(filters.cors, request)
    for auth in filters.auths:
        asked = auth.service and f"{auth.service.namespace}/{auth.service.name} port {auth.service.port}"
        yield "auth", f"Service {asked} is asked" if asked else "nobody can be asked, so it is denied"
    for mirror in filters.mirrors:
        share = "" if mirror.numerator == mirror.denominator else f", {mirror.numerator} of {mirror.denominator}"
        service = f"{mirror.service.namespace}/{mirror.service.name} port {mirror.service.port}"
        yield "mirror", f"Service {service}{share}"
    if filters.retry is not None:
        yield "retry", _describe_retry(filters.retry)
    if filters.timeouts is not None:
        yield "timeouts", ", ".join(_describe_timeouts(filters.timeouts))


def describe_session(session: Session) -> str:
    """Say how a rule keeps clients at their servers."""
    kind = "header" if session.in_header else "permanent cookie" if session.is_permanent else "cookie"
    name = session.name or "of gwctl's choosing"
    return f"{kind} {name}" + (f", for {session.seconds} s" if session.seconds else "")


def _describe_cors(cors: Cors, request: Request) -> str:
    origin = request.header("origin")
    if origin is None:
        return "the request has no origin"
    allowed = "allowed" if any(origin_fits(wanted, origin) for wanted in cors.origins) else "not allowed"
    return f"origin {origin} is {allowed}" + (", preflight answered 204" if request.preflight_method else "")


def _describe_retry(retry: Retry) -> str:
    parts = [f"{retry.attempts} more attempt{'' if retry.attempts == 1 else 's'} after a failed connection"]
    if retry.codes:
        parts.append(f"or status {', '.join(map(str, retry.codes))}")
    if retry.pause:
        parts.append(f"each after {retry.pause} ms")
    return ", ".join(parts)


def _describe_timeouts(timeouts: Timeouts) -> Iterator[str]:
    for name, limit in (("request", timeouts.request), ("backend request", timeouts.backend_request)):
        if limit is not None:
            yield f"{name} {limit} ms" if limit else f"{name} without limit"


def _describe_headers(headers: HeaderFilter) -> str:
    changes = [
        *(f"remove {name}" for name in headers.remove),
        *(f"set {name}: {value}" for name, value in headers.set),
        *(f"add {name}: {value}" for name, value in headers.add),
    ]
    return ", ".join(changes)
