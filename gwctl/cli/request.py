"""The request that ``gwctl explain`` is asked about, from words as people give them to curl."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

import click

from gwctl.routing.request import Request

_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Target(NamedTuple):
    """A request and the port it goes to; ``tls``: in a connection that names the URL's host in its handshake."""

    port: int
    request: Request
    tls: bool = False
    server_name: str = ""


def read_request(method: str, url: str, headers: Iterable[str]) -> Target:
    """Read a request; text beyond ASCII is sent in UTF-8. Raises `click.UsageError`."""
    if not _METHOD.fullmatch(method):
        raise click.UsageError(f"{method!r} is no method")
    if re.search(r"[\x00-\x20\x7f]", url):
        raise click.UsageError("the URL holds a space or a control character: percent-encode it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise click.UsageError(f"{url} is no URL: {error}") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise click.UsageError(f"{url} is not of the form http[s]://HOST[:PORT]/PATH")
    if "@" in parts.netloc:
        raise click.UsageError("a user in the URL is not supported: give -H 'Authorization: …'")
    sent = [_read_header(header) for header in headers]
    hosts = [value for name, value in sent if name.lower() == "host"]
    host = hosts[-1] if hosts else _sent(parts.netloc)
    others = ((name, value) for name, value in sent if name.lower() != "host")
    request = Request(method, host, _sent(parts.path) or "/", _sent(parts.query), (("Host", host), *others))
    tls = parts.scheme == "https"
    return Target(port or _DEFAULT_PORTS[parts.scheme], request, tls, _server_name(parts.hostname) if tls else "")


def _server_name(host: str) -> str:
    """Give the name that a handshake has for a host: none for an address (RFC 6066, section 3)."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.lower()
    return ""


def _read_header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not _METHOD.fullmatch(name):
        raise click.UsageError(f"{text!r} is not of the form 'name: value'")
    return name, _sent(value.strip())


def _sent(text: str) -> str:
    """Give the text as the bytes that are sent, one character for each."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def shown(text: str) -> str:
    """Give a text of bytes as people read it."""
    return text.encode("latin-1", "replace").decode("utf-8", "replace")
