"""Statuses as tests read them: short words instead of conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gwctl.api.ref import Ref
from gwctl.graph.node import Graph
from gwctl.status.build import build_statuses
from gwctl.status.condition import Condition
from gwctl.status.outcome import GatewayAddresses, Outcome
from gwctl.status.status import Status, Statuses
from tests.graph.manifests import CLASS

GATEWAY_REF = Ref("Gateway", "default", "gw")
CLASS_REF = Ref("GatewayClass", "", "gwctl")
ROUTE_REF = Ref("HTTPRoute", "default", "r")
ADDRESSES = GatewayAddresses((("IPAddress", "192.0.2.1"),))


def gateway(listeners: str, more: str = "", meta: str = "") -> str:
    """A Gateway of our class, and the class."""
    spec = f"{{gatewayClassName: gwctl, listeners: {listeners}{more}}}"
    return f"{CLASS}{{kind: Gateway, metadata: {{name: gw{meta}}}, spec: {spec}}}\n---\n"


def served(graph: Graph, **more: Any) -> Outcome:
    """The outcome when all is served and every Gateway has an address."""
    addresses: Mapping[Ref, GatewayAddresses] = dict.fromkeys(graph.gateways, ADDRESSES)
    return Outcome(graph, **{"applied": graph, "addresses": addresses, **more})


def status_of(outcome: Outcome, ref: Ref) -> Status:
    return build_statuses(outcome).by_ref[ref]


def words(conditions: tuple[Condition, ...] | None) -> dict[str, str]:
    """``{"Accepted": "True/Accepted"}``."""
    assert conditions is not None
    found = {item.type: f"{item.status}/{item.reason}" for item in conditions}
    assert len(found) == len(conditions)
    return found


def of_gateway(outcome: Outcome) -> dict[str, str]:
    return words(status_of(outcome, GATEWAY_REF).conditions)


def of_listener(outcome: Outcome, name: str) -> dict[str, str]:
    listeners = {item.name: item for item in status_of(outcome, GATEWAY_REF).listeners or ()}
    return words(listeners[name].conditions)


def of_parents(outcome: Outcome, ref: Ref = ROUTE_REF) -> list[dict[str, str]]:
    return [words(parent.conditions) for parent in status_of(outcome, ref).parents or ()]


def message(conditions: tuple[Condition, ...] | None, kind: str) -> str:
    return next(item.message for item in conditions or () if item.type == kind)


def same(one: Statuses, other: Statuses) -> bool:
    return dict(one.by_ref) == dict(other.by_ref)
