"""All pure steps as one: changed resources in; out come graph, routing and tables, each built upon the last.

The offline commands run this very code, so what they print is what the controller does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from gwctl.api.parse import Invalid, Resource
from gwctl.api.ref import Ref
from gwctl.graph.build import build_graph
from gwctl.graph.node import Graph, Problem
from gwctl.haproxy.table import Tables, compile_tables
from gwctl.routing.virtualhost import Routing, build_routing
from gwctl.snapshot.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The values of every pure step, each built from the one before."""

    snapshot: Snapshot
    graph: Graph
    routing: Routing
    tables: Tables

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All that users must fix, as far as resources parse."""
        return self.graph.problems


def not_told(problems: Iterable[Problem], invalid: Iterable[Invalid]) -> Iterator[Problem]:
    """Yield the problems but those of objects that cannot be read, of which ``invalid`` tells already."""
    told = {(item.subject, item.field, item.message) for item in invalid}
    return (item for item in problems if (item.subject, item.field, item.message) not in told)


def advance(
    pipeline: Pipeline | None,
    changes: Mapping[Ref, Resource | None],
    controller_name: str,
    service_namespace: str | None = None,
) -> Pipeline:
    """Take changes through all pure steps; ``service_namespace``: see `build_graph`."""
    if pipeline is None:
        snapshot = Snapshot.of(resource for resource in changes.values() if resource is not None)
        graph = build_graph(snapshot, controller_name, service_namespace=service_namespace)
        routing = build_routing(graph)
        return Pipeline(snapshot, graph, routing, compile_tables(routing))
    snapshot = pipeline.snapshot.apply(changes)
    graph = build_graph(
        snapshot, controller_name, pipeline.graph, frozenset(changes), service_namespace=service_namespace
    )
    routing = build_routing(graph, pipeline.routing)
    return Pipeline(snapshot, graph, routing, compile_tables(routing, pipeline.tables))
