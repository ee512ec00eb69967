"""GatewayClasses: which are ours, and which of these stand."""

from __future__ import annotations

from gwctl.api.gateway import GatewayClass
from gwctl.api.ref import Ref
from gwctl.graph import problem
from gwctl.graph.node import Problem
from gwctl.snapshot import Snapshot


def own_classes(snapshot: Snapshot, controller_name: str) -> dict[Ref, GatewayClass]:
    """The classes that name our controller, by Ref, oldest first."""
    classes = sorted(snapshot.gateway_classes.values(), key=lambda item: item.age)
    return {item.ref: item for item in classes if item.spec.controller_name == controller_name}


def check_class(resource: GatewayClass) -> Problem | None:
    """What is wrong with one of our classes. Its Gateways are not accepted then."""
    if resource.spec.parameters_ref is None:
        return None
    return problem.invalid_parameters(resource.ref, "spec.parametersRef", "parameters are not supported")
