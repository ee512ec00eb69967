"""ReferenceGrants: whether a reference into another namespace is allowed there."""

from __future__ import annotations

from gwctl.api.ref import Ref
from gwctl.api.wire import GATEWAY_GROUP
from gwctl.snapshot import Snapshot


def reference_is_permitted(snapshot: Snapshot, source: Ref, target: Ref) -> bool:
    """Whether ``source``, an object of the Gateway API, may refer to ``target``, one of the core group.

    Within one namespace always; else a grant in the target's namespace must name both sides.
    """
    if source.namespace == target.namespace:
        return True
    for grant in snapshot.grants(target.namespace):
        from_fits = any(
            item.group == GATEWAY_GROUP and item.kind == source.kind and item.namespace == source.namespace
            for item in grant.spec.from_
        )
        if from_fits and any(
            item.group == "" and item.kind == target.kind and item.name in (None, target.name) for item in grant.spec.to
        ):
            return True
    return False
