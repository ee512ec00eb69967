"""The reference matcher: which rule takes a request, said as plainly as the specification says it.

It knows nothing of tables. It is the oracle that HAProxy is tested against, and what ``gwctl explain`` answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import pcre2

from gwctl.routing.request import Request
from gwctl.routing.rule import Candidate, Match, PathKey, ValueMatch
from gwctl.routing.virtualhost import ANY_HOST, FrontendKey, Routing, SniRule, VirtualHost, covers, specificity


@dataclass(frozen=True, slots=True)
class Verdict:
    """``host`` is None when no listener knows the host; ``candidate`` is None when no rule fits (both are 404).

    ``passed_over`` are the candidates that would have come first and did not fit.
    """

    host: VirtualHost | None
    candidate: Candidate | None
    passed_over: tuple[Candidate, ...] = ()


def find_rule(routing: Routing, frontend: FrontendKey, request: Request) -> Verdict:
    """Decide which rule takes a request that comes in at a frontend."""
    hosts = [host for host in routing.hosts.get(frontend, {}) if covers(host, request.hostname)]
    if not hosts:
        return Verdict(None, None)
    host = routing.hosts[frontend][max(hosts, key=specificity)]
    passed: list[Candidate] = []
    candidates = [candidate for found in routing.paths[host].values() for candidate in found]
    for candidate in sorted(candidates, key=lambda candidate: candidate.order):
        if match_fits(candidate.match, request):
            return Verdict(host, candidate, tuple(passed))
        passed.append(candidate)
    return Verdict(host, None, tuple(passed))


def find_sni_rule(routing: Routing, frontend: FrontendKey, server_name: str) -> SniRule | None:
    """Decide what becomes of a connection by the name in its handshake (empty: none); None: it is closed."""
    asked = server_name.lower().rstrip(".") or ANY_HOST
    names = [name for name in routing.sni.get(frontend, {}) if covers(name, asked)]
    return routing.sni[frontend][max(names, key=specificity)] if names else None


def match_fits(match: Match, request: Request) -> bool:
    """Tell whether all conditions of a match hold for a request."""
    return (
        path_fits(match.path, request.path)
        and method_fits(match, request)
        and all(_value_fits(wanted, request.header(wanted.name)) for wanted in match.headers)
        and all(_value_fits(wanted, request.parameter(_latin1(wanted.name))) for wanted in match.queries)
    )


def method_fits(match: Match, request: Request) -> bool:
    """Tell whether the method fits, or where that is welcome the one that a CORS preflight asks about."""
    return match.method in ("", request.method) or (match.preflights and match.method == request.preflight_method)


def path_fits(path: PathKey, request_path: str) -> bool:
    """Tell whether a path fits: a prefix by whole elements, a regular expression by the whole path."""
    if path.kind == "exact":
        return request_path == path.value
    if path.kind == "prefix":
        return request_path.startswith("/") and (request_path + "/").startswith(path.value + "/")
    return _regex_fits(path.value, request_path)


def _value_fits(wanted: ValueMatch, value: str | None) -> bool:
    if value is None:
        return False
    return _regex_fits(wanted.value, value) if wanted.regex else _latin1(wanted.value) == value


def _regex_fits(pattern: str, value: str) -> bool:
    """Tell whether the whole value fits; nothing fits a pattern that goes astray (PCRE2's match limit)."""
    try:
        return _compile(pattern).match(value.encode("latin-1")) is not None
    except pcre2.LibraryError:
        return False


@lru_cache(maxsize=1000)
def _compile(pattern: str) -> pcre2.Pattern[bytes]:
    return pcre2.compile(b"\\A(?:" + pattern.encode() + b")\\z")


def _latin1(text: str) -> str:
    """Give the bytes of a configured text (UTF-8) as a request carries them."""
    return text.encode().decode("latin-1")
