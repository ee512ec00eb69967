"""Routing in; out come the rows that HAProxy's routing program reads.

A path leads to an *entry* (``target|rule|filters``) or, where more than the path decides, to a *group* of entries with
conditions. Groups and filters are named by their content and never change: a change adds new rows and flips the path's
row. The surprising fact: a group that none of a request's properties fits hands on
to the row of the longest prefix above it, by the key of its parent (``~group>key``), whether that has a row or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gwctl.graph.node import REFUSED, Certificate, ServicePort
from gwctl.haproxy.encoding import (
    SLASH,
    content_id,
    encode,
    encode_header_names,
    encode_headers,
    encode_host,
)
from gwctl.haproxy.names import (
    SYSTEM_AUTHORITIES,
    Table,
    authorities_name,
    certificate_name,
    frontend_name,
    inner_name,
)
from gwctl.haproxy.state import Change, Protocol, Rows, ServerTLS
from gwctl.routing.effect import WELL_KNOWN_PORTS, uri_path
from gwctl.routing.filter import NO_FILTERS, Auth, Cors, Filters, HeaderFilter, Mirror, PathChange, Retry, Timeouts
from gwctl.routing.rule import Backend, Candidate, Match, PathKey, Rule
from gwctl.routing.session import Session
from gwctl.routing.virtualhost import Frontend, FrontendKey, Paths, Routing, Scheme, SniRule, VirtualHost

ROW_LIMIT = 12_500
"""Longest row in bytes: HAProxy takes a command of 15,360 bytes by default, and cuts off what is longer.

No rule is longer by itself: see ``MATCH_LIMIT`` in `gwctl.graph.validate`.
"""

GROUP_LIMIT = 4_000
"""A group longer than this goes on in another."""

ERROR_TARGET = "!"
REDIRECT_TARGET = "-"
INNER_SIGN = ">"
GROUP_SIGN = "~"
FALL_SIGN = ">"

Row = tuple[Table, str, str]


class Side(NamedTuple):
    """What a listener does to backends with TLS: shows a certificate, its Gateway's, or leaves TLS to its clients."""

    client: Certificate | None = None
    passes_through: bool = False


class Upstream(NamedTuple):
    """What a slot is for: a Service's port, with TLS where that has it, and what is shown to it if it asks."""

    service: ServicePort
    has_tls: bool = False
    client: Certificate | None = None


class Origin(NamedTuple):
    """By which scheme and port clients reach a listener, and what that does to backends."""

    scheme: Scheme
    port: int
    side: Side = Side()


Place = tuple[VirtualHost, PathKey]

_REGEXES = PathKey("regex", "")
_TABLE_OF = {"exact": Table.PATHS_EXACT, "regex": Table.PATHS_REGEX, "prefix": Table.PATHS_PREFIX}


@dataclass(frozen=True, slots=True)
class PlaceRows:
    """What one path of a virtual host needs: rows (its own last), and Services by key."""

    rows: tuple[Row, ...]
    services: tuple[tuple[str, Upstream], ...]


@dataclass(frozen=True, slots=True)
class Tables:
    """All rows, but for ``services``, whose values are slots and so depend on what HAProxy has.

    ``services``: the Services in use, by their key in the rows.
    ``changes`` says which keys of a table may differ from the rows it was built upon. ``places`` and ``uses`` (how many
    places need a row) are what the next compilation builds upon.
    """

    rows: Mapping[Table, Rows]
    services: Mapping[str, Upstream]
    changes: Mapping[Table, Change] = field(default_factory=dict, repr=False, compare=False)
    places: Mapping[Place, PlaceRows] = field(default_factory=dict, repr=False, compare=False)
    uses: Mapping[tuple[Table, str], int] = field(default_factory=dict, repr=False, compare=False)


def virtual_host_id(host: VirtualHost) -> str:
    """Give a virtual host's id: ``namespace/gateway/listener/host``, with ``_`` for a ``*``.

    Its first three parts are the listener, whoever declares it: no name has a colon.
    """
    return f"{host.listener}/{encode_host(host.host)}"


def http_frontend_name(frontend: Frontend) -> str:
    """Name the frontend of HAProxy that takes the requests: an inner one where handshakes are looked at first."""
    name = frontend_name(*frontend.key)
    return inner_name(name, "https") if frontend.mode == "tls" else name


def host_key(frontend: str, host: str) -> str:
    """Give a row's key in ``hosts`` or ``sni``."""
    return f"{frontend}/{encode_host(host)}"


def service_key(upstream: Upstream, mode: str) -> str:
    """Give a Service's key in ``services``; what its slot needs beyond HTTP/1.1 follows a ``~`` each.

    That is ``tcp`` or ``h2``, and ``tls-`` with what its TLS comes to, so another TLS is another slot.
    """
    service = upstream.service
    key = f"{service.namespace}/{service.name}/{service.port}"
    if mode != "http":
        key = f"{key}~{mode}"
    tls = build_server_tls(upstream, mode)
    return key if tls is None else f"{key}~tls-{tls.identity}"


def service_mode(key: str) -> str:
    """Give the mode of the slot that a key of ``services`` needs."""
    return "tcp" if "tcp" in key.split("~")[1:] else "http"


def key_mode(key: str) -> str:
    """Give what `service_key` was asked for: ``http``, ``h2`` or ``tcp``."""
    return service_protocol(key) or service_mode(key)


def service_protocol(key: str) -> Protocol | None:
    """Give the protocol that the servers of a key of ``services`` are spoken to in."""
    return "h2" if "h2" in key.split("~")[1:] else None


def build_server_tls(upstream: Upstream, mode: str) -> ServerTLS | None:
    """Give the TLS of an upstream's servers, None for plain connections; ``mode``: ``http``, ``h2`` or ``tcp``."""
    tls = upstream.service.tls if upstream.has_tls else None
    if tls is None:
        return None
    return ServerTLS(
        tls.hostname,
        SYSTEM_AUTHORITIES if tls.authorities is None else authorities_name(tls.authorities.identity),
        "" if upstream.client is None else certificate_name(upstream.client.identity),
        _ALPN[mode],
    )


_ALPN = {"http": "http/1.1", "h2": "h2", "tcp": ""}


def path_key(host: VirtualHost, path: PathKey) -> str:
    """Give the key of a path's row; in ``paths_prefix`` it ends with a separator, so ``/v2`` never takes ``/v2x``."""
    if path.kind == "regex":
        return virtual_host_id(host)
    return virtual_host_id(host) + encode(path.value) + (SLASH if path.kind == "prefix" else "")


def compile_tables(routing: Routing, previous: Tables | None = None) -> Tables:
    """Compile all rows; upon ``previous`` only the paths that the routing says have changed."""
    if previous is None or routing.changed is None:
        builder = _Builder(routing, Tables({}, {}))
        dirty = {(host, path) for host, paths in routing.paths.items() for path in _places_of(paths)}
        dirty_hosts = {host for hosts in routing.hosts.values() for host in hosts.values()}
    else:
        builder = _Builder(routing, previous)
        dirty = {(host, _REGEXES if path.kind == "regex" else path) for host, path in routing.changed}
        dirty_hosts = {host for host, _ in routing.changed}
    for place in sorted(dirty):
        builder.compile(place)
    for host in sorted(dirty_hosts):
        builder.set_host(host)
    builder.compile_connections()
    return builder.build()


class _Builder:
    """Collects rows while counting how many places need each. What is not touched stays the same object."""

    def __init__(self, routing: Routing, previous: Tables) -> None:
        self.routing = routing
        self.previous = previous
        self.frontend_of = {node.key: key for key, frontend in routing.frontends.items() for node in frontend.listeners}
        self.rows: dict[Table, Rows] = {
            table: previous.rows.get(table, {}) for table in Table if table is not Table.SERVICES
        }
        self.touched: dict[Table, set[str]] = {}
        self.services = dict(previous.services)
        self.places = dict(previous.places)
        self.uses = dict(previous.uses)

    def compile(self, place: Place) -> None:
        host, path = place
        old = self.places.pop(place, None)
        paths = self.routing.paths.get(host, {})
        frontend = self.routing.frontends[self.frontend_of[host.listener]]
        origin = Origin(frontend.scheme, frontend.port, Side(self.routing.client_certificate(frontend.key)))
        new = compile_place(host, path, paths, origin) if paths else None
        if new is not None and new.rows:
            self.places[place] = new
            for row in new.rows:
                self._set(*row)
            self._count(new, 1)
        if old is not None:
            self._count(old, -1)

    def _touch(self, table: Table, key: str) -> dict[str, str]:
        if table not in self.touched:
            self.touched[table] = set()
            self.rows[table] = dict(self.rows[table])
        self.touched[table].add(key)
        rows = self.rows[table]
        assert isinstance(rows, dict)
        return rows

    def _set(self, table: Table, key: str, value: str) -> None:
        if self.rows[table].get(key) != value:
            self._touch(table, key)[key] = value

    def _remove(self, table: Table, key: str) -> None:
        if key in self.rows[table]:
            del self._touch(table, key)[key]

    def _count(self, rows: PlaceRows, step: int) -> None:
        named = [(table, key) for table, key, _ in rows.rows]
        for table, key in [*named, *((Table.SERVICES, key) for key, _ in rows.services)]:
            count = self.uses.get((table, key), 0) + step
            if count:
                self.uses[table, key] = count
                continue
            del self.uses[table, key]
            if table is Table.SERVICES:
                self.services.pop(key, None)
            else:
                self._remove(table, key)
        if step > 0:
            self.services.update(rows.services)

    def set_host(self, host: VirtualHost) -> None:
        frontend = self.frontend_of[host.listener]
        key = host_key(http_frontend_name(self.routing.frontends[frontend]), host.host)
        owner = self.routing.hosts[frontend].get(host.host)
        if owner is None:
            self._remove(Table.HOSTS, key)
        else:
            self._set(Table.HOSTS, key, virtual_host_id(owner))

    def compile_connections(self) -> None:
        """Compile what is decided once for each connection: the tables ``tcp`` and ``sni``."""
        for key in [key for key in self.services if service_mode(key) == "tcp"]:
            del self.services[key]
        tcp: dict[str, str] = {}
        for frontend, rule in self.routing.tcp.items():
            if rule is not None:
                tcp[frontend_name(*frontend)] = self._connection_entry(rule, frontend)
        self._replace(Table.TCP, tcp)
        sni: dict[str, str] = {}
        for frontend, names in self.routing.sni.items():
            for name, found in names.items():
                passes = found.inner is None
                rule = found.rule
                entry = self._connection_entry(rule, frontend, passes_through=passes) if rule is not None else None
                sni.update(_sni_rows(frontend_name(*frontend), name, found, entry))
        self._replace(Table.SNI, sni)

    def _connection_entry(self, rule: Rule, frontend: FrontendKey, *, passes_through: bool = False) -> str:
        side = Side(self.routing.client_certificate(frontend), passes_through)
        self.services.update(_services(rule, "tcp", side))
        return f"{_target(rule, 'tcp', side, lambda _: '')[0]}|{rule.name}"

    def _replace(self, table: Table, wanted: Rows) -> None:
        for key in self.rows[table].keys() - wanted.keys():
            self._remove(table, key)
        for key, value in wanted.items():
            self._set(table, key, value)

    def build(self) -> Tables:
        changes = {
            table: Change(self.previous.rows.get(table, {}), frozenset(keys)) for table, keys in self.touched.items()
        }
        return Tables(self.rows, self.services, changes, self.places, self.uses)


NO_ROUTE = f"{ERROR_TARGET}|"
"""The entry of connections that no route takes: they are closed."""


def _sni_rows(frontend: str, name: str, sni: SniRule, entry: str | None) -> Iterator[tuple[str, str]]:
    """Yield the rows of one name: ``target|rule``, or ``>`` and the inner frontend, which may have a row of its own."""
    if sni.inner != "https" and entry is None:
        yield host_key(frontend, name), NO_ROUTE
        return
    if sni.inner is not None:
        yield host_key(frontend, name), f"{INNER_SIGN}{sni.inner}"
    if entry is not None:
        where = inner_name(frontend, sni.inner) if sni.inner is not None else frontend
        yield host_key(where, name), entry


def _places_of(paths: Paths) -> Iterator[PathKey]:
    """Yield the paths that have a row of their own: all regular expressions of a host share one."""
    for path in paths:
        yield _REGEXES if path.kind == "regex" else path


def compile_place(host: VirtualHost, path: PathKey, paths: Paths, origin: Origin) -> PlaceRows:
    """Compile one path of a virtual host; ``origin`` is the listener's, which redirects repeat."""
    if path.kind == "regex":
        candidates = sorted(
            (candidate for key, found in paths.items() if key.kind == "regex" for candidate in found),
            key=lambda candidate: candidate.order,
        )
    else:
        candidates = list(paths.get(path, ()))
    support: list[Row] = []
    services: dict[str, Upstream] = {}
    rules: list[tuple[str, str]] = []
    for candidate in candidates:
        conditions = "+".join(_conditions(candidate.match))
        entry, rows = _compile_entry(candidate, origin)
        support += rows
        services.update(_services(candidate.rule, "http", origin.side))
        rules.append((conditions, entry))
        if not conditions:
            break
    if not rules:
        return PlaceRows((), ())
    if rules[0][0] == "":
        value = rules[0][1]
    else:
        groups = list(_chain_groups(rules))
        support += [(Table.GROUPS, name, text) for name, text in groups]
        value = f"{GROUP_SIGN}{groups[-1][0]}"
        if path.kind == "prefix" and path.value and rules[-1][0]:
            parent = PathKey("prefix", path.value.rpartition("/")[0])
            value = f"{value}{FALL_SIGN}{path_key(host, parent)}"
    own = (_TABLE_OF[path.kind], path_key(host, path), value)
    return PlaceRows((*dict.fromkeys(support), own), tuple(sorted(services.items())))


def _chain_groups(rules: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the groups (id, text) that hold the rules, the last part first: each long part ends by naming the next."""
    parts: list[list[str]] = [[]]
    length = 0
    for conditions, entry in rules:
        text = f"{conditions}?{entry}"
        if length > GROUP_LIMIT or (length and length + len(text) > ROW_LIMIT):
            parts.append([])
            length = 0
        parts[-1].append(text)
        length += len(text) + 1
    following = ""
    for part in reversed(parts):
        text = "&".join([*part, f"?{GROUP_SIGN}{following}"] if following else part)
        following = content_id(text)
        yield following, text


def _compile_entry(candidate: Candidate, origin: Origin) -> tuple[str, list[Row]]:
    """Give an entry and the rows it names: ``target|rule``, and ``|filters`` where there are any."""
    rule = candidate.rule
    rows: list[Row] = []

    def filters(chosen: Filters) -> str:
        key, needed = _compile_filters(chosen, candidate.match.path, origin)
        rows.extend(needed)
        return key

    target, own = _target(rule, "http", origin.side, filters)
    entry = f"{target}|{rule.name}"
    return f"{entry}|{own}" if own else entry, rows


def _compile_filters(filters: Filters, matched: PathKey, origin: Origin) -> tuple[str, list[Row]]:
    """Give the key of a row in ``filters`` (empty for no filters) and the rows it needs, its own last.

    The row is ``request headers|response headers|location|timeouts|cors|mirrors|retry|auths``: keys, but for timeouts
    and retry, which are `_timeouts_field` and `_retry_field`. What is empty at the end is left out.
    """
    if filters == NO_FILTERS:
        return "", []
    rows: list[Row] = []

    def key(table: Table, text: str) -> str:
        if text:
            rows.append((table, content_id(text), text))
        return content_id(text) if text else ""

    def mirror(item: Mirror) -> str:
        filters_of_copy, needed = _compile_filters(item.filters, matched, origin)
        rows.extend(needed)
        share = "@".join(filter(None, (_mirror_key(item, origin.side), filters_of_copy)))
        return f"{item.numerator}/{item.denominator}:{share}"

    fields = (
        key(Table.REQUEST_HEADERS, _header_row(filters.request_headers)),
        key(Table.RESPONSE_HEADERS, _header_row(filters.response_headers)),
        key(Table.LOCATIONS, _location_row(filters, matched, origin)),
        _timeouts_field(filters.timeouts),
        key(Table.CORS, _cors_row(filters.cors)),
        key(Table.MIRRORS, "+".join(mirror(item) for item in filters.mirrors)),
        _retry_field(filters.retry, filters.timeouts),
        key(Table.AUTHS, "+".join(_auth_row(auth, origin.side) for auth in filters.auths)),
    )
    return key(Table.FILTERS, "|".join(fields).rstrip("|")), rows


def _services(rule: Rule, mode: str, side: Side) -> dict[str, Upstream]:
    filters = (rule.filters, *map(rule.filters_of, rule.backends))
    asked = {
        _auth_key(auth, side): _upstream(auth.service, side)
        for item in filters
        for auth in item.auths
        if auth.service is not None
    }
    if rule.filters.redirect is not None:
        return asked
    mirrors = (mirror for item in filters for mirror in item.mirrors)
    return {
        **asked,
        **{_mirror_key(mirror, side): _upstream(mirror.service, side) for mirror in mirrors},
        **{
            _backend_key(backend, mode, side): _upstream(backend.service, side)
            for backend in rule.backends
            if backend.service is not None and _leads_somewhere(backend, side)
        },
    }


def _leads_somewhere(backend: Backend, side: Side) -> bool:
    return backend.service is not None and (side.passes_through or backend.service.tls != REFUSED)


def _upstream(service: ServicePort, side: Side) -> Upstream:
    has_tls = service.tls is not None and not side.passes_through
    return Upstream(service, has_tls, side.client if has_tls else None)


def _mirror_key(mirror: Mirror, side: Side) -> str:
    return service_key(_upstream(mirror.service, side), mirror.protocol or "http")


def _backend_key(backend: Backend, mode: str, side: Side) -> str:
    if not _leads_somewhere(backend, side) or backend.service is None:
        return ERROR_TARGET
    return service_key(_upstream(backend.service, side), backend.protocol or mode)


def _target(rule: Rule, mode: str, side: Side, filters: Callable[[Filters], str]) -> tuple[str, str]:
    """Give a target and the key of its filters, as ``filters`` makes keys.

    A target is one Service, ``!`` for an error, ``-`` for a redirect, or ``*`` and shares by weight. A share whose
    filters are not those of its rule names them after a ``@``. Of a rule with sessions ``*SESSION>`` comes before them.
    """
    own = filters(rule.filters)
    if rule.filters.redirect is not None:
        return REDIRECT_TARGET, own
    shares: dict[tuple[str, str], int] = {}
    for backend in rule.backends:
        share = (_backend_key(backend, mode, side), filters(rule.filters_of(backend)))
        shares[share] = shares.get(share, 0) + backend.weight
    if not shares:
        return ERROR_TARGET, own
    if len(shares) == 1 and rule.session is None:
        return next(iter(shares))
    names = {share: share[0] if share[1] == own else "@".join(share) for share in shares}
    session = f"{_session_field(rule.session, rule.name)}>" if rule.session is not None else ""
    return f"*{session}" + "+".join(f"{weight}:{names[share]}" for share, weight in sorted(shares.items())), own


def _session_field(session: Session, rule: str) -> str:
    """``KIND:NAME:SECONDS``: ``c`` for a cookie, ``p`` for one that outlives the browser, ``h`` for a header."""
    kind = "h" if session.in_header else "p" if session.is_permanent else "c"
    return f"{kind}:{encode(session.name or f'gwctl-{content_id(rule)[:8]}')}:{session.seconds or ''}"


def _conditions(match: Match) -> Iterator[str]:
    if match.path.kind == "regex":
        yield f"p~{encode(match.path.value)}"
    if match.method:
        yield f"{'c' if match.preflights else 'm'}:{encode(match.method)}"
    for source, values in (("h", match.headers), ("q", match.queries)):
        for value in values:
            sign = "~" if value.regex else ":"
            yield f"{source}{sign}{encode(value.name)}:{encode(value.value)}"


def _header_row(headers: HeaderFilter | None) -> str:
    if headers is None:
        return ""
    fields = (encode_header_names(headers.remove), encode_headers(headers.set), encode_headers(headers.add))
    return "|".join(fields).rstrip("|")


def _location_row(filters: Filters, matched: PathKey, origin: Origin) -> str:
    """``path kind|path where nothing follows|path before what follows|length cut off|host|status|scheme|port``.

    Without a status it is a rewrite, and ends with the host. An empty host is the request's. The port is the filter's,
    else the well-known one of the filter's scheme, else the listener's, and left out where the scheme implies it
    (HTTPRequestRedirectFilter.port).
    """
    redirect = filters.redirect
    if redirect is None:
        rewrite = filters.rewrite
        return "" if rewrite is None else "|".join((*_path_fields(rewrite.path, matched), rewrite.hostname)).rstrip("|")
    scheme = redirect.scheme or origin.scheme
    number = redirect.port or (WELL_KNOWN_PORTS[scheme] if redirect.scheme else origin.port)
    suffix = "" if WELL_KNOWN_PORTS.get(scheme) == number else f":{number}"
    fields = (*_path_fields(redirect.path, matched), redirect.hostname, str(redirect.status), scheme, suffix)
    return "|".join(fields).rstrip("|")


def _path_fields(change: PathChange | None, matched: PathKey) -> tuple[str, str, str, str]:
    if change is None:
        return "", "", "", ""
    path = uri_path(change.path)
    if change.kind == "full":
        return change.kind, encode(path or "/"), "", ""
    return change.kind, encode(path or "/"), encode(path.rstrip("/")), str(len(matched.value.encode()))


def _cors_row(cors: Cors | None) -> str:
    """``origins|credentials|methods|headers|exposed headers|max age``; lists are joined by ``+``, ``*`` is as it is."""
    if cors is None:
        return ""
    lists = (cors.origins, cors.methods, cors.headers, cors.exposed)
    origins, *others = ("+".join("*" if value == "*" else encode(value) for value in values) for values in lists)
    return "|".join((origins, "1" if cors.credentials else "0", *others, str(cors.max_age)))


def _auth_key(auth: Auth, side: Side) -> str:
    return ERROR_TARGET if auth.service is None else service_key(_upstream(auth.service, side), auth.protocol or "http")


def _auth_row(auth: Auth, side: Side) -> str:
    """``SERVICE:PATH:HEADERS:ANSWER HEADERS``; lists are joined by ``&``."""
    lists = ("&".join(map(encode, names)) for names in (auth.headers, auth.answer_headers))
    return ":".join((_auth_key(auth, side), encode(auth.path), *lists))


def _retry_field(retry: Retry | None, timeouts: Timeouts | None) -> str:
    """``ATTEMPTS:PAUSE:LIMIT:CODES``; the pause and the limit for all attempts (empty for none) are in milliseconds."""
    if retry is None:
        return ""
    limit = timeouts.request if timeouts is not None else None
    codes = "+".join(map(str, retry.codes))
    return f"{retry.attempts}:{retry.pause}:{limit or ''}:{codes}"


NO_LIMIT = 2**31 - 1
"""The longest timeout that HAProxy knows, in milliseconds: 24 days."""

CONNECT_TIMEOUT = 2000
"""How long HAProxy waits for one connection, in milliseconds, where no timeout of a rule says less."""

_CONNECT_SHARES = 7
"""Waiting for a connection, at most four times and three pauses of as long between them, takes a request's timeout."""


def _timeouts_field(timeouts: Timeouts | None) -> str:
    """``SERVER``, how long to wait for a backend's answer, or ``SERVER:CONNECT``, in milliseconds."""
    if timeouts is None:
        return ""
    limits = [limit for limit in (timeouts.request, timeouts.backend_request) if limit]
    server = str(min([*limits, NO_LIMIT]))
    connect = (timeouts.request or NO_LIMIT) // _CONNECT_SHARES
    return server if connect >= CONNECT_TIMEOUT else f"{server}:{max(connect, 1)}"
