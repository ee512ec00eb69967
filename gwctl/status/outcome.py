"""What the resources asked for and what became of it: all that a status is computed from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from gwctl.api.ref import Ref
from gwctl.graph.node import Graph, ListenerKey, Problem
from gwctl.snapshot import Resource


def _empty() -> MappingProxyType[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class GatewayAddresses:
    """Where a Gateway can be reached: pairs of type and value, as in its status.

    ``reason`` says why the Gateway is not programmed because of them, empty when it is: ``AddressNotUsable`` (one that
    was asked for cannot be had), ``AddressNotAssigned`` (none is there yet) or ``Pending`` (nobody has looked yet).
    """

    addresses: tuple[tuple[str, str], ...] = ()
    reason: str = ""
    message: str = ""


class Stale(NamedTuple):
    """What is wrong with an object's newest ``generation``, which cannot be read.

    None: it can be read, but for fields that nobody knows.
    """

    generation: int | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Outcome:
    """The latest graph, and how much of it is served.

    ``applied`` is the graph that HAProxy was last read back to have, ``refused`` what HAProxy said to the listeners
    that it did not take. A Gateway that is not in ``addresses`` waits for them. ``bundle_versions`` are the versions of
    the Gateway API that the cluster's CRDs say they have (empty text: one that says none); None: nobody could look.
    ``channels``: theirs, ``standard`` or ``experimental``; empty where nobody knows.
    ``stale`` tells of objects that do not stand as they are now: as they were before, because that cannot be read, or
    without fields that nobody knows.
    """

    graph: Graph
    applied: Graph | None = None
    refused: Mapping[ListenerKey, str] = field(default_factory=_empty)
    addresses: Mapping[Ref, GatewayAddresses] = field(default_factory=_empty)
    bundle_versions: frozenset[str] | None = None
    channels: frozenset[str] = frozenset()
    stale: Mapping[Ref, Stale] = field(default_factory=_empty)

    def resource(self, ref: Ref) -> Resource | None:
        """Give the resource that the graph was built from, whether it is ours or not."""
        return self.graph.index.snapshot.get(ref) if self.graph.index is not None else None

    def generation(self, ref: Ref, served: int) -> int:
        """Give the generation that a status is about, when that of what is served is known."""
        found = self.stale[ref].generation if ref in self.stale else None
        return served if found is None else found

    def earlier(self, ref: Ref, served: int) -> int | None:
        """Give the generation that is served, where it is an earlier one than that which a status is about."""
        return served if self.generation(ref, served) != served else None

    def stale_problems(self, ref: Ref) -> tuple[Problem, ...]:
        """Give what is wrong with an object that does not stand as it is now."""
        return self.stale[ref].problems if ref in self.stale else ()
