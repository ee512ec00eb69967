"""ListenerSet: listeners that are added to a Gateway, often from another namespace.

Its listeners are those of a Gateway field by field. As with Gateways, two with the same port, protocol and hostname are
let through here, because the graph then marks just those.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, ClassVar

from pydantic import Field

from gwctl.api.gateway import Listener, check_listeners
from gwctl.api.meta import Object
from gwctl.api.ref import Ref
from gwctl.api.wire import GATEWAY_GROUP, Group, Kind, NamespaceName, ObjectName, Violation, Wire


class ParentGatewayReference(Wire):
    """The Gateway that gets the listeners. ``namespace`` None: the ListenerSet's own."""

    group: Group = GATEWAY_GROUP
    kind: Kind = "Gateway"
    name: ObjectName
    namespace: NamespaceName | None = None


class ListenerSetSpec(Wire):
    parent_ref: ParentGatewayReference
    listeners: Annotated[tuple[Listener, ...], Field(min_length=1, max_length=64)]


class ListenerSet(Object):
    kind: ClassVar[str] = "ListenerSet"

    spec: ListenerSetSpec

    @cached_property
    def parent(self) -> Ref | None:
        """The Gateway that it belongs to, None where its parentRef names something else."""
        parent = self.spec.parent_ref
        if (parent.group, parent.kind) != (GATEWAY_GROUP, "Gateway"):
            return None
        return Ref("Gateway", parent.namespace or self.ref.namespace, parent.name)

    def check(self) -> list[Violation]:
        found = super().check()
        check_listeners(self.spec.listeners, self.kind, found)
        return found
