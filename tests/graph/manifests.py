"""YAML to resources, for tests: short manifests of which the usual parts are filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from gwctl.api.parse import Resource, is_unreadable, parse_resource
from gwctl.graph.build import build_graph
from gwctl.graph.node import Graph, Problem
from gwctl.snapshot import Snapshot

CONTROLLER = "example.com/gwctl"

VERSIONS = {
    "ConfigMap": "v1",
    "Secret": "v1",
    "Service": "v1",
    "Namespace": "v1",
    "EndpointSlice": "discovery.k8s.io/v1",
}

CLASS = "{kind: GatewayClass, metadata: {name: gwctl}, spec: {controllerName: example.com/gwctl}}\n---\n"
GATEWAY = (
    CLASS
    + """
kind: Gateway
metadata: {name: gw}
spec: {gatewayClassName: gwctl, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
"""
)


def read(manifest: Mapping[str, Any]) -> Resource:
    """Parse a manifest that must be right; ``apiVersion`` may be missing."""
    version = VERSIONS.get(manifest["kind"], "gateway.networking.k8s.io/v1")
    result = parse_resource({"apiVersion": version, **manifest})
    assert result.invalid == ()
    assert result.resource is not None
    return result.resource


def stand_in(text: str) -> Resource:
    """Give what stands in for a manifest that cannot be read."""
    resource = parse_resource({"apiVersion": "gateway.networking.k8s.io/v1", **yaml.safe_load(text)}).resource
    assert resource is not None
    assert is_unreadable(resource)
    return resource


def read_all(text: str) -> list[Resource]:
    return [read(manifest) for manifest in yaml.safe_load_all(text) if manifest is not None]


def graph_of(text: str, *, service_namespace: str | None = None) -> Graph:
    return build_graph(Snapshot.of(read_all(text)), CONTROLLER, service_namespace=service_namespace)


def reasons(graph: Graph) -> list[tuple[str, str, str, str]]:
    """The problems: name of the subject, field, condition, reason."""
    return [(item.subject.name, item.field, item.condition, item.reason) for item in graph.problems]


def only_problem(graph: Graph) -> Problem:
    (found,) = graph.problems
    return found
