"""Reads what HAProxy has: the actual state, asked for and never remembered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gwctl.api.endpointslice import canonical_address
from gwctl.dataplane.client import Client, Json
from gwctl.dataplane.error import NotFound
from gwctl.haproxy.desired import is_slot
from gwctl.haproxy.names import PLACEHOLDER, PLACEHOLDER_HOST, Table, is_authorities, is_certificate, is_ours
from gwctl.haproxy.program import Layout, is_lua
from gwctl.haproxy.state import (
    AdminState,
    CrtEntry,
    CrtList,
    Section,
    SectionKey,
    SectionKind,
    Server,
    Servers,
    State,
    protocol_of,
    tls_of,
)


async def read_layout(client: Client) -> Layout:
    """Learn where the API keeps files, from a table's file and a file of general use, stored where they are missing."""
    table = Table.HOSTS.value
    maps = (await client.stored("maps")).get(table) or await client.store_map(table, EMPTY_MAP)
    general = (await client.stored("general")).get(_MARKER) or await client.store_general(_MARKER, _MARKER_TEXT)
    return Layout(maps.rpartition("/")[0], general.rpartition("/")[0])


EMPTY_MAP = "# no rows\n"
"""The text of a map without rows: the API refuses an empty file."""

_MARKER = "gwctl.txt"
_MARKER_TEXT = "This directory holds files of gwctl.\n"


async def read_state(client: Client) -> State:
    """Read all that is gwctl's: sections, tables, servers, certificates and crt-lists."""
    sections: dict[SectionKey, Section] = {}
    for kind in SectionKind:
        for section in await client.sections(kind):
            if is_ours(str(section["name"])):
                key = SectionKey(kind, str(section["name"]))
                sections[key] = without_servers(key, section)
    slots = [key.name for key in sections if is_slot(key)]
    tables = {table: dict(await read_table(client, table)) for table in Table}
    servers = {slot: await read_servers(client, slot) for slot in slots}
    lists = {path.rpartition("/")[2]: await read_crt_list(client, path) for path in _crt_lists(sections.values())}
    return State(
        sections,
        tables,
        {slot: there for slot, there in servers.items() if there},
        await read_lua(client),
        certificates=frozenset(filter(is_certificate, await client.certificates())),
        crt_lists=lists,
        authorities=frozenset(
            name for name, count in (await client.authorities()).items() if count and is_authorities(name)
        ),
    )


def _crt_lists(sections: Iterable[Section]) -> Iterator[str]:
    """Yield the paths of the crt-lists that sections name."""
    for section in sections:
        paths = {str(bind["crt_list"]) for bind in (section.get("binds") or {}).values() if "crt_list" in bind}
        yield from sorted(paths)


async def read_crt_list(client: Client, path: str) -> CrtList:
    """Read gwctl's entries of a crt-list. One that HAProxy has not loaded has none."""
    try:
        entries = await client.crt_list(path)
    except NotFound:
        return frozenset()
    return frozenset(entry for _, entry in entries if _is_ours(entry))


def _is_ours(entry: CrtEntry) -> bool:
    """Tell whether an entry is data: not the line that every list begins with, nor anybody else's."""
    if entry.certificate == PLACEHOLDER:
        return entry.filters != (PLACEHOLDER_HOST,)
    return is_certificate(entry.certificate)


def without_servers(key: SectionKey, section: Section) -> Section:
    """Leave a slot's servers out of its section: they are runtime data, and the file is merely where they rest."""
    if not is_slot(key):
        return section
    return {name: value for name, value in section.items() if name != "servers"}


async def read_lua(client: Client) -> str:
    """Give the name of our Lua file that ``global`` loads, empty when it loads none."""
    options = (await client.global_section()).get("lua_options") or {}
    name = str(options.get("load_per_thread", "")).rpartition("/")[2]
    return name if is_lua(name) else ""


async def read_table(client: Client, table: Table) -> dict[str, str]:
    """Read a table's rows. One that HAProxy has not loaded has none; of equal keys the first counts, as in HAProxy."""
    try:
        rows = await client.rows(table)
    except NotFound:
        return {}
    found: dict[str, str] = {}
    for key, value in rows:
        found.setdefault(key, value)
    return found


async def read_servers(client: Client, slot: str) -> Servers:
    """Read a slot's servers."""
    try:
        return parse_servers(await client.servers(slot))
    except NotFound:
        return {}


def parse_servers(servers: Iterable[dict[str, Json]]) -> Servers:
    """Turn the API's servers into ours."""
    return {str(item["name"]): _server(str(item["name"]), item) for item in servers}


def _server(name: str, item: dict[str, Json]) -> Server:
    return Server(
        str(canonical_address(item["address"])), int(item["port"]), _state(item), protocol_of(name), tls_of(name)
    )


def _state(item: dict[str, Json]) -> AdminState:
    state = item.get("admin_state")
    return state if state in ("ready", "drain") else "maint"
