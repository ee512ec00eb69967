"""What of a rule we cannot do: not supported yet, or not possible in HAProxy.

Such a rule is refused, never bent. The surprising fact: a regular expression is compiled twice, alone and
as HAProxy gets it (``\\A(?:…)\\z``), because ``a)|(b`` is fine in the second form only, and would then match
what its author never wrote.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple, TypeVar
from urllib.parse import quote

import pcre2

from gwctl.api.grpcroute import GRPCHeaderMatch, GRPCRouteRule
from gwctl.api.httproute import (
    FILTER_FIELDS,
    HTTPCORSFilter,
    HTTPExternalAuthFilter,
    HTTPHeader,
    HTTPHeaderFilter,
    HTTPHeaderMatch,
    HTTPPathModifier,
    HTTPQueryParamMatch,
    HTTPRouteFilter,
    HTTPRouteMatch,
    HTTPRouteRule,
    SessionPersistence,
    duration_milliseconds,
)
from gwctl.api.wire import HEADER_NAME_PATTERN

# What rules may use.
SUPPORTED_FILTERS = frozenset(
    {
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestRedirect",
        "URLRewrite",
        "CORS",
        "RequestMirror",
        "ExternalAuth",
    }
)
_UNSUPPORTED_FILTERS = {"ExtensionRef": ": gwctl has no filters of its own"}
_HEADER_FILTERS = ("RequestHeaderModifier", "ResponseHeaderModifier")

MATCH_LIMIT = 9_000
"""Longest match in bytes, its values percent-encoded. With what its rule does it must fit into one row of a table."""

HEADERS_LIMIT = 8_900
"""Longest header modifier in bytes. In base64 it must fit into one row of a table."""

CORS_LIMIT = 12_000
"""Longest CORS policy in bytes, its values percent-encoded. It must fit into one row of a table."""

MOST_RETRIES = 100
"""How often HAProxy can retry a request."""

AUTHS_LIMIT = 12_000
"""Longest ExternalAuth filters of a rule and a backend in bytes. They must fit into one row of a table."""

WILDCARD_LEVELS = 12
"""How many labels may follow ``*.`` in a host name: one look-up each, for hosts without a row of their own."""

Match = TypeVar("Match")

_HEADER_NAME = re.compile(HEADER_NAME_PATTERN[1:-1])
_PRINTABLE = re.compile(r"[!-~]*")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_ORIGIN = re.compile(
    r"\*|[A-Za-z][A-Za-z0-9+.-]*://(\*|\*?[^*/?#:\[\]\x00-\x20\x7f-\U0010ffff]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
)
_END_OF_LINE = re.compile(r"[\0\r\n]")


class Refusal(NamedTuple):
    """Why a rule is refused; ``field`` is a path below the rule."""

    field: str
    message: str


MESSAGE_HEADERS = frozenset({"connection", "upgrade", "content-length", "transfer-encoding"})
"""Headers that HAProxy makes itself for each connection: it would drop a change of them without a word."""


_TOKEN = re.compile(HEADER_NAME_PATTERN)
_TAKEN_HEADERS = MESSAGE_HEADERS | {"host", "cookie", "set-cookie"}


def check_rule(rule: HTTPRouteRule) -> list[Refusal]:
    """Everything for which a rule is refused; empty when it stands."""
    found: list[Refusal] = []
    for index, match in enumerate(rule.matches):
        _check_match(match, f"matches[{index}]", found)
    found += check_filters(rule.filters, "filters")
    for index, ref in enumerate(rule.backend_refs):
        found += check_filters((*rule.filters, *ref.filters), f"backendRefs[{index}].filters", len(rule.filters))
    if rule.retry is not None and not 0 <= (rule.retry.attempts or 0) <= MOST_RETRIES:
        found.append(Refusal("retry.attempts", f"must be between 0 and {MOST_RETRIES}"))
    if rule.session_persistence is not None:
        _check_session(rule.session_persistence, found)
        if rule.retry is not None and rule.retry.attempts != 0:
            found.append(Refusal("sessionPersistence", "sessions of a rule with retries are not supported"))
    return found


def protects(rule: HTTPRouteRule | GRPCRouteRule) -> bool:
    """Tell whether a rule has filters without which no request may pass: if it is refused, nobody gets its requests.

    Requests for a filter of others that is not there must get an error (HTTPRouteFilter.extensionRef).
    """
    filters = (*rule.filters, *(item for ref in rule.backend_refs for item in ref.filters))
    return any(item.type in ("ExternalAuth", "ExtensionRef") for item in filters)


def find_unfit(matches: tuple[HTTPRouteMatch, ...]) -> frozenset[int]:
    """The places of the matches that HAProxy cannot have."""
    return find_refused(matches, _check_match)


def find_refused(matches: Iterable[Match], check: Callable[[Match, str, list[Refusal]], None]) -> frozenset[int]:
    """The places of the matches, of any kind, in which a check finds something."""
    refused: set[int] = set()
    for index, match in enumerate(matches):
        found: list[Refusal] = []
        check(match, "", found)
        if found:
            refused.add(index)
    return frozenset(refused)


def _check_session(session: SessionPersistence, found: list[Refusal]) -> None:
    name = session.session_name
    if name and not _TOKEN.fullmatch(name):
        found.append(Refusal("sessionPersistence.sessionName", f"{name!r} is no name of a cookie or a header"))
    elif name and session.type == "Header" and name.lower() in _TAKEN_HEADERS:
        found.append(Refusal("sessionPersistence.sessionName", f"the header {name} has another meaning"))
    if session.absolute_timeout is not None and duration_milliseconds(session.absolute_timeout) == 0:
        found.append(Refusal("sessionPersistence.absoluteTimeout", "a session of 0s is none"))


def hostname_error(hostname: str) -> str | None:
    """Why a host name of a listener or a route cannot be served; None when it can."""
    if hostname.startswith("*.") and hostname.count(".") > WILDCARD_LEVELS:
        return f"has more than {WILDCARD_LEVELS} labels after the wildcard, which is not supported"
    return None


def _check_match(match: HTTPRouteMatch, field: str, found: list[Refusal]) -> None:
    if match.path.type == "RegularExpression":
        _check_regex(match.path.value, f"{field}.path.value", found)
    for index, header in enumerate(match.headers):
        check_header_match(header, f"{field}.headers[{index}].value", found)
    for index, parameter in enumerate(match.query_params):
        if parameter.type == "RegularExpression":
            _check_regex(parameter.value, f"{field}.queryParams[{index}].value", found)
    if _encoded_length(match) > MATCH_LIMIT:
        message = (
            f"is longer than {MATCH_LIMIT} bytes when its values are percent-encoded, which is all that HAProxy takes"
        )
        found.append(Refusal(field, message))


def check_header_match(header: HTTPHeaderMatch | GRPCHeaderMatch, field: str, found: list[Refusal]) -> None:
    """Check the value that a header must have; the CRDs let any text through."""
    if header.type == "RegularExpression":
        _check_regex(header.value, field, found)
    elif _END_OF_LINE.search(header.value):
        found.append(Refusal(field, "must not contain NUL or newline characters"))


def _encoded_length(match: HTTPRouteMatch) -> int:
    values: list[HTTPHeaderMatch | HTTPQueryParamMatch] = [*match.headers, *match.query_params]
    texts = [match.path.value, *(text for item in values for text in (item.name, item.value))]
    characters = sum(map(len, texts)) + 4 * len(values)
    # A character has at most four bytes, each of which becomes three.
    if characters * 12 <= MATCH_LIMIT:
        return characters
    return sum(len(quote(text, safe="")) for text in texts) + 4 * len(values)


def _check_regex(pattern: str, field: str, found: list[Refusal]) -> None:
    message = regex_error(pattern)
    if message is not None:
        found.append(Refusal(field, message))


@lru_cache(maxsize=16384)
def regex_error(pattern: str) -> str | None:
    """Why HAProxy cannot match a whole value against a pattern; None when it can."""
    if any(character in pattern for character in "\0\n\r"):
        return "must not contain NUL or newline characters"
    data = pattern.encode()
    for wrapped in (data, b"\\A(?:" + data + b")\\z"):
        try:
            pcre2.compile(wrapped)
        except pcre2.PatternError as error:
            where = "is no regular expression" if wrapped is data else "does not stand inside a group"
            return f"{where}: PCRE2: {error}"
    return None


def check_filters(filters: tuple[HTTPRouteFilter, ...], field: str, first: int = 0) -> list[Refusal]:
    """Everything for which filters are refused, from the one at ``first`` on; those before it are their rule's.

    What a backendRef's filters do comes after what its rule's do, so only both together must fit into a row.
    """
    found: list[Refusal] = []
    for index, item in enumerate(filters[first:]):
        _check_filter(item, f"{field}[{index}]", found)
        if item.type in _HEADER_FILTERS and _headers_length(filters, item.type) > HEADERS_LIMIT:
            message = f"is longer than {HEADERS_LIMIT} bytes, which is all that HAProxy takes"
            found.append(Refusal(f"{field}[{index}].{FILTER_FIELDS[item.type][1]}", message))
        if item.external_auth is not None and _auths_length(filters) > AUTHS_LIMIT:
            message = f"lists of headers are longer than {AUTHS_LIMIT} bytes, which is all that HAProxy takes"
            found.append(Refusal(f"{field}[{index}].externalAuth.http", message))
    return found


def _auths_length(filters: tuple[HTTPRouteFilter, ...]) -> int:
    """How many bytes all ExternalAuth filters take in a row, at most: percent-encoded, each with its Service."""
    configs = [item.external_auth.http for item in filters if item.external_auth is not None]
    names = [
        name for http in configs if http is not None for name in (*http.allowed_headers, *http.allowed_response_headers)
    ]
    paths = sum(len(http.path or "") for http in configs if http is not None)
    return 3 * (paths + sum(map(len, names))) + len(names) + 400 * len(configs)


def _check_auth(auth: HTTPExternalAuthFilter, field: str, found: list[Refusal]) -> None:
    if auth.protocol == "GRPC":
        found.append(Refusal(f"{field}.protocol", "Envoy's protocol is not spoken: use HTTP"))
    if auth.forward_body is not None and auth.forward_body.max_size:
        found.append(Refusal(f"{field}.forwardBody", "bodies are not forwarded"))
    lists = () if auth.http is None else (auth.http.allowed_headers, auth.http.allowed_response_headers)
    wrong = [name for names in lists for name in names if not _TOKEN.fullmatch(name)]
    found += (Refusal(f"{field}.http", f"{name!r} is no name of a header") for name in wrong)


def _check_filter(item: HTTPRouteFilter, field: str, found: list[Refusal]) -> None:
    if item.type not in SUPPORTED_FILTERS:
        why = _UNSUPPORTED_FILTERS.get(item.type, "")
        found.append(Refusal(f"{field}.type", f"the filter {item.type} is not supported{why}"))
        return
    field = f"{field}.{FILTER_FIELDS[item.type][1]}"
    if item.request_header_modifier is not None:
        _check_headers(item.request_header_modifier, field, found)
        _check_host(item.request_header_modifier, field, found)
    if item.response_header_modifier is not None:
        _check_headers(item.response_header_modifier, field, found)
    if item.cors is not None:
        _check_cors(item.cors, field, found)
    if item.external_auth is not None:
        _check_auth(item.external_auth, field, found)
    for changed in (item.request_redirect, item.url_rewrite):
        if changed is not None and changed.path is not None:
            _check_path_modifier(changed.path, f"{field}.path", found)


def _check_headers(modifier: HTTPHeaderFilter, field: str, found: list[Refusal]) -> None:
    for index, name in enumerate(modifier.remove):
        # The CRD lets any text through here.
        if not _HEADER_NAME.fullmatch(name):
            found.append(Refusal(f"{field}.remove[{index}]", f"{name!r} is no header name"))
        elif name.lower() in MESSAGE_HEADERS:
            found.append(Refusal(f"{field}.remove[{index}]", f"{name} belongs to the connection, not to the route"))
    for action in ("set", "add"):
        for index, header in enumerate(getattr(modifier, action)):
            if header.name.lower() in MESSAGE_HEADERS:
                message = f"{header.name} belongs to the connection, not to the route"
                found.append(Refusal(f"{field}.{action}[{index}].name", message))
            if _CONTROL.search(header.value):
                # HAProxy would send it as it is: a new line begins another header.
                message = "must not contain control characters other than tabs"
                found.append(Refusal(f"{field}.{action}[{index}].value", message))


def _check_host(modifier: HTTPHeaderFilter, field: str, found: list[Refusal]) -> None:
    """A request has exactly one Host (RFC 9112, section 3.2)."""
    for action, names in (("add", [header.name for header in modifier.add]), ("remove", modifier.remove)):
        for index, name in enumerate(names):
            if name.lower() == "host":
                where = f"{field}.{action}[{index}]" + (".name" if action == "add" else "")
                found.append(Refusal(where, "a request has exactly one Host: it can only be set"))


def _check_cors(cors: HTTPCORSFilter, field: str, found: list[Refusal]) -> None:
    for index, origin in enumerate(cors.allow_origins):
        # CRDs before v1.5 let more through, as paths.
        if not _ORIGIN.fullmatch(origin):
            message = "must be '*' or SCHEME://HOST[:PORT], of which the host may begin with '*'"
            found.append(Refusal(f"{field}.allowOrigins[{index}]", message))
    if _cors_length(cors) > CORS_LIMIT:
        message = f"is longer than {CORS_LIMIT} bytes when it is percent-encoded, which is all that HAProxy takes"
        found.append(Refusal(field, message))


def _cors_length(cors: HTTPCORSFilter) -> int:
    values = (*cors.allow_origins, *cors.allow_methods, *cors.allow_headers, *cors.expose_headers)
    return sum(len(quote(value, safe="")) + 1 for value in values)


def _headers_length(filters: Iterable[HTTPRouteFilter], kind: str) -> int:
    """The length of all modifiers of a kind as HAProxy reads it, where a text's length takes up to three bytes."""
    length = 0
    for item in filters:
        modifier: HTTPHeaderFilter | None = getattr(item, FILTER_FIELDS[kind][0])
        if modifier is not None:
            length += sum(
                len(header.name) + len(header.value.encode()) + 6 for header in (*modifier.set, *modifier.add)
            )
            length += sum(len(name) + 3 for name in modifier.remove)
    return length


def _check_path_modifier(path: HTTPPathModifier, field: str, found: list[Refusal]) -> None:
    """The CRD lets any text through here, which would go into a response header as it is."""
    for name, value in (
        ("replaceFullPath", path.replace_full_path),
        ("replacePrefixMatch", path.replace_prefix_match),
    ):
        if value and not value.startswith("/"):
            found.append(Refusal(f"{field}.{name}", "must start with '/'"))
        if value and not _PRINTABLE.fullmatch(value):
            message = "must be printable ASCII without spaces; percent-encode the rest"
            found.append(Refusal(f"{field}.{name}", message))


def first_of_equal_names(matches: tuple[HTTPRouteMatch, ...]) -> tuple[HTTPRouteMatch, ...]:
    """The matches of a rule, where of equal names only the first counts.

    Header names are equal whatever their case; query parameters' are not (HTTPHeaderMatch.name).
    """
    return tuple(map(_clean_match, matches))


def _clean_match(match: HTTPRouteMatch) -> HTTPRouteMatch:
    if len(match.headers) < 2 and len(match.query_params) < 2:
        return match
    headers: dict[str, HTTPHeaderMatch] = {}
    for header in match.headers:
        headers.setdefault(header.name.lower(), header)
    parameters: dict[str, HTTPQueryParamMatch] = {}
    for parameter in match.query_params:
        parameters.setdefault(parameter.name, parameter)
    if len(headers) == len(match.headers) and len(parameters) == len(match.query_params):
        return match
    update = {"headers": tuple(headers.values()), "query_params": tuple(parameters.values())}
    return match.model_copy(update=update)


def first_of_equal_headers(item: HTTPRouteFilter) -> HTTPRouteFilter:
    """A filter, where of equal header names only the first counts (HTTPHeader.name)."""
    clean: dict[str, HTTPHeaderFilter] = {}
    for field in ("request_header_modifier", "response_header_modifier"):
        modifier: HTTPHeaderFilter | None = getattr(item, field)
        if modifier is not None:
            to_set, to_add = _first(modifier.set), _first(modifier.add)
            if len(to_set) < len(modifier.set) or len(to_add) < len(modifier.add):
                clean[field] = modifier.model_copy(update={"set": to_set, "add": to_add})
    return item.model_copy(update=clean) if clean else item


def _first(headers: tuple[HTTPHeader, ...]) -> tuple[HTTPHeader, ...]:
    found: dict[str, HTTPHeader] = {}
    for header in headers:
        found.setdefault(header.name.lower(), header)
    return tuple(found.values())
