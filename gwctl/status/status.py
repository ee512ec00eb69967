"""The desired status of one object, and those of all.

The surprising fact: one type serves every kind. A field that a kind does not have is None, and whoever writes the
status leaves it alone; a field that is empty is written as empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from gwctl.api.ref import Ref
from gwctl.api.wire import ParentReference
from gwctl.status.condition import Condition
from gwctl.status.outcome import Outcome


@dataclass(frozen=True, slots=True)
class ListenerStatus:
    """The status of a listener. ``supported_kinds`` are kinds of the Gateway API's own group."""

    name: str
    supported_kinds: tuple[str, ...]
    attached_routes: int
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class ParentStatus:
    """What one parent of ours (for a policy: one ancestor) makes of an object. ``ref`` is as the object spells it."""

    ref: ParentReference
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """What the status of an object should say.

    ``generation`` and ``uid`` are those of the resource that the graph was built from: every condition is about that
    generation where it says no other, and about no other object that might have taken the name.
    """

    uid: str
    generation: int
    conditions: tuple[Condition, ...] | None = None
    addresses: tuple[tuple[str, str], ...] | None = None
    listeners: tuple[ListenerStatus, ...] | None = None
    attached_listener_sets: int | None = None
    supported_features: tuple[str, ...] | None = None
    parents: tuple[ParentStatus, ...] | None = None
    ancestors: tuple[ParentStatus, ...] | None = None


@dataclass(frozen=True)
class Statuses:
    """The desired status of every object that is ours, by Ref, and the outcome that says so.

    ``changed`` are those that differ from the statuses that these were built upon, what is gone included; ``base`` are
    those, None where there were none.
    """

    outcome: Outcome
    by_ref: MappingProxyType[Ref, Status]
    changed: frozenset[Ref]
    base: MappingProxyType[Ref, Status] | None = None
