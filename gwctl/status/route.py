"""Routes of every kind: what each parent of ours makes of a route.

In: an Outcome. Out: the statuses that may have changed. The surprising fact: a parentRef to something that does not
exist gets no entry, because every controller of the cluster would write one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from gwctl.api.parse import is_unreadable
from gwctl.api.ref import Ref
from gwctl.api.wire import GATEWAY_GROUP, ParentReference
from gwctl.graph.node import Graph, Problem, RouteNode
from gwctl.graph.problem import DROPPED_RULE, FALL_BACK
from gwctl.status.condition import Condition, about, judge, other, select, warn, with_notes
from gwctl.status.outcome import Outcome
from gwctl.status.status import ParentStatus, Status

PARENTS: Mapping[str, Callable[[Graph], Mapping[Ref, object]]] = {
    "Gateway": lambda graph: graph.gateways,
    "ListenerSet": lambda graph: graph.listener_sets,
}
"""The kinds that a route can attach to, and those of each that are ours."""

_CONDITIONS = frozenset({"Accepted", "ResolvedRefs"})
_PARTIAL = (FALL_BACK, DROPPED_RULE)


def build_routes(outcome: Outcome, before: Outcome | None) -> Iterator[tuple[Ref, Status | None]]:
    """The status of every route that may have changed; None for one that is no longer ours.

    Where the graph was built upon another than that of before, nodes are compared by identity.
    """
    graph = outcome.graph
    if before is None or any(ours(before.graph).keys() != ours(graph).keys() for ours in PARENTS.values()):
        changed: Iterable[Ref] = graph.routes.keys() | (before.graph.routes.keys() if before is not None else set())
    elif graph.changed_routes is not None and graph.base is before.graph.routes:
        changed = graph.changed_routes
    elif graph.routes is before.graph.routes:
        changed = ()
    else:
        old, new = before.graph.routes, graph.routes
        kept = set(map(id, old.values())) & set(map(id, new.values()))
        changed = {ref for nodes in (old, new) for ref, node in nodes.items() if id(node) not in kept}
    stale = {ref for ref, _ in outcome.stale.items() ^ before.stale.items()} if before is not None else set()
    for ref in {*changed, *(stale & graph.routes.keys())}:
        node = graph.routes.get(ref)
        yield ref, _build_route(node, outcome) if node is not None else None


def _build_route(node: RouteNode, outcome: Outcome) -> Status:
    graph, stale = outcome.graph, outcome.stale_problems(node.ref)
    metadata, is_read = node.resource.metadata, not is_unreadable(node.resource)
    earlier = outcome.earlier(node.ref, metadata.generation)
    parents = tuple(
        ParentStatus(
            parent,
            _judge_parent(
                [*stale, *(p for p in node.problems if p.parent in (None, index))], is_read=is_read, earlier=earlier
            ),
        )
        for index, parent in enumerate(node.resource.spec.parent_refs)
        if is_ours(parent, node.ref, graph)
    )
    return Status(metadata.uid, outcome.generation(node.ref, metadata.generation), parents=parents)


def is_ours(parent: ParentReference, route: Ref, graph: Graph) -> bool:
    """Tell whether a parent of a route exists and is ours."""
    if parent.group != GATEWAY_GROUP or parent.kind not in PARENTS:
        return False
    return Ref(parent.kind, parent.namespace or route.namespace, parent.name) in PARENTS[parent.kind](graph)


def _judge_parent(problems: Sequence[Problem], *, is_read: bool, earlier: int | None) -> tuple[Condition, ...]:
    """Judge a route at a parent; ``earlier`` is the generation of what is served where the newest cannot be read."""
    partial = [item for item in select(problems, "PartiallyInvalid") if item.message.startswith(_PARTIAL)]
    notes = [item for item in other(problems, _CONDITIONS) if item not in partial]
    accepted = judge("Accepted", select(problems, "Accepted"), with_notes("the route is accepted", notes))
    if not is_read:
        # What it refers to is not known either.
        return (accepted,)
    # It must not be there for a route that is not accepted (RouteConditionPartiallyInvalid).
    partial = partial if accepted.status == "True" else []
    falls_back = bool(partial) and partial[0].message.startswith(FALL_BACK)
    resolved = judge("ResolvedRefs", select(problems, "ResolvedRefs"), "all references are resolved")
    return (
        # What is accepted is the last good state (RouteConditionPartiallyInvalid).
        *about((accepted, resolved), earlier),
        *warn("PartiallyInvalid", partial, FALL_BACK if falls_back else DROPPED_RULE),
    )
