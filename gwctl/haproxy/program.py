"""The routing program: the fixed configuration that reads the tables, as the Data Plane API's JSON.

It lives in named ``defaults`` sections that every frontend and slot inherits, so that those are a few lines each. It
never changes while gwctl of one version runs; all that changes is rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from gwctl.graph.gatewayservice import Mode
from gwctl.haproxy import grpc, loop
from gwctl.haproxy.action import answer, found, set_header, set_variable, when
from gwctl.haproxy.connection import INNERS, hand_over, route_handshakes, route_tcp, route_terminated
from gwctl.haproxy.encoding import SLASH, content_id
from gwctl.haproxy.filtering import IS_ERROR, change_copy, change_response, expose_headers, filter_request, set_timeouts
from gwctl.haproxy.host import as_session, find_row
from gwctl.haproxy.names import (
    ATTEMPTS,
    DEFAULTS_HTTP,
    DEFAULTS_HTTP_SLOT,
    DEFAULTS_HTTPS,
    DEFAULTS_LOOP,
    DEFAULTS_SNI,
    DEFAULTS_TCP,
    DEFAULTS_TCP_SLOT,
    DEFAULTS_TLS,
    LOOP,
    LOST_COPIES,
    PLACEHOLDER,
    PLACEHOLDER_HOST,
    PREFIX,
    RETRY,
    Table,
    crt_list_name,
    frontend_name,
    inner_name,
    listener_slot_name,
    to_inner_name,
)
from gwctl.haproxy.persistence import keep_session, use_server
from gwctl.haproxy.socket import BEGINNING, VARIABLE, socket_address, socket_name
from gwctl.haproxy.state import CrtEntry, Section, SectionKey, SectionKind
from gwctl.haproxy.table import CONNECT_TIMEOUT, INNER_SIGN, NO_LIMIT
from gwctl.routing.virtualhost import Frontend, Inner

PATH_BYTES = 1_100
"""How much of a request's path is looked up: a rule's has at most 1,024, and HAProxy cannot encode long ones."""

_CIPHERS = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
_HTTP_ALPN = "h2,http/1.1"
_ANY_CERTIFICATE = {"ca_ignore_err": "all", "crt_ignore_err": "all"}
"""What a bind ignores of clients' certificates, where crt-list entries ask for one and none is needed."""
_CIPHERSUITES = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

_LUA = files(__package__).joinpath("gwctl.lua").read_text(encoding="utf-8")

_SECOND = 1000
_MINUTE = 60 * _SECOND

_LOG_FORMAT = (
    '"%ci:%cp [%tr] %ft %[var(txn.rule)] %[var(txn.backend_service)] %s '
    '%TR/%Tw/%Tc/%Tr/%Ta %ST %B %tsc %ac/%fc/%bc/%sc/%rc %{+Q}r %[var(txn.grpc_status)]"'
)
_TCP_LOG_FORMAT = (
    '"%ci:%cp [%t] %ft %[var(txn.rule)] %[var(txn.backend_service)] %s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc"'
)


ANY_IPV4 = "*"
ANY_IPV6 = "::"


@dataclass(frozen=True, slots=True)
class Listening:
    """How frontends listen.

    ``ipv6``: those without an address of their own on IPv6 too. ``http3``: those for HTTPS take HTTP/3 too.
    ``proxies``: the networks whose connections begin with the PROXY protocol, as CIDRs.
    """

    ipv6: bool = False
    http3: bool = False
    proxies: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of a frontend that has none. One for both families would show IPv4 clients in IPv6."""
        return (ANY_IPV4, ANY_IPV6) if self.ipv6 else (ANY_IPV4,)


ANYWHERE = Listening()
"""On IPv4, for clients without proxies."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the Data Plane API keeps files, as absolute directories without a final slash, and how frontends listen."""

    maps: str
    general: str
    listening: Listening = ANYWHERE

    def table(self, table: Table) -> str:
        """Give the path of a table's file, by which the program names it."""
        return f"{self.maps}/{table}"

    def crt_list(self, name: str) -> str:
        """Give the path of a crt-list, by which HAProxy knows it."""
        return f"{self.general}/{name}"


def lua_text(layout: Layout) -> str:
    """Give the Lua part of the program, bound to the tables' files."""
    bound = {
        "SERVICES": layout.table(Table.SERVICES),
        "GROUPS": layout.table(Table.GROUPS),
        "PATHS_PREFIX": layout.table(Table.PATHS_PREFIX),
        "SNI": layout.table(Table.SNI),
        "INNER_SIGN": INNER_SIGN,
        "TO_INNER": to_inner_name("", ""),
        "SOCKETS_VARIABLE": VARIABLE,
        "SOCKETS": BEGINNING,
        "LOOP": socket_name(layout.maps),
        "LOOP_HEADER": loop.HEADER,
        "STATUS_HEADER": loop.STATUS,
        "AGAIN": str(loop.AGAIN),
        # The loop answers in time by itself: before that its silence means nothing.
        "COPY_SECONDS": str(2 * loop.COPY_MILLISECONDS // _SECOND),
    }
    text = _LUA
    for name, value in bound.items():
        text = text.replace(f"@{name}@", value)
    return text


def lua_name(layout: Layout) -> str:
    """Name the Lua file by its content, so that another version of gwctl never overwrites what is loaded."""
    return f"gwctl-{content_id(lua_text(layout))}.lua"


def is_lua(name: str) -> bool:
    """Tell whether a file is the Lua part of some version of gwctl."""
    return name.startswith(f"{PREFIX}-") and name.endswith(".lua")


def program_sections(layout: Layout) -> dict[SectionKey, Section]:
    """Give the named defaults and the sections of the loop, by their keys."""
    services = layout.table(Table.SERVICES)
    sections = {
        SectionKind.DEFAULTS: (
            _http(layout),
            _http(layout, tls=True),
            _connections(DEFAULTS_TCP, [*_expect_proxies(layout), *route_tcp(layout.table(Table.TCP), services)]),
            _connections(DEFAULTS_SNI, _expect_proxies(layout)),
            _connections(DEFAULTS_TLS, route_terminated(services)),
            _http_slot(),
            _tcp_slot(),
            _loop_defaults(),
        ),
        SectionKind.BACKENDS: (_retry(layout), *_counters()),
        SectionKind.FRONTENDS: (_loop(layout),),
    }
    return {SectionKey(kind, section["name"]): section for kind, of in sections.items() for section in of}


def frontend_sections(frontend: Frontend, layout: Layout) -> Iterator[tuple[SectionKey, Section]]:
    """Give the sections of one port of a Gateway, bound to its real port; the frontend itself comes first."""
    name = frontend_name(*frontend.key)
    return _frontend(
        name,
        frontend.mode,
        frontend.addresses or layout.listening.addresses,
        frontend.port,
        layout,
        frontend.falls_back,
    )


def stands_in(before: Section, wanted: Section) -> bool:
    """Tell whether a section of before may serve on where HAProxy does not take the one that is wanted.

    It must do the same, and must not let in clients that the other one refuses.
    """
    return before.get("from") == wanted["from"] and (_ignores_errors(wanted) or not _ignores_errors(before))


def _ignores_errors(section: Section) -> bool:
    binds = (section.get("binds") or {}).values()
    return any(setting in bind for setting in _ANY_CERTIFICATE for bind in binds)


def listener_slot_sections(
    mode: Mode, port: int, layout: Layout, *, falls_back: bool = False
) -> Iterator[tuple[SectionKey, Section]]:
    """Give a listener slot: frontends that serve nothing until rows name them.

    ``falls_back``: clients are let in whatever certificate they show, which HAProxy decides for a bind and not by data.
    """
    return _frontend(listener_slot_name(port), mode, layout.listening.addresses, port, layout, falls_back)


_DEFAULTS: dict[Mode, str] = {
    "http": DEFAULTS_HTTP,
    "https": DEFAULTS_HTTPS,
    "tls": DEFAULTS_SNI,
    "tcp": DEFAULTS_TCP,
}
_INNER_DEFAULTS: dict[Inner, str] = {"https": DEFAULTS_HTTPS, "tls": DEFAULTS_TLS}


def _frontend(
    name: str, mode: Mode, addresses: tuple[str, ...], port: int, layout: Layout, falls_back: bool
) -> Iterator[tuple[SectionKey, Section]]:
    clients = _ANY_CERTIFICATE if falls_back else {}
    binds = [_at(address, port) for address in addresses]
    if mode == "https":
        binds = [{**bind, **_tls(name, layout, _HTTP_ALPN)} for bind in binds]
        binds = [{**bind, **clients} for bind in (*binds, *_quic(name, addresses, port, layout))]
    look = route_handshakes(layout.table(Table.SERVICES)) if mode == "tls" else ()
    yield _bound(name, _DEFAULTS[mode], binds, look)
    if mode != "tls":
        return
    for inner in INNERS:
        to = inner_name(name, inner)
        socket = socket_address(layout.maps, to)
        backend = hand_over(name, inner, socket)
        yield SectionKey(SectionKind.BACKENDS, backend["name"]), backend
        binds = [{"address": socket, "accept_proxy": True, **_tls(to, layout, _HTTP_ALPN if inner == "https" else "")}]
        if inner == "https":
            # No frontend looks at handshakes of QUIC first: names that others terminate are refused there.
            binds = [{**bind, **clients} for bind in (*binds, *_quic(to, addresses, port, layout))]
        yield _bound(to, _INNER_DEFAULTS[inner], binds)


def _at(address: str, port: int) -> dict[str, Any]:
    return {"address": address, "port": port, **({"v6only": True} if address == ANY_IPV6 else {})}


def _quic(frontend: str, addresses: Iterable[str], port: int, layout: Layout) -> Iterator[dict[str, Any]]:
    """Yield the binds for HTTP/3 of a frontend that terminates TLS for HTTP."""
    for index, address in enumerate(addresses if layout.listening.http3 else ()):
        family = 6 if ":" in address else 4
        at = {**_at(address, port), "name": f"{_QUIC}-{index}", "address": f"quic{family}@{address}"}
        yield {**at, **_tls(frontend, layout, "h3")}


def _bound(
    name: str, defaults: str, binds: list[dict[str, Any]], rules: Iterable[dict[str, Any]] = ()
) -> tuple[SectionKey, Section]:
    named = [{"name": f"bind-{index}", **bind} for index, bind in enumerate(binds)]
    section: dict[str, Any] = {
        "name": name,
        "mode": "http" if defaults in (DEFAULTS_HTTP, DEFAULTS_HTTPS) else "tcp",
        "from": defaults,
        "binds": {bind["name"]: bind for bind in named},
        **_connection_rules(rules),
        "backend_switching_rule_list": [{"name": "%[var(txn.backend)]"}],
    }
    return SectionKey(SectionKind.FRONTENDS, name), section


def _tls(frontend: str, layout: Layout, alpn: str) -> dict[str, Any]:
    """The TLS of a bind: what certificates it has is data."""
    return {
        "ssl": True,
        "crt_list": layout.crt_list(crt_list_name(frontend)),
        **({"alpn": alpn} if alpn else {}),
        "ssl_min_ver": "TLSv1.2",
        "ciphers": _CIPHERS,
        "ciphersuites": _CIPHERSUITES,
    }


def needs_certificates(section: Section | None) -> bool:
    """Tell whether a section has a crt-list."""
    binds = (section or {}).get("binds") or {}
    return any("crt_list" in bind for bind in binds.values())


def crt_list_text(entries: Iterable[CrtEntry], layout: Layout) -> str:
    """Write a crt-list as a file.

    HAProxy serves the first certificate of a file to names that no entry has, and starts with none without it. So each
    list begins with one that can do neither: its key and what it may sign do not fit, so the handshake is refused.
    """
    lines = [CrtEntry(PLACEHOLDER, (PLACEHOLDER_HOST,)), *sorted(entries)]
    return "".join(f"{f'{layout.general}/' if line.certificate == PLACEHOLDER else ''}{line}\n" for line in lines)


def slot_section(name: str, mode: str) -> tuple[SectionKey, Section]:
    """Give an empty backend slot."""
    defaults = DEFAULTS_HTTP_SLOT if mode == "http" else DEFAULTS_TCP_SLOT
    section: dict[str, Any] = {"name": name, "mode": mode, "from": defaults}
    if mode == "http":
        section["http_request_rule_list"] = list(loop.try_once())
        section["server_switching_rule_list"] = list(use_server())
    return SectionKey(SectionKind.BACKENDS, name), section


def _http(layout: Layout, *, tls: bool = False) -> Section:
    """Give the program of HTTP; with TLS it also refuses requests that belong to another listener."""
    return {
        "name": DEFAULTS_HTTPS if tls else DEFAULTS_HTTP,
        "mode": "http",
        "client_timeout": _MINUTE,
        "http_request_timeout": 30 * _SECOND,
        "http_keep_alive_timeout": _MINUTE,
        "client_fin_timeout": 10 * _SECOND,
        **_keepalive("cli"),
        "dontlognull": "enabled",
        "idle_close_on_response": "enabled",
        "log_format": _LOG_FORMAT,
        "log_target_list": [{"global": True}],
        "http_error_rule_list": list(grpc.error_bodies()),
        **_connection_rules([*_expect_proxies(layout), *(_find_listener(layout) if tls else ())]),
        "http_request_rule_list": [
            *(_note_port() if tls and layout.listening.http3 else ()),
            *grpc.recognize(),
            loop.forget(),
            *find_row(layout.table(Table.HOSTS), "req.hdr(host),host_only,lower,rtrim(.)", "vhost"),
            answer(404, f"!{found('vhost')}"),
            *(_refuse_misdirected() if tls else ()),
            *_find_entry(layout),
            *_find_backend(layout),
            *filter_request(layout.table),
        ],
        "http_response_rule_list": [*grpc.note_answers(), *keep_session(), *expose_headers()],
        "http_after_response_rule_list": [
            *(_offer_http3() if tls and layout.listening.http3 else ()),
            *change_response(),
        ],
    }


def _note_port() -> Iterator[dict[str, Any]]:
    """Note the port by which the client has reached us, which is the one for HTTP/3 too."""
    yield set_variable("port", "str(443)")
    yield set_variable("port", "req.hdr(host),port_only", "{ req.hdr(host),port_only -m int gt 0 }")


def _offer_http3() -> Iterator[dict[str, Any]]:
    """Offer HTTP/3 in every answer, for a day (RFC 7838, section 3.1)."""
    yield set_header("alt-svc", r"h3=\":%[var(txn.port)]\"", found("port"))


_QUIC = "quic"
_NETWORKS_AT_ONCE = 50
"""HAProxy takes 64 words on a line."""


def _expect_proxies(layout: Layout) -> Iterator[dict[str, Any]]:
    """What a load balancer sends first says whose connection it is (HAProxy's doc/proxy-protocol.txt).

    Not with HTTP/3, of which that is not known; HAProxy 3.4.7 dies of it.
    """
    proxies = layout.listening.proxies
    for first in range(0, len(proxies), _NETWORKS_AT_ONCE):
        source = f"{{ src {' '.join(proxies[first : first + _NETWORKS_AT_ONCE])} }} !{{ so_name -m beg {_QUIC} }}"
        yield when({"type": "connection", "action": "expect-proxy"}, source)


def _keepalive(side: str) -> dict[str, Any]:
    """Notice within 90 s that a silent peer is gone: streams and WebSockets may rightly be silent for an hour."""
    timing = {"idle": _MINUTE, "intvl": 10 * _SECOND, "cnt": 3}
    return {f"{side}tcpka": "enabled", **{f"{side}tcpka_{name}": value for name, value in timing.items()}}


def _find_listener(layout: Layout) -> Iterator[dict[str, Any]]:
    """By the name in the handshake, once for each connection, as hosts are found: an id begins with the listener's."""
    rules = [
        *find_row(layout.table(Table.HOSTS), "ssl_fc_sni,lower", "vhost", scope="sess"),
        set_variable("listener", f"var(sess.vhost),{_LISTENER}", "", "sess"),
    ]
    return as_session(rules)


_LISTENER = "field(1,/,3)"


def _refuse_misdirected() -> Iterator[dict[str, Any]]:
    """A request whose host is another listener's is 421 (Listener.hostname; RFC 9110, section 15.5.20)."""
    yield answer(421, f"!{{ var(txn.vhost),{_LISTENER},strcmp(sess.listener) eq 0 }}")
    yield {"type": "set-header", "hdr_name": "x-forwarded-proto", "hdr_format": "https"}


def _find_entry(layout: Layout) -> Iterator[dict[str, Any]]:
    """By exact path, then by regular expressions, then by the longest prefix; Lua picks from a group."""
    pick = when({"type": "lua", "lua_action": "gwctl_match"}, "{ var(txn.entry) -m beg ~ }")
    missing = f"!{found('entry')}"
    yield set_variable("path", f"path,bytes(0,{PATH_BYTES}),url_enc")
    yield set_variable("key", "var(txn.vhost),concat(,txn.path)", found("path"))
    yield set_variable("entry", f"var(txn.key),map_str({layout.table(Table.PATHS_EXACT)})")
    yield pick
    yield set_variable("entry", f"var(txn.vhost),map_str({layout.table(Table.PATHS_REGEX)})", missing)
    yield pick
    prefix = f"var(txn.key),concat({SLASH}),map_beg({layout.table(Table.PATHS_PREFIX)})"
    yield set_variable("entry", prefix, missing)
    yield pick
    yield answer(404, missing)
    yield set_variable("rule", "var(txn.entry),field(2,|)")


def _find_backend(layout: Layout) -> Iterator[dict[str, Any]]:
    """By weight where there are several. A request without filters, as most are, is done here."""
    yield set_variable("filters", "var(txn.entry),field(3,|)")
    yield set_variable("target", "var(txn.entry),field(1,|)")
    yield when({"type": "lua", "lua_action": "gwctl_pick"}, "{ var(txn.target) -m beg * }")
    yield set_variable("backend_service", "var(txn.target)")
    yield set_variable("backend", f"var(txn.target),map_str({layout.table(Table.SERVICES)})")
    plain = f"!{found('filters')}"
    yield answer(500, f"{plain} {IS_ERROR}")
    yield when({"type": "allow"}, plain)


def _connections(name: str, rules: Iterable[dict[str, Any]]) -> Section:
    return {
        "name": name,
        "mode": "tcp",
        "client_timeout": 60 * _MINUTE,
        "client_fin_timeout": 10 * _SECOND,
        "dontlognull": "enabled",
        "log_format": _TCP_LOG_FORMAT,
        "log_target_list": [{"global": True}],
        **_connection_rules(rules),
    }


def _connection_rules(rules: Iterable[dict[str, Any]]) -> Section:
    listed = list(rules)
    return {"tcp_request_rule_list": listed} if listed else {}


def _slot(name: str, mode: str, **settings: Any) -> Section:
    return {
        "name": name,
        "mode": mode,
        "balance": {"algorithm": "roundrobin"},
        "connect_timeout": CONNECT_TIMEOUT,
        "queue_timeout": 10 * _SECOND,
        "retries": 3,
        "redispatch": {"enabled": "enabled", "interval": 1},
        **settings,
    }


def _http_slot() -> Section:
    return _slot(
        DEFAULTS_HTTP_SLOT,
        "http",
        server_timeout=_MINUTE,
        tunnel_timeout=60 * _MINUTE,
        **_keepalive("srv"),
        forwardfor={"enabled": "enabled"},
        http_request_rule_list=[grpc.set_timeout("server"), *set_timeouts()],
    )


def _loop_defaults() -> Section:
    return {
        "name": DEFAULTS_LOOP,
        "mode": "http",
        "client_timeout": _MINUTE,
        "connect_timeout": CONNECT_TIMEOUT,
        "server_timeout": NO_LIMIT,
        "tunnel_timeout": 60 * _MINUTE,
        "http_error_rule_list": list(grpc.error_bodies()),
    }


def _loop(layout: Layout) -> Section:
    requests = loop.leave(layout.table(Table.SERVICES), layout.table(Table.FILTERS))
    return {
        "name": LOOP,
        "mode": "http",
        "from": DEFAULTS_LOOP,
        "binds": {LOOP: {"name": LOOP, "address": socket_address(layout.maps)}},
        "http_request_rule_list": [*requests, *change_copy(layout.table)],
        "http_response_rule_list": list(loop.judge()),
        "http_after_response_rule_list": list(loop.judge_errors()),
        "backend_switching_rule_list": [{"name": "%[var(txn.backend)]"}],
    }


def _retry(layout: Layout) -> Section:
    return {
        "name": RETRY,
        "mode": "http",
        "from": DEFAULTS_LOOP,
        "forwardfor": {"enabled": "enabled"},
        # Requests of one client share connections, those of different clients never: what a client does not read would
        # hold up all that come over the same connection.
        "http_reuse": "safe",
        "retry_on": f"conn-failure {loop.AGAIN}",
        "http_request_rule_list": list(loop.carry_on()),
        "http_response_rule_list": list(loop.give_status_back()),
        "servers": {LOOP: {"name": LOOP, "address": socket_address(layout.maps), "proto": "h2"}},
    }


def _counters() -> Iterator[Section]:
    """Tables of counters, each in a section that has nothing else. What is not used for long is forgotten."""
    tables = {
        ATTEMPTS: {"keylen": 36, "size": 100_000, "expire": 2 * _MINUTE},
        LOST_COPIES: {"keylen": 3, "size": 10, "expire": NO_LIMIT},
    }
    for name, table in tables.items():
        stick_table = {"type": "string", "store": "gpc0", **table}
        yield {"name": name, "mode": "http", "from": DEFAULTS_LOOP, "stick_table": stick_table}


def _tcp_slot() -> Section:
    return _slot(DEFAULTS_TCP_SLOT, "tcp", server_timeout=60 * _MINUTE)
