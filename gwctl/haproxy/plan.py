"""The difference between two states as a value: what to do, in which order.

A `Plan` is sorted, printable and refusable. Its order is make before break: authorities, certificates, then the entries
that serve them; servers, then the rows that name them, then the rows that name those; and the removals the other way
round. So every request, at every moment, meets a table whose references all lead somewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from gwctl.api.sensitive import Sensitive
from gwctl.haproxy.desired import is_pooled
from gwctl.haproxy.names import OF_PROGRAM, Table
from gwctl.haproxy.state import CrtEntry, Section, SectionKey, SectionKind, Server, State


@dataclass(frozen=True, slots=True)
class SetServer:
    """Add a server (``existing`` False) with options, or change the state or address of one."""

    slot: str
    name: str
    server: Server
    existing: bool
    options: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __str__(self) -> str:
        sign = "~" if self.existing else "+"
        return f"{sign} server {self.slot}/{self.name} {self.server.state}"


@dataclass(frozen=True, slots=True)
class RemoveServer:
    """Take a server out: it gets no more requests, and is deleted when those it has are done."""

    slot: str
    name: str

    def __str__(self) -> str:
        return f"- server {self.slot}/{self.name}"


@dataclass(frozen=True, slots=True)
class SetRow:
    """Add a row (``existing`` False) or replace its value, which is one atomic step for requests."""

    table: Table
    key: str
    value: str
    existing: bool

    def __str__(self) -> str:
        return f"{'~' if self.existing else '+'} {self.table} {self.key} {self.value}"


@dataclass(frozen=True, slots=True)
class RemoveRow:
    """Delete a row."""

    table: Table
    key: str

    def __str__(self) -> str:
        return f"- {self.table} {self.key}"


@dataclass(frozen=True, slots=True)
class AddCertificate:
    """Give HAProxy a certificate with its key; it serves it to nobody yet."""

    name: str
    pem: Sensitive = field(repr=False)

    def __str__(self) -> str:
        return f"+ certificate {self.name}"


@dataclass(frozen=True, slots=True)
class RemoveCertificate:
    """Take a certificate that no entry names from HAProxy's memory."""

    name: str

    def __str__(self) -> str:
        return f"- certificate {self.name}"


@dataclass(frozen=True, slots=True)
class AddAuthorities:
    """Give HAProxy a set of authorities; nothing is verified by it yet."""

    name: str
    pem: Sensitive = field(repr=False)

    def __str__(self) -> str:
        return f"+ authorities {self.name}"


@dataclass(frozen=True, slots=True)
class RemoveAuthorities:
    """Take a set of authorities that nothing names from HAProxy's memory."""

    name: str

    def __str__(self) -> str:
        return f"- authorities {self.name}"


@dataclass(frozen=True, slots=True)
class AddEntry:
    """Serve a certificate to names, from the next handshake on."""

    crt_list: str
    entry: CrtEntry

    def __str__(self) -> str:
        return f"+ {self.crt_list} {self.entry}"


@dataclass(frozen=True, slots=True)
class RemoveEntry:
    """No longer serve a certificate to names. Connections that have it go on."""

    crt_list: str
    entry: CrtEntry

    def __str__(self) -> str:
        return f"- {self.crt_list} {self.entry}"


Operation = (
    SetServer
    | RemoveServer
    | SetRow
    | RemoveRow
    | AddCertificate
    | RemoveCertificate
    | AddAuthorities
    | RemoveAuthorities
    | AddEntry
    | RemoveEntry
)


@dataclass(frozen=True, slots=True)
class Transaction:
    """A change of the configuration: one commit, one reload. ``reasons`` say why, for people and for the metric.

    What HAProxy loads when it reloads is ``state``: tables and certificates from files, servers from the sections.
    """

    sections: tuple[tuple[SectionKey, Section | None], ...]
    reasons: tuple[str, ...]
    state: State

    def __str__(self) -> str:
        lines = [f"{'-' if section is None else '~'} {key.kind} {key.name}" for key, section in self.sections]
        return "\n".join([f"transaction ({', '.join(self.reasons)})", *lines])


@dataclass(frozen=True, slots=True)
class Plan:
    """What makes one state of another: operations first, then the transaction.

    A transaction that the rows depend on stands alone: what HAProxy then loads is the whole desired state, but for
    certificates that it does not hold yet, since one that it does not take would keep it from loading anything.
    """

    operations: tuple[Operation, ...] = ()
    transaction: Transaction | None = None

    def __bool__(self) -> bool:
        return bool(self.operations) or self.transaction is not None

    def __str__(self) -> str:
        parts: list[object] = [*self.operations, *([self.transaction] if self.transaction else [])]
        return "\n".join(map(str, parts))


_ROW_ORDER = (
    Table.SERVICES,
    Table.REQUEST_HEADERS,
    Table.RESPONSE_HEADERS,
    Table.LOCATIONS,
    Table.CORS,
    Table.MIRRORS,
    Table.AUTHS,
    Table.FILTERS,
    Table.GROUPS,
    Table.PATHS_PREFIX,
    Table.PATHS_REGEX,
    Table.PATHS_EXACT,
    Table.TCP,
    Table.HOSTS,
    Table.SNI,
)
"""What is named comes before what names it. A prefix row that others hand on to comes before them: shorter first."""


def diff(desired: State, actual: State) -> Plan:
    """Give the plan that makes ``desired`` of ``actual``; it is empty when they are equal."""
    transaction = _diff_sections(desired, actual)
    if transaction is not None and not _is_growth(transaction):
        return Plan((), replace(transaction, state=_without_new_certificates(desired, actual)))
    return Plan(tuple(_diff_runtime(desired, actual)), transaction)


def _without_new_certificates(desired: State, actual: State) -> State:
    there = [entry for entries in actual.crt_lists.values() for entry in entries]
    known = {entry.certificate for entry in there}
    proven = {server.tls for servers in actual.servers.values() for server in servers.values()}
    usable = [tls for identity, tls in desired.tls.items() if identity in proven]
    known |= {tls.certificate for tls in usable}
    trusted = {"", *(entry.authorities for entry in there), *(tls.authorities for tls in usable)}
    if desired.certificates <= known and desired.authorities <= trusted and desired.tls.keys() <= proven:
        return desired
    servers = {
        slot: {name: server for name, server in of_slot.items() if server.tls is None or server.tls in proven}
        for slot, of_slot in desired.servers.items()
    }
    lists = {
        name: frozenset(entry for entry in entries if entry.certificate in known and entry.authorities in trusted)
        for name, entries in desired.crt_lists.items()
    }
    return replace(
        desired,
        servers=servers,
        certificates=desired.certificates & known,
        authorities=desired.authorities & trusted,
        crt_lists=lists,
    )


def _is_growth(transaction: Transaction) -> bool:
    """Tell whether nothing but free slots is added: then rows need not wait for it."""
    tables = transaction.state.tables
    by_host = (key.partition("/")[0] for table in (Table.HOSTS, Table.SNI) for key in tables.get(table, {}))
    used = {*transaction.state.servers, *by_host, *tables.get(Table.TCP, {})}
    return all(
        section is not None and is_pooled(key) and key.name not in used for key, section in transaction.sections
    ) and transaction.reasons == (_GROWTH,)


_GROWTH = "pool grows"


def _diff_sections(desired: State, actual: State) -> Transaction | None:
    if desired.sections is actual.sections and desired.lua == actual.lua:
        return None
    changes: list[tuple[SectionKey, Section | None]] = []
    reasons: list[str] = []
    if not actual.sections:
        reasons.append("first start")
    elif desired.lua != actual.lua:
        reasons.append("program")
    for key in sorted(desired.sections, key=_section_order):
        if actual.sections.get(key) != desired.sections[key]:
            changes.append((key, desired.sections[key]))
            reasons.append(_reason(key, key in actual.sections))
    for key in sorted(set(actual.sections) - set(desired.sections), key=_section_order, reverse=True):
        changes.append((key, None))
        is_listener = key.kind is not SectionKind.DEFAULTS and not is_pooled(key) and key.name not in OF_PROGRAM
        reasons.append("listener removed" if is_listener else "section removed")
    if not reasons:
        return None
    if reasons[0] == "first start":
        reasons = ["first start"]
    return Transaction(tuple(changes), tuple(dict.fromkeys(reasons)), desired)


def _section_order(key: SectionKey) -> tuple[int, str]:
    return list(SectionKind).index(key.kind), key.name


def _reason(key: SectionKey, exists: bool) -> str:
    if key.kind is SectionKind.DEFAULTS or key.name in OF_PROGRAM:
        return "program"
    if not is_pooled(key):
        return "listener changed" if exists else "listener added"
    return "slot repaired" if exists else _GROWTH


def _diff_runtime(desired: State, actual: State) -> Iterator[Operation]:
    yield from _add_certificates(desired, actual)
    removals = list(_remove_servers(desired, actual))
    named = set(actual.tables.get(Table.SERVICES, {}).values()) if removals else set()
    # What a plan that broke off has left in a free slot must not meet requests of the Service that comes.
    yield from (removal for removal in removals if removal.slot not in named)
    yield from _diff_servers(desired, actual)
    keys = {table: _differing_keys(table, desired, actual) for table in _ROW_ORDER}
    for table in _ROW_ORDER:
        wanted, there = desired.tables.get(table, {}), actual.tables.get(table, {})
        for key in keys[table]:
            if key in wanted:
                yield SetRow(table, key, wanted[key], key in there)
    for table in reversed(_ROW_ORDER):
        wanted = desired.tables.get(table, {})
        for key in reversed(keys[table]):
            if key not in wanted:
                yield RemoveRow(table, key)
    yield from (removal for removal in removals if removal.slot in named)
    yield from _remove_certificates(desired, actual)


def _add_certificates(desired: State, actual: State) -> Iterator[Operation]:
    for name in sorted(desired.authorities - actual.authorities):
        yield AddAuthorities(name, desired.pems[name])
    for name in sorted(desired.certificates - actual.certificates):
        yield AddCertificate(name, desired.pems[name])
    for crt_list in sorted(desired.crt_lists):
        for entry in sorted(desired.crt_lists[crt_list] - actual.crt_lists.get(crt_list, frozenset())):
            yield AddEntry(crt_list, entry)


def _remove_certificates(desired: State, actual: State) -> Iterator[Operation]:
    for crt_list in sorted(actual.crt_lists):
        for entry in sorted(actual.crt_lists[crt_list] - desired.crt_lists.get(crt_list, frozenset())):
            yield RemoveEntry(crt_list, entry)
    if leaves_tls(desired, actual):
        return
    for name in sorted(actual.certificates - desired.certificates):
        yield RemoveCertificate(name)
    for name in sorted(actual.authorities - desired.authorities):
        yield RemoveAuthorities(name)


def leaves_tls(desired: State, actual: State) -> bool:
    """Tell whether servers with TLS wait to be deleted: HAProxy keeps what they are verified by, and shown, so long."""
    return any(
        server.tls and name not in desired.servers.get(slot, {})
        for slot, servers in actual.servers.items()
        for name, server in servers.items()
    )


def _differing_keys(table: Table, desired: State, actual: State) -> list[str]:
    wanted, there = desired.tables.get(table, {}), actual.tables.get(table, {})
    if wanted is there:
        return []
    change = desired.changes.get(table)
    candidates = change.keys if change is not None and change.base is there else wanted.keys() | there.keys()
    differing = (key for key in candidates if wanted.get(key) != there.get(key))
    if table in _BY_HOST:
        return sorted(differing, key=lambda key: (key in there, *_host_order(key)))
    return sorted(differing)


_BY_HOST = (Table.HOSTS, Table.SNI)
"""Tables with rows of which the most specific wins.

New rows come first, the most specific before the others, then those that change; rows go in the opposite order. So at
every step a name has the row that it had or the one that it will have.
"""


def _host_order(key: str) -> tuple[bool, int, str]:
    """Sort specific names first; of one name the inner frontend's row before the one that leads there."""
    host = key.partition("/")[2]
    return host.startswith("_"), -len(host), key


def _diff_servers(desired: State, actual: State) -> Iterator[Operation]:
    """Yield the servers that come or change; those that stop to take requests wait until others have come."""
    stopping: list[Operation] = []
    for slot in sorted(desired.servers):
        wanted, there = desired.servers[slot], actual.servers.get(slot, {})
        if wanted != there:
            for name in sorted(wanted):
                if there.get(name) != wanted[name]:
                    options = desired.options_of(wanted[name])
                    operation = SetServer(slot, name, wanted[name], name in there, options)
                    if wanted[name].state == "ready":
                        yield operation
                    else:
                        stopping.append(operation)
    yield from stopping


def _remove_servers(desired: State, actual: State) -> Iterator[RemoveServer]:
    for slot in sorted(actual.servers):
        wanted, there = desired.servers.get(slot, {}), actual.servers[slot]
        for name in sorted(there.keys() - wanted.keys()):
            if there[name].state != "maint":
                yield RemoveServer(slot, name)


def retired_servers(desired: State, actual: State) -> Iterable[tuple[str, str]]:
    """Yield the servers (slot, name) that wait in maintenance for their last connections, to be deleted."""
    for slot, servers in actual.servers.items():
        wanted = desired.servers.get(slot, {})
        yield from ((slot, name) for name, server in servers.items() if server.state == "maint" and name not in wanted)
