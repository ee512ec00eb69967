"""What HAProxy's routing program does with the rows, said once more in Python.

In: rows and a request. Out: what happens to it. It follows `gwctl.haproxy.program` and ``gwctl.lua`` step by
step and shares no code with the reference matcher, so that their agreement says something. The surprising
fact: it is stricter than HAProxy, which takes a row that is missing for no match: here that is a
`DanglingReference`, but where a group hands on to a shorter prefix, which is found as paths are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

import pcre2

from gwctl.graph.validate import WILDCARD_LEVELS
from gwctl.haproxy.encoding import SLASH
from gwctl.haproxy.names import Table, inner_name
from gwctl.haproxy.program import PATH_BYTES
from gwctl.haproxy.state import Rows
from gwctl.haproxy.table import ERROR_TARGET, INNER_SIGN, NO_ROUTE, REDIRECT_TARGET
from gwctl.routing.request import Request

Tables = Mapping[Table, Rows]


class DanglingReference(LookupError):
    """A row names another that is not there."""

    def __init__(self, row: str, table: Table, key: str) -> None:
        super().__init__(f"{row} names {key} in {table}, which is not there")
        self.row = row
        self.table = table
        self.key = key


@dataclass(frozen=True, slots=True)
class Share:
    """What happens to a share of the requests that an entry takes.

    ``target``: the Service's key, ``!`` for an error, ``-`` for a redirect; ``slot`` is the Service's. ``filters``: the
    rows that its filters consist of, by table. ``status`` is what is answered at once, None when the Service answers.
    ``location``: where a redirect leads. ``path`` and ``hostname`` are what the Service gets.
    """

    weight: int
    target: str
    slot: str = ""
    filters: tuple[tuple[Table, str], ...] = ()
    status: int | None = None
    location: str = ""
    path: str = ""
    hostname: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happens to a request.

    ``host``: the virtual host's id. ``entry``: the row's entry that takes it, ``rule`` its name. ``shares``: in the
    row's order. All is empty where nothing fits.
    """

    host: str = ""
    entry: str = ""
    rule: str = ""
    shares: tuple[Share, ...] = ()

    @property
    def status(self) -> int | None:
        """What all requests are answered at once; None when a Service may answer."""
        statuses = {share.status for share in self.shares} or {404}
        return next(iter(statuses)) if len(statuses) == 1 else None


def look_up(tables: Tables, frontend: str, request: Request) -> Outcome:
    """Look a request up that comes in at an HTTP frontend (by section name). Raises `DanglingReference`."""
    rows = _Rows(tables)
    host = _find_host(rows, frontend, request)
    if host is None:
        return Outcome()
    entry = _find_entry(rows, host, request)
    if entry is None:
        return Outcome(host)
    target, rule, *filters = entry.split("|")
    shares = (
        _filter(rows, f"the entry {entry}", request, share, own or "".join(filters))
        for share, own in _shares(rows, f"the entry {entry}", target)
    )
    return Outcome(host, entry, rule, tuple(shares))


def look_up_connection(tables: Tables, frontend: str) -> Outcome | None:
    """Look a connection up at a TCP frontend; None when it is closed at once. Raises `DanglingReference`."""
    rows = _Rows(tables)
    entry = rows.find(Table.TCP, frontend)
    if entry is None:
        return None
    target, rule = entry.split("|")
    return Outcome("", entry, rule, tuple(share for share, _ in _shares(rows, f"the entry {entry}", target)))


def look_up_handshake(tables: Tables, frontend: str, server_name: str) -> Outcome | None:
    """Look a connection up by the name in its handshake (empty: none), at a frontend that looks at handshakes.

    Where it is handed to an inner frontend for HTTP, the entry says so and there is no share. None: closed at once.
    Raises `DanglingReference`.
    """
    rows = _Rows(tables)
    entry = _find_host_row(rows, Table.SNI, frontend, server_name)
    if entry == f"{INNER_SIGN}tls":
        inner = inner_name(frontend, "tls")
        entry = _find_host_row(rows, Table.SNI, inner, server_name)
        if entry is None:
            raise DanglingReference(f"{Table.SNI} {frontend}", Table.SNI, f"{inner}/{server_name}")
    if entry is None or entry == NO_ROUTE:
        return None
    if entry.startswith(INNER_SIGN):
        return Outcome("", entry)
    target, rule = entry.split("|")
    return Outcome("", entry, rule, tuple(share for share, _ in _shares(rows, f"the entry {entry}", target)))


class _Rows:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def find(self, table: Table, key: str) -> str | None:
        """Do what ``map_str`` does."""
        return self._tables.get(table, {}).get(key)

    def find_longest(self, table: Table, key: str) -> str | None:
        """Do what ``map_beg`` does: of the keys that ``key`` begins with, the longest counts."""
        rows = self._tables.get(table, {})
        return next((rows[key[:end]] for end in range(len(key), 0, -1) if key[:end] in rows), None)

    def get(self, table: Table, key: str, row: str) -> str:
        """Do what ``map_str`` does, with a key that ``row`` names."""
        value = self.find(table, key)
        if value is None:
            raise DanglingReference(row, table, key)
        return value


def _find_host(rows: _Rows, frontend: str, request: Request) -> str | None:
    return _find_host_row(rows, Table.HOSTS, frontend, _host_only(request.host))


def _find_host_row(rows: _Rows, table: Table, frontend: str, name: str) -> str | None:
    host = name.lower().rstrip(".")
    found = rows.find(table, f"{frontend}/{host}")
    parent = host.partition(".")[2]
    if parent:
        labels = parent.split(".")
        for count in range(WILDCARD_LEVELS, 0, -1):
            if found is None:
                found = rows.find(table, f"{frontend}/_.{'.'.join(labels[-count:])}")
    return found if found is not None else rows.find(table, f"{frontend}/_")


def _host_only(host: str) -> str:
    end = host.find("]") + 1 if host.startswith("[") else host.find(":")
    return host[:end] if end > 0 else host


def _find_entry(rows: _Rows, host: str, request: Request) -> str | None:
    key = host + quote(request.path[:PATH_BYTES].encode("latin-1"), safe="")
    entry = _pick(rows, f"{Table.PATHS_EXACT} {key}", rows.find(Table.PATHS_EXACT, key), request)
    if entry is None:
        entry = _pick(rows, f"{Table.PATHS_REGEX} {host}", rows.find(Table.PATHS_REGEX, host), request)
    if entry is None:
        found = rows.find_longest(Table.PATHS_PREFIX, key + SLASH)
        entry = _pick(rows, f"{Table.PATHS_PREFIX} for {key}", found, request)
    return entry


def _pick(rows: _Rows, row: str, entry: str | None, request: Request) -> str | None:
    """Do what the action ``gwctl_match`` does."""
    shorter = ""
    while entry is not None and entry.startswith("~"):
        group, _, following = entry[1:].partition(">")
        shorter = following or shorter
        text = rows.get(Table.GROUPS, group, row)
        entry = next((entry for conditions, entry in _parse_group(text) if _fit(conditions, request)), None)
        row = f"{Table.GROUPS} {group}"
        if entry is None and shorter:
            row, entry = f"{Table.PATHS_PREFIX} for {shorter}", rows.find_longest(Table.PATHS_PREFIX, shorter)
            shorter = ""
    return entry


@lru_cache(maxsize=10_000)
def _parse_group(text: str) -> tuple[tuple[tuple[str, ...], str], ...]:
    rules = (rule.partition("?") for rule in text.split("&"))
    return tuple((tuple(conditions.split("+")) if conditions else (), entry) for conditions, _, entry in rules)


def _fit(conditions: tuple[str, ...], request: Request) -> bool:
    return all(_fits(condition, request) for condition in conditions)


def _fits(condition: str, request: Request) -> bool:
    source, operator, rest = condition[0], condition[1], condition[2:]
    name = b""
    if source in ("h", "q"):
        head, _, rest = rest.partition(":")
        name = unquote_to_bytes(head)
    value = _value(source, name, request)
    wanted = unquote_to_bytes(rest)
    if source == "c":
        return wanted in (value, _preflight_method(request))
    if value is None:
        return False
    if operator != "~":
        return value == wanted
    expression = _compile(wanted)
    try:
        return expression is not None and expression.match(value) is not None
    except pcre2.LibraryError:
        return False


@lru_cache(maxsize=10_000)
def _compile(pattern: bytes) -> pcre2.Pattern | None:
    try:
        return pcre2.compile(b"\\A(?:" + pattern + b")\\z")
    except pcre2.LibraryError:
        return None


def _value(source: str, name: bytes, request: Request) -> bytes | None:
    if source in ("m", "c"):
        return request.method.encode("latin-1")
    if source == "p":
        return request.path.encode("latin-1")
    if source == "h" and name == b"host":
        return request.host.encode("latin-1") or None
    if source == "h":
        lines = [text.encode("latin-1") for key, text in request.headers if key.lower().encode("latin-1") == name]
        return b",".join(lines) if lines else None
    return _parameters(request.query).get(name)


def _preflight_method(request: Request) -> bytes | None:
    if request.method != "OPTIONS" or _value("h", b"origin", request) is None:
        return None
    return _value("h", b"access-control-request-method", request)


def _parameters(query: str) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for part in query.encode("latin-1").split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            found.setdefault(_query_decode(name), _query_decode(value))
    return found


def _query_decode(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _shares(rows: _Rows, row: str, target: str) -> Iterator[tuple[Share, str]]:
    """Yield the shares of a target, each with the key of filters that it names."""
    several = target[target.find(">") + 1 or 1 :].split("+") if target.startswith("*") else []
    parts = [part.partition(":") for part in several] or [("1", "", target)]
    for weight, _, text in parts:
        name, _, filters = text.partition("@")
        slot = "" if name in (ERROR_TARGET, REDIRECT_TARGET) else rows.get(Table.SERVICES, name, row)
        yield Share(int(weight), name, slot, status=500 if name == ERROR_TARGET else None), filters


FILTER_FIELDS = (
    Table.REQUEST_HEADERS,
    Table.RESPONSE_HEADERS,
    Table.LOCATIONS,
    None,
    Table.CORS,
    Table.MIRRORS,
    None,
    Table.AUTHS,
)
"""The tables that the fields of a row in ``filters`` lead to; None where the field is the value itself."""


def _filter(rows: _Rows, row: str, request: Request, share: Share, key: str) -> Share:
    """Do what the row ``key`` of ``filters`` says; its fields are those of ``_compile_filters`` in ``table.py``."""
    text = rows.get(Table.FILTERS, key, row) if key else ""
    found = {Table.FILTERS: text} if text else {}
    for table, name in zip(FILTER_FIELDS, text.split("|"), strict=False):
        if name and table is not None:
            found[table] = rows.get(table, name, f"{Table.FILTERS} {key}")
    kind, alone, before, cut, host, status, scheme, port = _fields(found.get(Table.LOCATIONS, ""), 8)
    path = request.path
    if kind:
        path = _text(alone)
    rest = request.path[int(cut) :] if kind == "prefix" else ""
    if rest:
        path = _text(before) + rest
    filters = tuple(found.items())
    if status:
        query = f"?{request.query}" if request.query else ""
        location = f"{scheme}://{host or _host_only(request.host)}{port}{path}{query}"
        return replace(share, filters=filters, status=int(status), location=location)
    return replace(share, filters=filters, path=path, hostname=host or request.host)


def _fields(row: str, number: int) -> list[str]:
    """Give the fields of a row, those left out at its end included."""
    fields = row.split("|")
    return fields + [""] * (number - len(fields))


def _text(encoded: str) -> str:
    return unquote_to_bytes(encoded).decode("latin-1")
