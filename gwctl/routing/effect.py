"""The reference of filters: what they do to a request and its response, said as plainly as the specification says it.

It knows nothing of tables. HAProxy is tested against it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import quote

from gwctl.routing.filter import Cors, Filters, HeaderFilter, PathChange, Redirect, Rewrite
from gwctl.routing.request import Request
from gwctl.routing.rule import PathKey
from gwctl.routing.virtualhost import Scheme

WELL_KNOWN_PORTS = {"http": 80, "https": 443}

Headers = list[tuple[str, str]]


def redirect_location(
    redirect: Redirect, matched: PathKey, request: Request, listener_port: int, listener_scheme: Scheme = "http"
) -> str:
    """Give the Location of a redirect (HTTPRequestRedirectFilter) for a request that a listener took."""
    scheme = redirect.scheme or listener_scheme
    host = redirect.hostname or request.host_without_port.lower()
    if redirect.port is not None:
        port = redirect.port
    elif redirect.scheme:
        port = WELL_KNOWN_PORTS[redirect.scheme]
    else:
        port = listener_port
    authority = host if WELL_KNOWN_PORTS.get(scheme) == port else f"{host}:{port}"
    query = f"?{request.query}" if request.query else ""
    return f"{scheme}://{authority}{change_path(redirect.path, matched, request.path)}{query}"


def forward(filters: Filters, matched: PathKey, request: Request) -> Request:
    """Give the request that a backend gets; names of headers come out in lower case."""
    headers = change_headers([("host", request.host), *request.headers], filters.request_headers)
    host = next(value for name, value in headers if name == "host")
    rewrite = filters.rewrite or Rewrite()
    return replace(
        request,
        host=rewrite.hostname or host,
        path=rewritten_path(rewrite, matched, request.path),
        headers=tuple(header for header in headers if header[0] != "host"),
    )


CORS_HEADERS = frozenset(
    f"access-control-{name}"
    for name in ("allow-origin", "allow-credentials", "allow-methods", "allow-headers", "expose-headers", "max-age")
)

_SAFE_HEADERS = frozenset(
    ("cache-control", "content-language", "content-length", "content-type", "expires", "last-modified", "pragma")
)
"""Headers that a browser shows to a script anyway (Fetch, "CORS-safelisted response-header name")."""


def answer_cors(cors: Cors, request: Request, given: Iterable[tuple[str, str]] = ()) -> Headers:
    """Give the headers of a response where a CORS policy applies; ``given`` are the backend's (HTTPCORSFilter).

    They are the answer to a preflight too, which no backend sees.
    """
    headers = [(name.lower(), value) for name, value in given]
    for_anyone = cors.origins == ("*",) and not cors.credentials
    origin = request.header("origin")
    if origin is None:
        return headers if for_anyone else [*headers, ("vary", "Origin")]
    headers = [header for header in headers if header[0] not in CORS_HEADERS]
    exposed = {name for name, _ in headers} - _SAFE_HEADERS - {"set-cookie"}
    if not for_anyone:
        headers.append(("vary", "Origin"))
    if not any(origin_fits(wanted, origin) for wanted in cors.origins):
        return headers
    headers.append(("access-control-allow-origin", "*" if for_anyone else origin))
    if cors.credentials:
        headers.append(("access-control-allow-credentials", "true"))
    if request.preflight_method:
        asked = request.header("access-control-request-headers")
        methods = _allowed(cors, cors.methods, request.preflight_method)
        names = _allowed(cors, cors.headers, asked) if asked or cors.headers != ("*",) else ""
        headers += (("access-control-allow-methods", methods), ("access-control-allow-headers", names))
        headers.append(("access-control-max-age", str(cors.max_age)))
    # With credentials a browser takes a * for a name.
    expose_all = cors.credentials and cors.exposed == ("*",)
    headers.append(("access-control-expose-headers", ", ".join(sorted(exposed) if expose_all else cors.exposed)))
    return [(name, value) for name, value in headers if value]


def _allowed(cors: Cors, values: tuple[str, ...], asked: str | None) -> str:
    return asked or "" if values == ("*",) and cors.credentials else ", ".join(values)


def origin_fits(wanted: str, origin: str) -> bool:
    """Tell whether an origin is one that a policy names; ``*`` stands for any number of characters to its left."""
    scheme, host, port = _split_origin(wanted)
    if wanted == "*":
        return True
    there = _split_origin(origin)
    if (scheme, port) != (there[0], there[2]):
        return False
    return there[1] == host or (host.startswith("*") and there[1].endswith(host[1:]) and len(there[1]) >= len(host))


def _split_origin(origin: str) -> tuple[str, str, str]:
    scheme, _, rest = origin.lower().partition("://")
    host, colon, port = rest.rpartition(":") if re.search(r":[0-9]+$", rest) else (rest, "", "")
    return scheme, host if colon else rest, port or str(WELL_KNOWN_PORTS.get(scheme, ""))


def rewritten_path(rewrite: Rewrite | None, matched: PathKey, path: str) -> str:
    """Give the path that the backend gets."""
    return path if rewrite is None else change_path(rewrite.path, matched, path)


def change_path(change: PathChange | None, matched: PathKey, path: str) -> str:
    """Change a path as a modifier says (HTTPPathModifier)."""
    if change is None:
        return path
    if change.kind == "full":
        return uri_path(change.path) or "/"
    return replace_prefix(path, matched.value, uri_path(change.path))


def replace_prefix(path: str, prefix: str, replacement: str) -> str:
    """Replace a matched prefix (held without final slash); it never makes ``//`` and never glues elements together."""
    rest = path[len(prefix) :]
    if not rest:
        return replacement or "/"
    return replacement.rstrip("/") + rest


def change_headers(headers: Iterable[tuple[str, str]], change: HeaderFilter | None) -> Headers:
    """Give the headers after a modifier: removed first, then set, then added. Names come out in lower case."""
    change = change or HeaderFilter()
    gone = {name.lower() for name in change.remove} | {name.lower() for name, _ in change.set}
    kept = [(name.lower(), value) for name, value in headers if name.lower() not in gone]
    return [*kept, *((name.lower(), value) for name, value in (*change.set, *change.add))]


def uri_path(path: str) -> str:
    """Make a configured path fit for a URI: what it cannot hold is percent-encoded, ``%XX`` stays."""
    return quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", path), safe="/%:@!$&'()*+,;=~-._")
