"""TLSRoute: connections to Services by weight, for the names that clients ask for in their handshake.

It has exactly one rule (the CRD says so). ``hostnames`` may be empty here, as versions before v1 allow: any name.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gwctl.api.meta import Object
from gwctl.api.tcproute import TCPRouteRule
from gwctl.api.wire import Hostname, ParentRefs, Violation, Wire, check_backend_port, check_parent_refs


class TLSRouteRule(TCPRouteRule):
    """It says what a TCPRoute's rule says."""


class TLSRouteSpec(Wire):
    parent_refs: ParentRefs = ()
    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=1024)] = ()
    rules: Annotated[tuple[TLSRouteRule, ...], Field(min_length=1, max_length=1)]
    use_default_gateways: Literal["All", "None"] | None = None


class TLSRoute(Object):
    kind: ClassVar[str] = "TLSRoute"

    spec: TLSRouteSpec

    def check(self) -> list[Violation]:
        found = super().check()
        found += check_parent_refs(self.spec.parent_refs, ("spec", "parentRefs"))
        for index, name in enumerate(self.spec.hostnames):
            if _is_address(name):
                found.append(Violation(("spec", "hostnames", index), "must not be an IP address"))
        for index, rule in enumerate(self.spec.rules):
            for place, ref in enumerate(rule.backend_refs):
                found += check_backend_port(ref, ("spec", "rules", index, "backendRefs", place))
        return found


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
