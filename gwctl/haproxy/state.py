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
from gwctl.haproxy.names import Table

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

    ``protocol``: ``h2`` for HTTP/2 without TLS, None for HTTP/1.1 and TCP.
    """

    address: str
    port: int
    state: AdminState
    protocol: Protocol | None = None

    @property
    def options(self) -> dict[str, str]:
        """What it is created with, in the Data Plane API's words; HAProxy changes none of it later."""
        return {"proto": self.protocol} if self.protocol else {}


Servers = Mapping[str, Server]


class CrtEntry(NamedTuple):
    """An entry of a crt-list: the names that a certificate is served to, sorted; ``*`` is for all others."""

    certificate: str
    filters: tuple[str, ...]


CrtList = frozenset[CrtEntry]


@dataclass(frozen=True, slots=True)
class State:
    """What HAProxy has or should have.

    ``sections``: each as the Data Plane API's JSON with children. ``servers``: by slot, then by server name; a slot
    without servers may be left out. ``lua``: the name of the Lua file that ``global`` loads. ``changes``: what is known
    of how the tables came about, so that a difference to their base need not be searched for. ``certificates``: the
    names of those that HAProxy holds in memory; ``authorities``: the names of the sets of authorities that it holds, to
    verify others by; ``pems`` what is in both, which HAProxy never gives away. ``crt_lists``: by the names of their
    files.
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


def server_name(address: str, port: int, protocol: Protocol | None = None) -> str:
    """Name a server by its address and protocol, readable and injective: ``10.1.2.3_8080``, ``fd00--1_8080_h2``.

    HAProxy does not tell a server's protocol, and keeps it until the server is deleted; so its name says it.
    """
    name = f"{address.replace(':', '-')}_{port}"
    return f"{name}_{protocol}" if protocol else name


def protocol_of(name: str) -> Protocol | None:
    """Give the protocol that a server's name says."""
    return "h2" if name.endswith("_h2") else None
