"""ReferenceGrant: which kinds of which namespaces may refer to which objects of the grant's own namespace."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from gwctl.api.meta import Object
from gwctl.api.wire import Group, Kind, NamespaceName, ObjectName, Wire


class ReferenceGrantFrom(Wire):
    group: Group
    kind: Kind
    namespace: NamespaceName


class ReferenceGrantTo(Wire):
    """``name`` None: every object of that kind."""

    group: Group
    kind: Kind
    name: ObjectName | None = None


class ReferenceGrantSpec(Wire):
    from_: Annotated[tuple[ReferenceGrantFrom, ...], Field(alias="from", min_length=1, max_length=16)]
    to: Annotated[tuple[ReferenceGrantTo, ...], Field(min_length=1, max_length=16)]


class ReferenceGrant(Object):
    kind: ClassVar[str] = "ReferenceGrant"

    spec: ReferenceGrantSpec
