"""Applies a Plan and reads back what it wrote: no call is trusted to have done what it said.

Rows and servers go through the runtime calls, about a millisecond each and never a reload. A transaction writes
everything HAProxy will load to its files first, so the new process comes up complete.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar, cast

from tenacity import retry, retry_if_exception_type, stop_after_attempt

from gwctl.dataplane.certificates import CertificateOperation, Certificates
from gwctl.dataplane.client import Client
from gwctl.dataplane.error import (
    AlreadyExists,
    DataPlaneError,
    ForeignLua,
    NotFound,
    Refused,
    ReloadFailed,
    TooManyTransactions,
    Unavailable,
    VersionConflict,
)
from gwctl.dataplane.reader import EMPTY_MAP, parse_servers, read_table
from gwctl.haproxy.desired import is_slot
from gwctl.haproxy.names import Table
from gwctl.haproxy.plan import Operation, RemoveRow, RemoveServer, SetRow, SetServer, Transaction
from gwctl.haproxy.program import Layout, is_lua, lua_name, lua_text
from gwctl.haproxy.state import Section, SectionKey, SectionKind, Server, State

log = logging.getLogger(__name__)

BULK_ROWS = 200
"""From this many rows on, an empty table is written in one call. Others are not: the call may lose rows at first."""

BULK_BYTES = 8192
"""The Data Plane API appends a bulk of at most this size, and replaces the table by a larger one."""

SINGLE_READS = 50
"""Up to this many rows of one table are read back one by one; beyond that the table is read."""

_CONCURRENCY = 8
_POLL_SECONDS = 0.05
_RELOAD_SECONDS = 120.0
_CONFLICTS = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Something that was written and read back differently."""

    what: str

    def __str__(self) -> str:
        return self.what


class Executor:
    """Applies plans through one client."""

    def __init__(self, client: Client, layout: Layout) -> None:
        self._client = client
        self._certificates = Certificates(client, layout)
        self.layout = layout

    async def apply_operations(self, operations: tuple[Operation, ...], actual: State) -> tuple[Mismatch, ...]:
        """Apply runtime operations in their order and read back what they wrote."""
        empty = {table for table in Table if not actual.tables.get(table)}
        for _, group in groupby(operations, key=_phase):
            phase = list(group)
            first = phase[0]
            if isinstance(first, SetRow):
                is_empty = first.table in empty
                empty.discard(first.table)
                if is_empty and len(phase) >= BULK_ROWS and await self._fill_table(phase):
                    continue
            if isinstance(first, SetServer | RemoveServer):
                await _in_parallel(self._apply(operation) for operation in phase)
            else:
                for operation in phase:
                    await self._apply(operation)
        return await self._read_back(operations)

    async def _apply(self, operation: Operation) -> None:
        match operation:
            case SetRow(table, key, value, existing):
                await self._set_row(table, key, value, existing)
            case RemoveRow(table, key):
                await self._client.delete_row(table, key)
            case SetServer():
                await self._set_server(operation)
            case RemoveServer(slot, name):
                await self._client.change_server(slot, name, {"admin_state": "maint"})
            case _:
                await self._certificates.apply(operation)

    async def _set_row(self, table: Table, key: str, value: str, existing: bool) -> None:
        if not existing:
            try:
                await self._client.add_row(table, key, value)
                return
            except AlreadyExists:
                pass
        await self._client.set_row(table, key, value)

    async def _set_server(self, operation: SetServer) -> None:
        slot, name, server = operation.slot, operation.name, operation.server
        address = {"address": server.address, "port": server.port}
        if not operation.existing:
            try:
                await self._client.add_server(slot, {"name": name, **address, **operation.options})
                address = {}
            except AlreadyExists:
                pass
            except NotFound:
                raise
            except Refused as error:
                if "ssl" in operation.options:
                    await self._certificates.blame_for_server(operation.options, error)
                raise
        await self._client.change_server(slot, name, {**address, "admin_state": server.state})

    async def _fill_table(self, phase: list[Operation]) -> bool:
        """Write an empty table in one call; tell whether that was possible."""
        sets = [operation for operation in phase if isinstance(operation, SetRow)]
        table = sets[0].table
        rows = {item.key: item.value for item in sets}
        size = sum(len(key) + len(value) + 2 for key, value in rows.items())
        if size <= BULK_BYTES:
            return False
        await self._client.replace_rows(table, rows)
        there = await read_table(self._client, table)
        for key, value in rows.items():
            if there.get(key) != value:
                await self._set_row(table, key, value, key in there)
        return True

    async def _read_back(self, operations: Iterable[Operation]) -> tuple[Mismatch, ...]:
        rows: dict[Table, dict[str, str | None]] = {}
        servers: dict[str, dict[str, Server | None]] = {}
        certificates: list[CertificateOperation] = []
        for operation in operations:
            match operation:
                case SetRow(table, key, value):
                    rows.setdefault(table, {})[key] = value
                case RemoveRow(table, key):
                    rows.setdefault(table, {})[key] = None
                case SetServer(slot, name, server):
                    servers.setdefault(slot, {})[name] = server
                case RemoveServer(slot, name):
                    servers.setdefault(slot, {})[name] = None
                case _:
                    certificates.append(operation)
        checks = [
            self._check_certificates(certificates),
            *(self._check_rows(table, wanted) for table, wanted in rows.items()),
            *(self._check_servers(slot, wanted) for slot, wanted in servers.items()),
        ]
        found = await _in_parallel(checks)
        return tuple(mismatch for mismatches in found for mismatch in mismatches)

    async def _check_certificates(self, operations: list[CertificateOperation]) -> list[Mismatch]:
        return [Mismatch(what) for what in await self._certificates.find_mismatches(operations)]

    async def _check_rows(self, table: Table, wanted: Mapping[str, str | None]) -> list[Mismatch]:
        there: Mapping[str, str | None]
        if len(wanted) <= SINGLE_READS:
            there = {key: await self._client.row(table, key) for key in wanted}
        else:
            there = await read_table(self._client, table)
        return [Mismatch(f"{table} {key}") for key, value in wanted.items() if there.get(key) != value]

    async def _check_servers(self, slot: str, wanted: Mapping[str, Server | None]) -> list[Mismatch]:
        there = parse_servers(await self._client.servers(slot))
        return [
            Mismatch(f"server {slot}/{name}")
            for name, server in wanted.items()
            if (there.get(name) != server if server is not None else name in there and there[name].state != "maint")
        ]

    async def delete_retired(self, servers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Delete servers in maintenance; give those that went. HAProxy keeps one that still has connections."""
        gone: list[tuple[str, str]] = []
        for slot, name in servers:
            try:
                await self._client.delete_server(slot, name)
            except Refused:
                continue
            gone.append((slot, name))
        return gone

    async def apply_transaction(self, transaction: Transaction) -> None:
        """Write all files, change the configuration in one commit and wait for the reload it causes.

        Raises `ReloadFailed` when HAProxy does not take the configuration, `VersionConflict` when others keep
        changing it.
        """
        await self._store_tables(transaction.state)
        await self._certificates.store(transaction.state)
        name = lua_name(self.layout)
        if name not in await self._client.stored("general"):
            await self._client.store_general(name, lua_text(self.layout))
        reload = await self._commit(transaction)
        if reload is not None:
            await self._wait_for_reload(reload)
        await self._delete_old_lua(name)

    async def checkpoint(self, state: State, is_interrupted: Callable[[], bool]) -> bool:
        """Bring the files up to the state, so that a HAProxy that starts anew serves it; tell whether that was done.

        It stops, with nothing stored but certificates, when more urgent work has come and ``is_interrupted`` says so.
        The surprising fact: servers reach the file without a reload by way of a transaction that is never committed.
        """
        await self._certificates.store(state)
        version = await self._client.configuration_version()
        transaction = Transaction((), (), state)
        existing = {
            SectionKey(SectionKind.BACKENDS, str(section["name"])): section
            for section in await self._client.sections(SectionKind.BACKENDS)
        }
        slots = [(key, section) for key, section in _sections_to_write(transaction, existing) if key in existing]
        text = await self._render(slots, version, is_interrupted) if slots else None
        if slots and text is None:
            return False
        await self._store_tables(state)
        if text is not None:
            await self._client.store_configuration(text, version)
        # Till now the file may have named what is deleted here, without which HAProxy would not start.
        await self._certificates.delete_stale(state)
        return True

    async def _render(
        self, slots: Iterable[tuple[SectionKey, Section | None]], version: int, is_interrupted: Callable[[], bool]
    ) -> bytes | None:
        """Give the configuration with these slots, None when interrupted."""
        identifier = await self._begin(version)
        try:
            for key, section in slots:
                assert section is not None
                if is_interrupted():
                    return None
                await self._client.put_section(key, section, existing=True, transaction=identifier)
            return await self._client.configuration_text(identifier)
        finally:
            await self._drop(identifier)

    async def _store_tables(self, state: State) -> None:
        stored = await self._client.stored("maps")
        for table in Table:
            rows = state.tables.get(table, {})
            text = "".join(f"{key} {value}\n" for key, value in sorted(rows.items())) or EMPTY_MAP
            if table not in stored or await self._client.stored_map(table) != text:
                await self._client.store_map(table, text)

    async def _delete_old_lua(self, current: str) -> None:
        """Delete the Lua files of other versions of gwctl, which no process loads any more."""
        for name in await self._client.stored("general"):
            if is_lua(name) and name != current:
                await self._client.delete_general(name)

    @retry(retry=retry_if_exception_type(VersionConflict), stop=stop_after_attempt(_CONFLICTS), reraise=True)
    async def _commit(self, transaction: Transaction) -> str | None:
        identifier = await self._begin(await self._client.configuration_version())
        try:
            await self._prepare_global(identifier)
            existing: dict[SectionKey, Section] = {}
            for kind in SectionKind:
                for section in await self._client.sections(kind, identifier):
                    existing[SectionKey(kind, str(section["name"]))] = section
            for key, wanted in _sections_to_write(transaction, existing):
                if wanted is not None:
                    await self._client.put_section(key, wanted, key in existing, identifier)
                elif key in existing:
                    await self._client.delete_section(key, identifier)
            return await self._client.commit(identifier)
        except BaseException:
            await self._drop(identifier)
            raise

    async def _begin(self, version: int) -> str:
        try:
            return await self._client.begin(version)
        except TooManyTransactions:
            await self._make_room()
            return await self._client.begin(version)

    async def _make_room(self) -> None:
        """Drop what a process that was killed has left open, since the API keeps it for ever, over its own end too.

        Only those of an older version are dropped: nobody can commit them. Where all are of the version of now, the
        configuration is stored as it is under the next one, as by any commit: whoever is still at work begins anew.
        """
        opened = await self._client.open_transactions()
        version = await self._client.configuration_version()
        if opened and min(opened.values()) >= version:
            await self._client.reread_file()
            version += 1
        log.warning("too many transactions are open, dropping those that can no longer be committed")
        for identifier, begun in opened.items():
            if begun < version:
                await self._drop(identifier)

    async def _drop(self, identifier: str) -> None:
        try:
            await asyncio.shield(self._client.drop(identifier))
        except DataPlaneError:
            return

    async def _prepare_global(self, identifier: str) -> None:
        before = section = await self._client.global_section(identifier)
        section = await self._certificates.prepare_global(self._load_lua(section))
        if section is not before:
            await self._client.replace_global(section, identifier)

    def _load_lua(self, section: dict[str, Any]) -> dict[str, Any]:
        path = f"{self.layout.general}/{lua_name(self.layout)}"
        options = dict(section.get("lua_options") or {})
        tuning = dict(section.get("tune_lua_options") or {})
        loaded = str(options.get("load_per_thread", "")).rpartition("/")[2]
        if loaded and not is_lua(loaded):
            raise ForeignLua(f"HAProxy's global section already loads {loaded} with lua-load-per-thread: use lua-load")
        if options.get("load_per_thread") == path:
            return section
        options["load_per_thread"] = path
        tuning.setdefault("bool_sample_conversion", "normal")
        return {**section, "lua_options": options, "tune_lua_options": tuning}

    async def _wait_for_reload(self, reload: str) -> None:
        deadline = asyncio.get_running_loop().time() + _RELOAD_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            status, response = await self._client.reload_status(reload)
            if status == "succeeded":
                return
            if status == "failed":
                await self._client.reread_file()
                raise ReloadFailed(f"HAProxy did not load the configuration: {response.strip()[-1000:]}")
            await asyncio.sleep(_POLL_SECONDS)
        raise Unavailable(f"HAProxy has not finished reloading within {_RELOAD_SECONDS:.0f} s")


def _phase(operation: Operation) -> tuple[str, str]:
    """Group what may be applied side by side: a server is drained only when those that replace it are ready."""
    match operation:
        case SetRow(table) | RemoveRow(table):
            return type(operation).__name__, table
        case SetServer(server=server):
            return "SetServer", "ready" if server.state == "ready" else "stopping"
        case _:
            return type(operation).__name__, ""


def _sections_to_write(
    transaction: Transaction, existing: Mapping[SectionKey, Section]
) -> Iterator[tuple[SectionKey, Section | None]]:
    """Yield the sections that change and every slot whose servers in the file are not those it should start with."""
    changed = dict(transaction.sections)
    yield from ((key, section) for key, section in transaction.sections if not is_slot(key) or section is None)
    for key, section in transaction.state.sections.items():
        if is_slot(key):
            wanted = _with_servers(section, transaction.state, transaction.state.servers.get(key.name, {}))
            if key in changed or existing.get(key) != wanted:
                yield key, wanted


def _with_servers(section: Section, state: State, servers: Mapping[str, Server]) -> Section:
    ready = {name: server for name, server in sorted(servers.items()) if server.state == "ready"}
    if not ready:
        return section
    children: dict[str, Any] = {
        name: {"name": name, "address": server.address, "port": server.port, **state.options_of(server)}
        for name, server in ready.items()
    }
    return {**section, "servers": children}


async def _in_parallel(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines, a few at a time; give their results in order.

    After an error no other begins, and those that have begun end before it is raised: nothing writes any more then.
    """
    waiting = deque(coroutines)
    results: list[T | None] = [None] * len(waiting)
    errors: list[BaseException] = []

    async def work() -> None:
        while waiting and not errors:
            index, coroutine = len(results) - len(waiting), waiting.popleft()
            try:
                results[index] = await coroutine
            except BaseException as error:
                errors.append(error)
                raise

    try:
        await asyncio.gather(*(work() for _ in range(_CONCURRENCY)), return_exceptions=True)
    finally:
        for coroutine in waiting:
            coroutine.close()
    if errors:
        raise errors[0]
    return cast(list[T], results)
