"""What stands in for Gateways and routes that cannot be read.

In: what of a manifest is not wrong. Out: an object that is known by its name, and by what it belongs to: a route by its
parents, as far as these can be read, a Gateway by its class. It has no rule and no listener, so that it serves nothing;
it is there to be told of. The surprising fact: its ``spec`` is one that the CRD refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from gwctl.api.gateway import Gateway, GatewaySpec
from gwctl.api.grpcroute import GRPCRoute, GRPCRouteSpec
from gwctl.api.httproute import HTTPRoute, HTTPRouteSpec
from gwctl.api.meta import ObjectMeta, Unreadable
from gwctl.api.tcproute import TCPRoute, TCPRouteSpec
from gwctl.api.tlsroute import TLSRoute, TLSRouteSpec
from gwctl.api.wire import ParentReference

_MOST_PARENTS = 32


class UnreadableGateway(Unreadable, Gateway):
    """It has no listeners."""


class UnreadableHTTPRoute(Unreadable, HTTPRoute):
    """It has no rules."""


class UnreadableGRPCRoute(Unreadable, GRPCRoute):
    """It has no rules."""


class UnreadableTCPRoute(Unreadable, TCPRoute):
    """It has no rules."""


class UnreadableTLSRoute(Unreadable, TLSRoute):
    """It has no rules."""


UnreadableRoute = UnreadableHTTPRoute | UnreadableGRPCRoute | UnreadableTCPRoute | UnreadableTLSRoute

_ROUTES: Mapping[type, tuple[Any, Any]] = {
    HTTPRoute: (UnreadableHTTPRoute, HTTPRouteSpec),
    GRPCRoute: (UnreadableGRPCRoute, GRPCRouteSpec),
    TCPRoute: (UnreadableTCPRoute, TCPRouteSpec),
    TLSRoute: (UnreadableTLSRoute, TLSRouteSpec),
}


def build_stand_in(
    model: type, manifest: Mapping[Any, Any], wrong: tuple[tuple[str, str], ...]
) -> UnreadableGateway | UnreadableRoute | None:
    """Build what stands in for an object of a kind; None for other kinds, and where nobody knows what it belongs to."""
    try:
        metadata = ObjectMeta.model_validate(manifest.get("metadata"))
    except (ValidationError, RecursionError):
        return None
    given = manifest.get("spec")
    spec = given if isinstance(given, Mapping) else {}
    found: UnreadableGateway | UnreadableRoute | None = None
    if model in _ROUTES:
        stand_in, spec_model = _ROUTES[model]
        known = spec_model.model_construct(parent_refs=_read_parents(spec.get("parentRefs")), rules=())
        found = stand_in(metadata=metadata, spec=known, wrong=wrong)
    elif model is Gateway and isinstance(name := spec.get("gatewayClassName"), str):
        of_gateway = GatewaySpec.model_construct(gateway_class_name=name, listeners=())
        found = UnreadableGateway(metadata=metadata, spec=of_gateway, wrong=wrong)
    return found if found is not None and not found.check() else None


def _read_parents(items: object) -> tuple[ParentReference, ...]:
    return tuple(filter(None, map(_read_parent, items[:_MOST_PARENTS]))) if isinstance(items, list | tuple) else ()


def _read_parent(item: object) -> ParentReference | None:
    try:
        return ParentReference.model_validate(item)
    except (ValidationError, RecursionError):
        return None
