"""The pure steps, from manifests to rows, as one call; for tests of what they make together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gwctl.api.parse import Resource, parse_resource
from gwctl.api.ref import Ref
from gwctl.haproxy.desired import Desired, Pools, build_state
from gwctl.haproxy.program import Layout
from gwctl.haproxy.state import State
from gwctl.runtime.pipeline import Pipeline, advance
from tests.manifests import CONTROLLER

LAYOUT = Layout("/maps", "/general")
POOLS = Pools(http=8, tcp=4)
NOTHING = State({}, {}, {}, "")


def parse(manifests: Iterable[Mapping[str, Any]]) -> dict[Ref, Resource]:
    """Parse manifests of which all must stand."""
    resources: dict[Ref, Resource] = {}
    for manifest in manifests:
        result = parse_resource(manifest)
        assert result.resource is not None and not result.invalid, result.invalid
        resources[result.resource.ref] = result.resource
    return resources


def build_pipeline(manifests: Iterable[Mapping[str, Any]]) -> Pipeline:
    """Take manifests through all pure steps."""
    return advance(None, parse(manifests), CONTROLLER)


def desired_state(pipeline: Pipeline, actual: State = NOTHING, previous: Desired | None = None) -> Desired:
    """Build the state that HAProxy should have."""
    return build_state(pipeline.routing, pipeline.tables, actual, LAYOUT, POOLS, previous)
