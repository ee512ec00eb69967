"""Outcome in, the desired status of every object that is ours out.

The surprising fact: upon previous statuses only those are computed whose nodes are others than before, and one that
comes out as it was stays the same value, so that identity tells what to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MappingProxyType

from gwctl.api.ref import Ref
from gwctl.status.gateway import build_gateways
from gwctl.status.gatewayclass import build_gatewayclasses
from gwctl.status.listenerset import build_listener_sets
from gwctl.status.outcome import Outcome
from gwctl.status.policy import build_policies
from gwctl.status.route import build_routes
from gwctl.status.status import Status, Statuses

Builder = Callable[[Outcome, Outcome | None], Iterator[tuple[Ref, Status | None]]]

BUILDERS: tuple[Builder, ...] = (
    build_gatewayclasses,
    build_gateways,
    build_listener_sets,
    build_routes,
    build_policies,
)
"""What makes the statuses of each kind of node."""


def build_statuses(outcome: Outcome, previous: Statuses | None = None) -> Statuses:
    """Compute the status of every object that is ours."""
    table: dict[Ref, Status] = previous.by_ref.copy() if previous is not None else {}
    changed: set[Ref] = set()
    for build in BUILDERS:
        for ref, status in build(outcome, previous.outcome if previous is not None else None):
            if table.get(ref) == status:
                continue
            changed.add(ref)
            if status is None:
                del table[ref]
            else:
                table[ref] = status
    base = previous.by_ref if previous is not None else None
    return Statuses(outcome, MappingProxyType(table), frozenset(changed), base)
