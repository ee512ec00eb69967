"""Gateway and GatewayClass.

The surprising fact: two listeners with the same port, protocol and hostname are let through here although an
API server refuses them, because the graph then marks just those listeners as conflicted and serves the
others.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictStr

from gwctl.api.meta import Object
from gwctl.api.wire import (
    GATEWAY_GROUP,
    HOSTNAME_PATTERN,
    Group,
    Hostname,
    Kind,
    LabelSelector,
    Loc,
    LocalObjectReference,
    ObjectReference,
    PortNumber,
    SecretObjectReference,
    SectionName,
    Violation,
    Wire,
)

CONTROLLER_PATTERN = (
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$"
)
PROTOCOL_PATTERN = (
    r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"
    r"|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9]+$"
)
ADDRESS_TYPE_PATTERN = (
    r"^Hostname|IPAddress|NamedAddress"
    r"|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$"
)
LABEL_VALUE_PATTERN = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"

_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]"
)


class GatewayClassSpec(Wire):
    controller_name: Annotated[StrictStr, Field(min_length=1, max_length=253, pattern=CONTROLLER_PATTERN)]
    parameters_ref: ObjectReference | None = None
    description: Annotated[StrictStr, Field(max_length=64)] | None = None


class GatewayClass(Object):
    kind: ClassVar[str] = "GatewayClass"
    namespaced: ClassVar[bool] = False

    spec: GatewayClassSpec


class RouteGroupKind(Wire):
    group: Group = GATEWAY_GROUP
    kind: Kind


class RouteNamespaces(Wire):
    from_: Annotated[Literal["All", "Selector", "Same"], Field(alias="from")] = "Same"
    selector: LabelSelector | None = None


class AllowedRoutes(Wire):
    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: Annotated[tuple[RouteGroupKind, ...], Field(max_length=8)] = ()


class ListenerTLS(Wire):
    """``frontend_validation`` is of CRDs v1.1 to v1.3 alone; what it says is not read."""

    mode: Literal["Terminate", "Passthrough"] = "Terminate"
    certificate_refs: Annotated[tuple[SecretObjectReference, ...], Field(max_length=64)] = ()
    options: Annotated[Mapping[StrictStr, Annotated[StrictStr, Field(max_length=4096)]], Field(max_length=16)] = Field(
        default_factory=dict
    )
    frontend_validation: Any = None


class Listener(Wire):
    """A listener. ``hostname`` None: any host."""

    name: SectionName
    hostname: Hostname | None = None
    port: PortNumber
    protocol: Annotated[StrictStr, Field(min_length=1, max_length=255, pattern=PROTOCOL_PATTERN)]
    tls: ListenerTLS | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()


class GatewayAddress(Wire):
    """A requested address. ``value`` None or empty: of the implementation's choosing."""

    type: Annotated[StrictStr, Field(min_length=1, max_length=253, pattern=ADDRESS_TYPE_PATTERN)] = "IPAddress"
    value: Annotated[StrictStr, Field(max_length=253)] | None = None


class Infrastructure(Wire):
    labels: Annotated[
        Mapping[StrictStr, Annotated[StrictStr, Field(max_length=63, pattern=LABEL_VALUE_PATTERN)]],
        Field(max_length=8),
    ] = Field(default_factory=dict)
    annotations: Annotated[Mapping[StrictStr, Annotated[StrictStr, Field(max_length=4096)]], Field(max_length=16)] = (
        Field(default_factory=dict)
    )
    parameters_ref: LocalObjectReference | None = None


class ListenerNamespaces(Wire):
    from_: Annotated[Literal["All", "Selector", "Same", "None"], Field(alias="from")] = "None"
    selector: LabelSelector | None = None


class AllowedListeners(Wire):
    namespaces: ListenerNamespaces = ListenerNamespaces()


class FrontendValidation(Wire):
    mode: Literal["AllowValidOnly", "AllowInsecureFallback"] = "AllowValidOnly"
    ca_certificate_refs: Annotated[tuple[ObjectReference, ...], Field(min_length=1, max_length=16)]


class FrontendTLS(Wire):
    validation: FrontendValidation | None = None


class PortFrontendTLS(Wire):
    port: PortNumber
    tls: FrontendTLS


class GatewayFrontendTLS(Wire):
    default: FrontendTLS
    per_port: Annotated[tuple[PortFrontendTLS, ...], Field(max_length=64)] = ()


class GatewayBackendTLS(Wire):
    client_certificate_ref: SecretObjectReference | None = None


class GatewayTLS(Wire):
    frontend: GatewayFrontendTLS | None = None
    backend: GatewayBackendTLS | None = None


class GatewaySpec(Wire):
    gateway_class_name: Annotated[StrictStr, Field(min_length=1, max_length=253)]
    listeners: Annotated[tuple[Listener, ...], Field(min_length=1, max_length=64)]
    addresses: Annotated[tuple[GatewayAddress, ...], Field(max_length=16)] = ()
    infrastructure: Infrastructure | None = None
    allowed_listeners: AllowedListeners | None = None
    tls: GatewayTLS | None = None
    default_scope: Literal["All", "None"] | None = None


class Gateway(Object):
    kind: ClassVar[str] = "Gateway"

    spec: GatewaySpec

    def check(self) -> list[Violation]:
        found = super().check()
        check_listeners(self.spec.listeners, self.kind, found)
        _check_addresses(self.spec.addresses, found)
        if self.spec.infrastructure is not None:
            _check_keys(self.spec.infrastructure.labels, ("spec", "infrastructure", "labels"), found)
            _check_keys(self.spec.infrastructure.annotations, ("spec", "infrastructure", "annotations"), found)
        if self.spec.tls is not None and self.spec.tls.frontend is not None:
            ports = [entry.port for entry in self.spec.tls.frontend.per_port]
            for index, port in enumerate(ports):
                if port in ports[:index]:
                    loc: Loc = ("spec", "tls", "frontend", "perPort", index, "port")
                    found.append(Violation(loc, "must be unique within the Gateway"))
        return found


def check_listeners(listeners: tuple[Listener, ...], kind: str, found: list[Violation]) -> None:
    """Check the listeners of a Gateway or of a ListenerSet."""
    names: set[str] = set()
    for index, listener in enumerate(listeners):
        loc: Loc = ("spec", "listeners", index)
        if listener.name in names:
            found.append(Violation((*loc, "name"), f"must be unique within the {kind}"))
        names.add(listener.name)
        protocol, tls = listener.protocol, listener.tls
        if protocol in ("HTTP", "TCP", "UDP") and tls is not None:
            found.append(Violation((*loc, "tls"), f"must not be specified for protocol {protocol}"))
        if protocol in ("TCP", "UDP") and listener.hostname is not None:
            found.append(Violation((*loc, "hostname"), f"must not be specified for protocol {protocol}"))
        if protocol == "HTTPS" and tls is not None and tls.mode != "Terminate":
            found.append(Violation((*loc, "tls", "mode"), "must be Terminate for protocol HTTPS"))
        if tls is not None and tls.mode == "Terminate" and not tls.certificate_refs and not tls.options:
            message = "certificateRefs or options must be specified when mode is Terminate"
            found.append(Violation((*loc, "tls"), message))


def _check_addresses(addresses: tuple[GatewayAddress, ...], found: list[Violation]) -> None:
    seen: set[tuple[str, str]] = set()
    for index, address in enumerate(addresses):
        loc: Loc = ("spec", "addresses", index, "value")
        if not address.value:
            continue
        if address.type == "IPAddress":
            try:
                ipaddress.ip_address(address.value)
            except ValueError:
                found.append(Violation(loc, "must be an IPv4 or IPv6 address"))
            if "%" in address.value:
                found.append(Violation(loc, "must not have a zone"))
        if address.type == "Hostname" and not re.fullmatch(HOSTNAME_PATTERN[1:-1], address.value):
            found.append(Violation(loc, "must be a DNS name"))
        if address.type in ("IPAddress", "Hostname"):
            if (address.type, address.value) in seen:
                found.append(Violation(loc, f"{address.type} values must be unique"))
            seen.add((address.type, address.value))


def _check_keys(values: Mapping[str, str], loc: Loc, found: list[Violation]) -> None:
    for key in values:
        if not _KEY.fullmatch(key) or len(key.split("/")[0]) >= 253:
            message = "must be a name of at most 63 characters, after an optional DNS prefix and '/'"
            found.append(Violation((*loc, key), message))
