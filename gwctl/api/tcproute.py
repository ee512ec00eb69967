"""TCPRoute: connections of one listener to Services by weight. It has exactly one rule (the CRD says so)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gwctl.api.meta import Object
from gwctl.api.wire import (
    BackendRef,
    ParentRefs,
    SectionName,
    Violation,
    Wire,
    check_backend_port,
    check_parent_refs,
)


class TCPRouteRule(Wire):
    name: SectionName | None = None
    backend_refs: Annotated[tuple[BackendRef, ...], Field(min_length=1, max_length=16)]


class TCPRouteSpec(Wire):
    parent_refs: ParentRefs = ()
    rules: Annotated[tuple[TCPRouteRule, ...], Field(min_length=1, max_length=1)]
    use_default_gateways: Literal["All", "None"] | None = None


class TCPRoute(Object):
    kind: ClassVar[str] = "TCPRoute"

    spec: TCPRouteSpec

    def check(self) -> list[Violation]:
        found = super().check()
        found += check_parent_refs(self.spec.parent_refs, ("spec", "parentRefs"))
        for index, rule in enumerate(self.spec.rules):
            for place, ref in enumerate(rule.backend_refs):
                found += check_backend_port(ref, ("spec", "rules", index, "backendRefs", place))
        return found
