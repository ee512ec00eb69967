"""The state of HAProxy as gwctl sees it: desired and actual are of one type.

``sections`` are configuration (a change reloads); ``tables``, ``servers``, ``certificates``, ``authorities`` and
``crt_lists`` are runtime data (a change does not).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from gwctl.api.sensitive import Sensitive
from gwctl.haproxy.encoding import content_id
from gwctl.haproxy.names import PLACEHOLDER, PLACEHOLDER_OPTIONS, Table

Section = Mapping[str, Any]
Rows = Mapping[str, str]


class Change(NamedTuple):
    """Says that rows differ from ``base`` at no other keys than ``keys``."""

    base: Rows
    keys: frozenset[str]


class SectionKind(StrEnum):
    """The kinds of sections gwctl owns; the value is the Data Plane API's collection."""

    DEFAULTS = "defaults"
    BACKENDS = "backends"
    FRONTENDS = "frontends"


class SectionKey(NamedTuple):
    """Names a section."""

    kind: SectionKind
    name: str


AdminState = Literal["ready", "drain", "maint"]


Protocol = Literal["h2"]


class Server(NamedTuple):
    """A server of a slot. In maintenance it takes nothing and waits to be deleted: it counts as gone.

    ``protocol``: ``h2`` for HTTP/2, None for HTTP/1.1 and TCP. ``tls``: the identity of its TLS, None for none.
    """

    address: str
    port: int
    state: AdminState
    protocol: Protocol | None = None
    tls: str | None = None


class ServerTLS(NamedTuple):
    """The TLS of servers: the name that is sent and verified, by which authorities (the name of a set), which
    certificate is shown to those that ask (empty: none), and the protocol that is asked for (empty: none).
    """

    hostname: str
    authorities: str
    certificate: str
    alpn: str

    @property
    def identity(self) -> str:
        """A hash of it all, so that servers of other TLS have other names."""
        return content_id("|".join(self))

    @property
    def options(self) -> dict[str, str]:
        """What servers are created with, in the Data Plane API's words.

        HAProxy verifies the name that it sends, whatever ``verifyhost`` says, and sends the host of a request where it
        is not told which; so it is told.
        """
        options = {
            "ssl": "enabled",
            "verify": "required",
            "ssl_cafile": self.authorities,
            "sni": f"str({self.hostname})",
            "ssl_min_ver": "TLSv1.2",
        }
        options |= {"ssl_certificate": self.certificate} if self.certificate else {}
        return options | ({"alpn": self.alpn} if self.alpn else {})


Servers = Mapping[str, Server]


class CrtEntry(NamedTuple):
    """An entry of a crt-list: the names that a certificate is served to, sorted; ``*`` is for all others.

    A name with ``!`` is none of those that the entry's wildcards cover. Handshakes with a name of `PLACEHOLDER`'s are
    refused.
    ``authorities``: the name of the set that clients must have a certificate of; empty: they need none.
    ``falls_back``: they are asked, but any is good, and none too, for the bind ignores what is wrong.
    """

    certificate: str
    filters: tuple[str, ...]
    authorities: str = ""
    falls_back: bool = False

    @property
    def options(self) -> str:
        """The settings of its handshakes, in HAProxy's words."""
        if self.certificate == PLACEHOLDER:
            return PLACEHOLDER_OPTIONS
        verify = "optional" if self.falls_back else "required"
        return f"ca-file {self.authorities} verify {verify}" if self.authorities else ""

    @property
    def reach(self) -> int:
        """How far its names reach: 0 for names alone, 1 with a wildcard, 2 to all others."""
        return 2 if "*" in self.filters else int(any(name.startswith("*") for name in self.filters))

    def __str__(self) -> str:
        options = self.options
        return " ".join((self.certificate, *((f"[{options}]",) if options else ()), *self.filters))


CrtList = frozenset[CrtEntry]


@dataclass(frozen=True, slots=True)
class State:
    """What HAProxy has or should have.

    ``sections``: each as the Data Plane API's JSON with children. ``servers``: by slot, then by server name; a slot
    without servers may be left out. ``lua``: the name of the Lua file that ``global`` loads. ``changes``: what is known
    of how the tables came about, so that a difference to their base need not be searched for. ``certificates``: the
    names of those that HAProxy holds in memory; ``authorities``: the names of the sets of authorities that it holds, to
    verify others by; ``pems`` what is in both, which HAProxy never gives away. ``crt_lists``: by the names of their
    files. ``tls``: the TLS of servers by its identity.
    """

    sections: Mapping[SectionKey, Section]
    tables: Mapping[Table, Rows]
    servers: Mapping[str, Servers]
    lua: str
    changes: Mapping[Table, Change] = field(default_factory=dict, repr=False, compare=False)
    certificates: frozenset[str] = frozenset()
    crt_lists: Mapping[str, CrtList] = field(default_factory=dict)
    authorities: frozenset[str] = frozenset()
    pems: Mapping[str, Sensitive] = field(default_factory=dict, repr=False, compare=False)
    tls: Mapping[str, ServerTLS] = field(default_factory=dict, repr=False, compare=False)

    def options_of(self, server: Server) -> dict[str, str]:
        """Give what a server is created with, in the Data Plane API's words; HAProxy changes none of it later.

        With TLS the protocol is agreed upon, so that a server is connected before it gets a request.
        """
        if server.tls:
            return self.tls[server.tls].options
        return {"proto": server.protocol} if server.protocol else {}


def server_name(address: str, port: int, protocol: Protocol | None = None, tls: str | None = None) -> str:
    """Name a server by its address, protocol and TLS, readable and injective: ``10.1.2.3_8080``, ``fd00--1_8080_h2``.

    HAProxy does not tell a server's protocol and TLS, and keeps them until the server is deleted; so its name says it.
    """
    parts = [address.replace(":", "-"), str(port), *filter(None, (protocol, tls and f"{_TLS}{tls}"))]
    return "_".join(parts)


_TLS = "tls-"


def protocol_of(name: str) -> Protocol | None:
    """Give the protocol that a server's name says."""
    return "h2" if "h2" in name.split("_")[2:] else None


def tls_of(name: str) -> str | None:
    """Give the identity of the TLS that a server's name says."""
    last = name.split("_")[2:][-1:]
    return last[0].removeprefix(_TLS) if last and last[0].startswith(_TLS) else None
