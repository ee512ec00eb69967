"""The state of HAProxy as gwctl sees it: desired and actual are of one type.

``sections`` are configuration (a change reloads), ``tables`` and ``servers`` are runtime data (a change does not).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple

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


class Server(NamedTuple):
    """A server of a slot. In maintenance it takes nothing and waits to be deleted: it counts as gone."""

    address: str
    port: int
    state: AdminState


Servers = Mapping[str, Server]


@dataclass(frozen=True, slots=True)
class State:
    """What HAProxy has or should have.

    ``sections``: each as the Data Plane API's JSON with children. ``servers``: by slot, then by server name; a slot
    without servers may be left out. ``lua``: the name of the Lua file that ``global`` loads. ``changes``: what is known
    of how the tables came about, so that a difference to their base need not be searched for.
    """

    sections: Mapping[SectionKey, Section]
    tables: Mapping[Table, Rows]
    servers: Mapping[str, Servers]
    lua: str
    changes: Mapping[Table, Change] = field(default_factory=dict, repr=False, compare=False)


def server_name(address: str, port: int) -> str:
    """Name a server by its address, readable and injective: ``10.1.2.3_8080``, ``fd00--1_8080``."""
    return f"{address.replace(':', '-')}_{port}"
