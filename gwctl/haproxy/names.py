"""Names of what gwctl owns in HAProxy: sections, tables and files.

Everything that gwctl makes begins with ``gwctl``; what does not is never touched.
"""

from __future__ import annotations

import re
from enum import StrEnum

from gwctl.haproxy.encoding import content_id

PREFIX = "gwctl"

DEFAULTS_HTTP = "gwctl-http"
DEFAULTS_HTTPS = "gwctl-https"
DEFAULTS_TCP = "gwctl-tcp"
DEFAULTS_SNI = "gwctl-sni"
DEFAULTS_TLS = "gwctl-tls"
DEFAULTS_HTTP_SLOT = "gwctl-http-slot"
DEFAULTS_TCP_SLOT = "gwctl-tcp-slot"
DEFAULTS_LOOP = "gwctl-loop-end"

LOOP = "gwctl-loop"
RETRY = "gwctl-retry"
ATTEMPTS = "gwctl-attempts"
LOST_COPIES = "gwctl-lost-copies"

OF_PROGRAM = frozenset({LOOP, RETRY, ATTEMPTS, LOST_COPIES})
"""Sections of the program beside its defaults."""


class Table(StrEnum):
    """The tables, in the order in which requests read them; the value is the map's name in the Data Plane API."""

    SNI = "gwctl-sni.map"
    HOSTS = "gwctl-hosts.map"
    PATHS_EXACT = "gwctl-paths-exact.map"
    PATHS_REGEX = "gwctl-paths-regex.map"
    PATHS_PREFIX = "gwctl-paths-prefix.map"
    GROUPS = "gwctl-groups.map"
    FILTERS = "gwctl-filters.map"
    REQUEST_HEADERS = "gwctl-request-headers.map"
    RESPONSE_HEADERS = "gwctl-response-headers.map"
    LOCATIONS = "gwctl-locations.map"
    CORS = "gwctl-cors.map"
    MIRRORS = "gwctl-mirrors.map"
    AUTHS = "gwctl-auths.map"
    TCP = "gwctl-tcp.map"
    SERVICES = "gwctl-services.map"


def is_ours(section: str) -> bool:
    """Tell whether a section of this name belongs to gwctl."""
    return section.startswith((f"{PREFIX}-", f"{PREFIX}."))


def frontend_name(namespace: str, gateway: str, port: int, slot: int | None = None) -> str:
    """Name the frontend of one port of one Gateway, or the listener slot that it has.

    Injective: a namespace has no dot, a port is a number.
    """
    return listener_slot_name(slot) if slot else f"{PREFIX}.{namespace}.{gateway}.{port}"


def listener_slot_name(port: int) -> str:
    """Name the listener slot at a port: a frontend that listens before any Gateway needs it."""
    return f"{PREFIX}-listener-{port}"


def inner_name(frontend: str, inner: str) -> str:
    """Name the frontend to which one that looks at handshakes hands connections: ``https`` or ``tls``.

    Injective: the name of a frontend ends with a number.
    """
    return f"{frontend}.{inner}"


def to_inner_name(frontend: str, inner: str) -> str:
    """Name the backend that leads from a frontend to an inner one. HAProxy wants other names for backends."""
    return f"{frontend}.to-{inner}"


_SLOT = re.compile(rf"{PREFIX}-listener-(\d+)")
_PART_OF_SLOT = re.compile(rf"{_SLOT.pattern}(\.(to-)?(https|tls))?")


def listener_slot_port(name: str) -> int | None:
    """Give the port of the listener slot of this name, None where the name is no such frontend's."""
    found = _SLOT.fullmatch(name)
    return int(found[1]) if found else None


def is_part_of_listener_slot(name: str) -> bool:
    """Tell whether a section of this name is a listener slot or belongs to one."""
    return _PART_OF_SLOT.fullmatch(name) is not None


def slot_name(mode: str, number: int) -> str:
    """Name a backend slot; ``mode`` is ``http`` or ``tcp``, ``number`` counts from 1."""
    return f"{PREFIX}-{mode}-{number:05d}"


def slot_mode(name: str) -> str | None:
    """Give the mode of the slot of this name, None where the name is no slot's."""
    parts = name.split("-")
    if len(parts) == 3 and parts[0] == PREFIX and parts[1] in ("http", "tcp") and parts[2].isdigit():
        return parts[1]
    return None


PLACEHOLDER_HOST = "gwctl.invalid"
"""The name of the certificate that is never served (RFC 6761, section 6.4)."""

PLACEHOLDER = f"{PREFIX}-placeholder.pem"
"""The file with the certificate that every crt-list begins with and that is never served: see ``program.py``."""

PLACEHOLDER_OPTIONS = "sigalgs ECDSA+SHA256"
"""Its key cannot sign so, which refuses every handshake."""

SYSTEM_AUTHORITIES = "@system-ca"
"""The certificate authorities of the machine, which HAProxy loads when it starts."""

_CERTIFICATE = re.compile(f"{PREFIX}-[0-9a-f]{{32}}\\.pem")
_AUTHORITIES = re.compile(f"{PREFIX}-ca-[0-9a-f]{{32}}\\.pem")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_FILE = 100


def certificate_name(identity: str) -> str:
    """Name a certificate in HAProxy, and its file, by its identity: what is in it never changes."""
    return f"{PREFIX}-{identity}.pem"


def is_certificate(name: str) -> bool:
    """Tell whether a certificate of this name is gwctl's."""
    return _CERTIFICATE.fullmatch(name) is not None


def authorities_name(identity: str) -> str:
    """Name a set of certificate authorities in HAProxy, and its file, by its identity: what is in it never changes."""
    return f"{PREFIX}-ca-{identity}.pem"


def is_authorities(name: str) -> bool:
    """Tell whether a set of authorities of this name is gwctl's."""
    return _AUTHORITIES.fullmatch(name) is not None


def crt_list_name(frontend: str) -> str:
    """Name the file of a frontend's crt-list, of such characters only as the Data Plane API leaves alone."""
    safe = _UNSAFE.sub("-", frontend)
    if safe != frontend or len(safe) > _LONGEST_FILE:
        safe = f"{safe[:_LONGEST_FILE]}-{content_id(frontend)[:12]}"
    return f"{safe}.crt-list"


def is_crt_list(name: str) -> bool:
    """Tell whether a file of this name is a crt-list of gwctl's."""
    return name.startswith(f"{PREFIX}-") and name.endswith(".crt-list")
