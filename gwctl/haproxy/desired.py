"""Routing and what HAProxy has in; out comes the state that HAProxy should have.

What HAProxy has is asked for two things only: how large its pools are and which slot each Service holds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from gwctl.api.sensitive import Sensitive
from gwctl.graph.gatewayservice import SLOT_RANGES, Mode
from gwctl.graph.node import Endpoint, ServicePort
from gwctl.haproxy.crtlist import CrtLists, compile_crt_lists
from gwctl.haproxy.names import Table, crt_list_name, is_part_of_listener_slot, slot_mode, slot_name
from gwctl.haproxy.program import (
    Layout,
    frontend_sections,
    listener_slot_sections,
    lua_name,
    needs_certificates,
    program_sections,
    slot_section,
)
from gwctl.haproxy.slot import MODES, allocate, size_listener_pools, size_pools
from gwctl.haproxy.state import (
    CrtList,
    Protocol,
    Section,
    SectionKey,
    SectionKind,
    Server,
    Servers,
    ServerTLS,
    State,
    server_name,
)
from gwctl.haproxy.table import Tables, Upstream, build_server_tls, key_mode, service_protocol
from gwctl.routing.virtualhost import Routing


@dataclass(frozen=True, slots=True)
class Pools:
    """How many slots of each mode are made at first start, for Services and for listeners.

    Without listener slots (0) each listener binds its own port.
    """

    http: int = 128
    tcp: int = 32
    http_listeners: int = 0
    tcp_listeners: int = 0
    https_listeners: int = 0
    tls_listeners: int = 0

    @property
    def listeners(self) -> Mapping[Mode, int]:
        """Those of listeners by mode."""
        return {
            "http": self.http_listeners,
            "https": self.https_listeners,
            "tls": self.tls_listeners,
            "tcp": self.tcp_listeners,
        }


class Resting(NamedTuple):
    """A slot that a Service has left a moment ago, which goes to no other.

    ``upstream``: what requests that chose it before still find there, at ``endpoints``; None: nothing.
    """

    slot: str
    upstream: Upstream | None = None
    endpoints: tuple[Endpoint, ...] = ()


NONE_RESTING: Mapping[str, Resting] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Desired:
    """A desired state with what it was built from, so that the next one repeats only what has changed.

    ``services``: those of the tables, and those that rest.
    """

    state: State
    routing: Routing
    sizes: Mapping[str, int]
    listener_sizes: Mapping[Mode, int]
    refused: frozenset[str]
    tables: Tables
    services: Mapping[str, Upstream]
    tls: Mapping[str, ServerTLS]
    crt_lists: CrtLists


def build_state(
    routing: Routing,
    tables: Tables,
    actual: State,
    layout: Layout,
    pools: Pools,
    previous: Desired | None = None,
    refused: frozenset[str] = frozenset(),
    resting: Mapping[str, Resting] = NONE_RESTING,
) -> Desired:
    """Build the desired state; parts that ``previous`` has for the same input are taken from it.

    ``refused``: the names of certificates and sets of authorities that HAProxy did not take, which are left out; so are
    the servers that would need one, so that requests for them fail. ``resting``: slots to which requests may still be
    on their way, by the keys of the Services that have left them.
    """
    slots = (name for kind, name in actual.sections if kind is SectionKind.BACKENDS)
    held = actual.tables.get(Table.SERVICES, {})
    left = {key: item for key, item in resting.items() if key not in tables.services}
    services = {
        **{key: item.upstream for key, item in left.items() if item.upstream is not None},
        **tables.services,
    }
    rests = {key: item.slot for key, item in resting.items()}
    sizes = size_pools(slots, tables.services, held, {"http": pools.http, "tcp": pools.tcp}, rests)
    if (
        previous is not None
        and previous.state.tables[Table.SERVICES] is held
        and previous.sizes == sizes
        and held.keys() == services.keys()
    ):
        allocation = held
    else:
        given = allocate(tables.services, held, sizes, rests)
        taken = set(given.values()) if left else set()
        allocation = {
            **given,
            **{key: left[key].slot for key in services.keys() - given.keys() if left[key].slot not in taken},
        }
    tls = _build_tls(services, previous)
    servers = {
        slot: {}
        if key in tls and _is_refused(tls[key], refused)
        else _build_servers(left[key].endpoints, service_protocol(key), tls.get(key))
        if key in left
        else _servers_before(key, slot, services[key].service, routing, previous)
        or _build_servers(routing.endpoints.get(services[key].service, ()), service_protocol(key), tls.get(key))
        for key, slot in allocation.items()
    }
    frontends = (name for kind, name in actual.sections if kind is SectionKind.FRONTENDS)
    listener_sizes = size_listener_pools(
        frontends, (key.slot for key in routing.frontends if key.slot), pools.listeners
    )
    if (
        previous is not None
        and previous.routing.frontends is routing.frontends
        and (previous.sizes, previous.listener_sizes) == (sizes, listener_sizes)
    ):
        sections = previous.state.sections
    else:
        sections = _build_sections(routing, layout, sizes, listener_sizes)
    rows = {**tables.rows, Table.SERVICES: allocation}
    crt_lists = _build_crt_lists(sections, routing, refused, previous)
    state = State(
        sections,
        rows,
        servers,
        lua_name(layout),
        tables.changes,
        crt_lists=crt_lists.lists,
        tls={item.identity: item for item in tls.values()},
        **_build_held(services, tls, crt_lists, refused),
    )
    return Desired(state, routing, sizes, listener_sizes, refused, tables, services, tls, crt_lists)


def _build_tls(services: Mapping[str, Upstream], previous: Desired | None) -> Mapping[str, ServerTLS]:
    """Give the TLS of the servers of each key of ``services`` that has any."""
    if previous is not None and previous.services == services:
        return previous.tls
    found = ((key, build_server_tls(item, key_mode(key))) for key, item in services.items() if item.has_tls)
    return {key: tls for key, tls in found if tls is not None}


def _is_refused(tls: ServerTLS, refused: Collection[str]) -> bool:
    return tls.authorities in refused or tls.certificate in refused


def _build_held(
    services: Mapping[str, Upstream], tls: Mapping[str, ServerTLS], crt_lists: CrtLists, refused: Collection[str]
) -> dict[str, Any]:
    """Give the names of all certificates and sets of authorities that HAProxy must hold, and what is in them."""
    pems = {**crt_lists.certificates, **crt_lists.authorities}
    certificates, authorities = set(crt_lists.certificates), set(crt_lists.authorities)
    for key, item in tls.items():
        upstream = services[key]
        if _is_refused(item, refused):
            continue
        if upstream.client is not None:
            certificates.add(item.certificate)
            pems[item.certificate] = upstream.client.pem
        trusted = upstream.service.tls.authorities if upstream.service.tls is not None else None
        if trusted is not None:
            authorities.add(item.authorities)
            pems[item.authorities] = Sensitive(trusted.pem)
    return {"certificates": frozenset(certificates), "authorities": frozenset(authorities), "pems": pems}


def _build_crt_lists(
    sections: Mapping[SectionKey, Section], routing: Routing, refused: Collection[str], previous: Desired | None
) -> CrtLists:
    """Build the crt-list of every frontend that terminates TLS, used or not."""
    if (
        previous is not None
        and previous.state.sections is sections
        and previous.refused == refused
        and previous.routing.certificates is routing.certificates
        and previous.routing.client_authorities is routing.client_authorities
        and previous.routing.sni is routing.sni
        and all(
            previous.routing.hosts.get(key) is routing.hosts.get(key)
            for key, frontend in routing.frontends.items()
            if frontend.terminates
        )
    ):
        return previous.crt_lists
    found = compile_crt_lists(routing, refused)
    lists: dict[str, CrtList] = {
        crt_list_name(key.name): frozenset() for key, section in sections.items() if needs_certificates(section)
    }
    return CrtLists({**lists, **found.lists}, found.certificates, found.authorities)


def _servers_before(
    key: str, slot: str, service: ServicePort, routing: Routing, previous: Desired | None
) -> Servers | None:
    """Give the servers that the same endpoints have led to before, None where there is no such before."""
    if previous is None or previous.state.tables[Table.SERVICES].get(key) != slot:
        return None
    if previous.routing.endpoints.get(service) is not routing.endpoints.get(service):
        return None
    return previous.state.servers.get(slot)


def _build_sections(
    routing: Routing, layout: Layout, sizes: Mapping[str, int], listener_sizes: Mapping[Mode, int]
) -> Mapping[SectionKey, Section]:
    sections = program_sections(layout)
    own = (frontend for frontend in routing.frontends.values() if not frontend.slot)
    for frontend in own:
        sections.update(frontend_sections(frontend, layout))
    falling_back = {frontend.slot for frontend in routing.frontends.values() if frontend.falls_back}
    for listener_mode, size in listener_sizes.items():
        first = SLOT_RANGES[listener_mode].first
        for number in range(size):
            port = first + number
            sections.update(listener_slot_sections(listener_mode, port, layout, falls_back=port in falling_back))
    for mode in MODES:
        sections.update(slot_section(slot_name(mode, number), mode) for number in range(1, sizes[mode] + 1))
    return sections


def _build_servers(endpoints: tuple[Endpoint, ...], protocol: Protocol | None, tls: ServerTLS | None) -> Servers:
    identity = tls.identity if tls is not None else None
    return {
        server_name(endpoint.address, endpoint.port, protocol, identity): Server(
            endpoint.address, endpoint.port, "drain" if endpoint.draining else "ready", protocol, identity
        )
        for endpoint in endpoints
    }


def is_slot(key: SectionKey) -> bool:
    """Tell whether a section is a backend slot, whose servers are runtime data."""
    return key.kind is SectionKind.BACKENDS and slot_mode(key.name) is not None


def is_pooled(key: SectionKey) -> bool:
    """Tell whether a section is made before it is needed: a backend slot, or a part of a listener slot."""
    return is_slot(key) or (key.kind is not SectionKind.DEFAULTS and is_part_of_listener_slot(key.name))
