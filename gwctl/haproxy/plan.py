"""The difference between two states as a value: what to do, in which order.

A `Plan` is sorted, printable and refusable. Its order is make before break: authorities and certificates; servers, then
the rows that name them, then the rows that name those, then the entries that serve certificates; and the removals the
other way round. So every request, at every moment, meets what it met before or will meet in the end: see `_RowSteps`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from gwctl.api.sensitive import Sensitive
from gwctl.haproxy.desired import is_pooled
from gwctl.haproxy.encoding import SLASH, content_id
from gwctl.haproxy.names import OF_PROGRAM, PLACEHOLDER, Table
from gwctl.haproxy.state import CrtEntry, Rows, Section, SectionKey, SectionKind, Server, State
from gwctl.haproxy.table import FALL_SIGN, GROUP_SIGN


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


_SUPPORT = (
    Table.SERVICES,
    Table.REQUEST_HEADERS,
    Table.RESPONSE_HEADERS,
    Table.LOCATIONS,
    Table.CORS,
    Table.MIRRORS,
    Table.AUTHS,
    Table.FILTERS,
    Table.GROUPS,
)
"""What no request starts from; what is named comes before what names it."""

_PATHS = (Table.PATHS_EXACT, Table.PATHS_REGEX, Table.PATHS_PREFIX)
"""In the order in which a request goes through them: the most specific first."""

_ENTRANCES = (Table.TCP, Table.HOSTS, Table.SNI)


def diff(desired: State, actual: State) -> Plan:
    """Give the plan that makes ``desired`` of ``actual``; it is empty when they are equal."""
    transaction = _diff_sections(desired, actual)
    if transaction is not None and not _is_growth(transaction):
        return Plan((), replace(transaction, state=_without_new_certificates(desired, actual)))
    return Plan(tuple(_diff_runtime(desired, actual)), transaction)


def _without_new_certificates(desired: State, actual: State) -> State:
    there = [entry for entries in actual.crt_lists.values() for entry in entries]
    known = {PLACEHOLDER, *(entry.certificate for entry in there)}
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
    rows = _RowSteps(desired, actual)
    yield from rows.support
    yield from rows.unseen
    yield from rows.added[Table.TCP]
    yield from rows.added[Table.HOSTS]
    # A connection learns its listener once, by its hosts; it is handed to what terminates TLS once that can.
    yield from _add_entries(desired, actual)
    yield from rows.added[Table.SNI]
    yield from rows.gains
    yield from rows.changes
    yield from rows.losses
    for table in reversed(_ENTRANCES):
        yield from rows.removed[table]
    yield from rows.left
    yield from rows.unsupported
    yield from (removal for removal in removals if removal.slot in named)
    yield from _remove_certificates(desired, actual)


def _add_certificates(desired: State, actual: State) -> Iterator[Operation]:
    for name in sorted(desired.authorities - actual.authorities):
        yield AddAuthorities(name, desired.pems[name])
    for name in sorted(desired.certificates - actual.certificates):
        yield AddCertificate(name, desired.pems[name])


def _add_entries(desired: State, actual: State) -> Iterator[Operation]:
    for crt_list in sorted(desired.crt_lists):
        added = desired.crt_lists[crt_list] - actual.crt_lists.get(crt_list, frozenset())
        for entry in sorted(added, key=_entry_order):
            yield AddEntry(crt_list, entry)


def _entry_order(entry: CrtEntry) -> tuple[int, CrtEntry]:
    """Sort entries of names before those with wildcards, and these before what all others are shown.

    They are added in this order and removed in the opposite one: so no name that has an entry is shown at any step
    what it has neither had nor will have.
    """
    return entry.reach, entry


def _remove_certificates(desired: State, actual: State) -> Iterator[Operation]:
    for crt_list in sorted(actual.crt_lists):
        removed = actual.crt_lists[crt_list] - desired.crt_lists.get(crt_list, frozenset())
        for entry in sorted(removed, key=_entry_order, reverse=True):
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
    if table in (Table.HOSTS, Table.SNI):
        return sorted(differing, key=_host_order)
    return sorted(differing, key=lambda key: (-len(key), key)) if table is Table.PATHS_PREFIX else sorted(differing)


def _host_order(key: str) -> tuple[bool, int, str]:
    """Sort specific names first; of one name the inner frontend's row before the one that leads there."""
    host = key.partition("/")[2]
    return host.startswith("_"), -len(host), key


class _RowSteps:
    """The rows that differ, in steps such that at every moment a request meets what it met or what it will meet.

    A request takes the most specific host, and of its rows the most specific one that has a rule for it. So what gives
    requests a rule of their own comes first, the most specific before the others, and what sends them on to the less
    specific comes last, in the opposite order; what does neither is in between. A host that comes is complete
    before requests find it, and it is found before others change; one that goes stays as it is until it is left.
    """

    def __init__(self, desired: State, actual: State) -> None:
        self._desired, self._actual = desired.tables, actual.tables
        differing = {table: _differing_keys(table, desired, actual) for table in (*_SUPPORT, *_PATHS, *_ENTRANCES)}
        self._coming = _new_values(self._wanted(Table.HOSTS), self._there(Table.HOSTS), differing[Table.HOSTS])
        self._going = _new_values(self._there(Table.HOSTS), self._wanted(Table.HOSTS), differing[Table.HOSTS])
        self._bridges: dict[str, str] = {}
        self._alone = _find_alone((table, key) for table in _PATHS for key in differing[table])
        self.unseen: list[Operation] = []
        self.gains: list[Operation] = []
        self.changes: list[Operation] = []
        self.losses: list[Operation] = []
        self.left: list[Operation] = []
        for table in _PATHS:
            for key in differing[table]:
                self._sort_path(table, key)
        self.losses.reverse()
        self.added: dict[Table, list[Operation]] = {}
        self.removed: dict[Table, list[Operation]] = {}
        for table in _ENTRANCES:
            wanted, there = self._wanted(table), self._there(table)
            steps = {key: self._step(table, key) for key in differing[table]}
            self.added[table] = [step for key, step in steps.items() if key not in there]
            self.removed[table] = [step for key, step in steps.items() if key not in wanted][::-1]
            self.changes += (step for key, step in steps.items() if key in there and key in wanted)
        self.support = [
            self._step(table, key) for table in _SUPPORT for key in differing[table] if key in self._wanted(table)
        ]
        self.support += (SetRow(Table.GROUPS, key, text, False) for key, text in self._bridges.items())
        self.unsupported: list[Operation] = [RemoveRow(Table.GROUPS, key) for key in self._bridges]
        self.unsupported += (
            self._step(table, key)
            for table in reversed(_SUPPORT)
            for key in reversed(differing[table])
            if key not in self._wanted(table)
        )

    def _there(self, table: Table) -> Rows:
        return self._actual.get(table, {})

    def _wanted(self, table: Table) -> Rows:
        return self._desired.get(table, {})

    def _step(self, table: Table, key: str) -> Operation:
        value = self._wanted(table).get(key)
        return RemoveRow(table, key) if value is None else SetRow(table, key, value, key in self._there(table))

    def _sort_path(self, table: Table, key: str) -> None:
        step = self._step(table, key)
        host = key.partition(SLASH)[0]
        if host in self._coming:
            self.unseen.append(step)
        elif host in self._going:
            self.left.append(step)
        elif isinstance(step, RemoveRow):
            self.losses.append(step)
        elif isinstance(step, SetRow) and step.existing:
            self._sort_change(step)
        else:
            self.gains.append(step)

    def _sort_change(self, step: SetRow) -> None:
        """Where some requests get a rule and others lose theirs, a group that has the rules of both stands between.

        It is not needed where no other row changes for these requests: then one step is the whole change.
        """
        old = self._there(step.table)[step.key]
        before = _conditions(old, self._there(Table.GROUPS))
        after = _conditions(step.value, self._wanted(Table.GROUPS))
        gains, loses = not _takes_all(before, after), not _takes_all(after, before)
        if gains and loses and (step.table, step.key) in self._alone:
            loses = False
        if gains and loses:
            bridge, groups = _bridge(old, step.value, self._wanted(Table.GROUPS))
            self._bridges.update(
                (name, text)
                for name, text in groups.items()
                if name not in self._there(Table.GROUPS) and name not in self._wanted(Table.GROUPS)
            )
            self.gains.append(replace(step, value=bridge))
        elif gains:
            self.gains.append(step)
        if loses:
            self.losses.append(step)
        elif not gains:
            self.changes.append(step)


def _find_alone(rows: Iterable[tuple[Table, str]]) -> set[tuple[Table, str]]:
    """Find the rows of paths that share no request with another one of them."""
    spans = sorted((f"{key}{SLASH}" if table is not Table.PATHS_PREFIX else key, table, key) for table, key in rows)
    alone = {(table, key) for _, table, key in spans}
    around: list[tuple[str, Table, str]] = []
    for span, table, key in spans:
        while around and not span.startswith(around[-1][0]):
            around.pop()
        if around:
            alone -= {(table, key), around[-1][1:]}
        around.append((span, table, key))
    return alone


def _new_values(rows: Rows, others: Rows, differing: Iterable[str]) -> set[str]:
    """Give the values of ``rows`` that ``others`` do not have, by the keys at which they differ."""
    found = {rows[key] for key in differing if key in rows}
    return found - set(others.values()) if found else found


def _parts(value: str, groups: Rows) -> Iterator[list[tuple[str, str]]]:
    """Yield the rules (conditions, entry) of a path's row, by the parts of its group; the last may name the next."""
    if not value.startswith(GROUP_SIGN):
        yield [("", value)]
    for _ in groups:
        if not value.startswith(GROUP_SIGN):
            return
        text = groups.get(value[1:].partition(FALL_SIGN)[0], "")
        rules = [(conditions, entry) for conditions, _, entry in (rule.partition("?") for rule in text.split("&"))]
        yield rules
        value = rules[-1][1]


def _conditions(value: str, groups: Rows) -> frozenset[str]:
    """Give what requests a path's row takes: its rules' conditions, an empty one for all."""
    rules = (rule for part in _parts(value, groups) for rule in part)
    return frozenset(conditions for conditions, entry in rules if entry and not entry.startswith(GROUP_SIGN))


def _takes_all(conditions: frozenset[str], others: frozenset[str]) -> bool:
    """Tell whether what is taken on ``others`` is taken on ``conditions``."""
    return "" in conditions or others <= conditions


def _bridge(old: str, new: str, groups: Rows) -> tuple[str, Rows]:
    """Give a row of a path that takes what the new one takes, else what the old one takes, and the groups it needs."""
    name = old[1:].partition(FALL_SIGN)[0]
    found: dict[str, str] = {}
    for part in reversed(list(_parts(new, groups))):
        rules = [rule for rule in part if not rule[1].startswith(GROUP_SIGN)]
        text = "&".join(f"{conditions}?{entry}" for conditions, entry in (*rules, ("", f"{GROUP_SIGN}{name}")))
        name = content_id(text)
        found[name] = text
    _, sign, shorter = new.partition(FALL_SIGN)
    return f"{GROUP_SIGN}{name}{sign}{shorter}", found


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
