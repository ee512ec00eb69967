"""The reference of filters: what they do to a request, said as plainly as the specification says it."""

from __future__ import annotations

import re
from urllib.parse import quote

from gwctl.routing.request import Request
from gwctl.routing.rule import HeaderFilter, PathKey, Redirect

_PORTS = {"http": 80, "https": 443}


def redirect_location(redirect: Redirect, matched: PathKey, request: Request, listener_port: int) -> str:
    """Give the Location of a redirect (HTTPRequestRedirectFilter) for a request that an HTTP listener took."""
    scheme = redirect.scheme or "http"
    host = redirect.hostname or request.host_without_port.lower()
    if redirect.port is not None:
        port = redirect.port
    elif redirect.scheme:
        port = _PORTS[redirect.scheme]
    else:
        port = listener_port
    authority = host if _PORTS.get(scheme) == port else f"{host}:{port}"
    path = request.path
    if redirect.path_kind == "full":
        path = uri_path(redirect.path) or "/"
    elif redirect.path_kind == "prefix":
        path = replace_prefix(request.path, matched.value, uri_path(redirect.path))
    query = f"?{request.query}" if request.query else ""
    return f"{scheme}://{authority}{path}{query}"


def replace_prefix(path: str, prefix: str, replacement: str) -> str:
    """Replace a matched prefix (held without final slash); it never makes ``//`` and never glues elements together."""
    rest = path[len(prefix) :]
    if not rest:
        return replacement or "/"
    return replacement.rstrip("/") + rest


def change_headers(headers: tuple[tuple[str, str], ...], change: HeaderFilter) -> list[tuple[str, str]]:
    """Give the headers after a modifier: removed first, then set, then added. Names come out in lower case."""
    gone = {name.lower() for name in change.remove} | {name.lower() for name, _ in change.set}
    kept = [(name.lower(), value) for name, value in headers if name.lower() not in gone]
    return [*kept, *((name.lower(), value) for name, value in (*change.set, *change.add))]


def uri_path(path: str) -> str:
    """Make a configured path fit for a Location: what a URI cannot hold is percent-encoded, ``%XX`` stays."""
    return quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", path), safe="/%:@!$&'()*+,;=~-._")
