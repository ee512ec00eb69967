"""The routing program: the fixed configuration that reads the tables, as the Data Plane API's JSON.

It lives in named ``defaults`` sections that every frontend and slot inherits, so that those are a few lines each. It
never changes while gwctl of one version runs; all that changes is rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from gwctl.graph.validate import WILDCARD_LEVELS
from gwctl.haproxy import grpc
from gwctl.haproxy.encoding import SLASH, content_id, encode_header_names
from gwctl.haproxy.names import (
    DEFAULTS_HTTP,
    DEFAULTS_HTTP_SLOT,
    DEFAULTS_HTTPS,
    DEFAULTS_TCP,
    DEFAULTS_TCP_SLOT,
    PLACEHOLDER,
    PREFIX,
    Table,
    crt_list_name,
    frontend_name,
    listener_slot_name,
)
from gwctl.haproxy.state import CrtEntry, Section, SectionKey, SectionKind
from gwctl.haproxy.table import CONNECT_TIMEOUT
from gwctl.routing.effect import CORS_HEADERS
from gwctl.routing.virtualhost import Frontend, Mode

PATH_BYTES = 1_100
"""How much of a request's path is looked up: a rule's has at most 1,024, and HAProxy cannot encode long ones."""

_CIPHERS = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
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


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the Data Plane API keeps files, as absolute directories without a final slash."""

    maps: str
    general: str

    def table(self, table: Table) -> str:
        """Give the path of a table's file, by which the program names it."""
        return f"{self.maps}/{table}"

    def crt_list(self, name: str) -> str:
        """Give the path of a crt-list, by which HAProxy knows it."""
        return f"{self.general}/{name}"


def lua_text(layout: Layout) -> str:
    """Give the Lua part of the program, bound to the tables' files."""
    return _LUA.replace("@GROUPS@", layout.table(Table.GROUPS)).replace(
        "@PATHS_PREFIX@", layout.table(Table.PATHS_PREFIX)
    )


def lua_name(layout: Layout) -> str:
    """Name the Lua file by its content, so that another version of gwctl never overwrites what is loaded."""
    return f"gwctl-{content_id(lua_text(layout))}.lua"


def is_lua(name: str) -> bool:
    """Tell whether a file is the Lua part of some version of gwctl."""
    return name.startswith(f"{PREFIX}-") and name.endswith(".lua")


def program_sections(layout: Layout) -> dict[SectionKey, Section]:
    """Give the named defaults, by their keys."""
    sections = (_http(layout), _http(layout, tls=True), _tcp(layout), _http_slot(), _tcp_slot())
    return {SectionKey(SectionKind.DEFAULTS, section["name"]): section for section in sections}


def frontend_section(frontend: Frontend, layout: Layout) -> tuple[SectionKey, Section]:
    """Give the frontend of one port of a Gateway, bound to its real port."""
    name = frontend_name(*frontend.key)
    return _frontend(name, frontend.mode, frontend.addresses or ("*",), frontend.port, layout)


def listener_slot_section(mode: Mode, port: int, layout: Layout) -> tuple[SectionKey, Section]:
    """Give a listener slot: a frontend that serves nothing until rows name it."""
    return _frontend(listener_slot_name(port), mode, ("*",), port, layout)


_DEFAULTS: dict[Mode, str] = {"http": DEFAULTS_HTTP, "https": DEFAULTS_HTTPS, "tcp": DEFAULTS_TCP}


def _frontend(
    name: str, mode: Mode, addresses: tuple[str, ...], port: int, layout: Layout
) -> tuple[SectionKey, Section]:
    more = _tls(name, layout, "h2,http/1.1") if mode == "https" else {}
    section: dict[str, Any] = {
        "name": name,
        "mode": "tcp" if mode == "tcp" else "http",
        "from": _DEFAULTS[mode],
        "binds": {
            f"bind-{index}": {"name": f"bind-{index}", "address": address, "port": port, **more}
            for index, address in enumerate(addresses)
        },
        "backend_switching_rule_list": [{"name": "%[var(txn.backend)]"}],
    }
    return SectionKey(SectionKind.FRONTENDS, name), section


def _tls(frontend: str, layout: Layout, alpn: str) -> dict[str, Any]:
    """The TLS of a bind: what certificates it has is data."""
    return {
        "ssl": True,
        "crt_list": layout.crt_list(crt_list_name(frontend)),
        "alpn": alpn,
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
    lines = [f"{layout.general}/{PLACEHOLDER} [sigalgs ECDSA+SHA256] {PLACEHOLDER_HOST}"]
    lines += [" ".join((entry.certificate, *entry.filters)) for entry in sorted(entries)]
    return "".join(f"{line}\n" for line in lines)


PLACEHOLDER_HOST = "gwctl.invalid"
"""The name of the certificate that is never served (RFC 6761, section 6.4)."""


def slot_section(name: str, mode: str) -> tuple[SectionKey, Section]:
    """Give an empty backend slot."""
    defaults = DEFAULTS_HTTP_SLOT if mode == "http" else DEFAULTS_TCP_SLOT
    return SectionKey(SectionKind.BACKENDS, name), {"name": name, "mode": mode, "from": defaults}


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
        **({"tcp_request_rule_list": list(_find_listener(layout))} if tls else {}),
        "http_request_rule_list": [
            *grpc.recognize(),
            *_find_host(layout, "txn", "req.hdr(host),host_only,lower,rtrim(.)"),
            _return(404, f"!{_found('vhost')}"),
            *(_refuse_misdirected() if tls else ()),
            *_find_entry(layout),
            *_find_backend(layout),
            *_filter_request(layout),
        ],
        "http_response_rule_list": [*grpc.note_answers(), *_expose_headers()],
        "http_after_response_rule_list": list(_change_response()),
    }


def _keepalive(side: str) -> dict[str, Any]:
    """Notice within 90 s that a silent peer is gone: streams and WebSockets may rightly be silent for an hour."""
    timing = {"idle": _MINUTE, "intvl": 10 * _SECOND, "cnt": 3}
    return {f"{side}tcpka": "enabled", **{f"{side}tcpka_{name}": value for name, value in timing.items()}}


def _found(variable: str, scope: str = "txn") -> str:
    return f"{{ var({scope}.{variable}) -m found }}"


def _set(variable: str, expression: str, condition: str = "", scope: str = "txn") -> dict[str, Any]:
    rule = {"type": "set-var", "var_scope": scope, "var_name": variable, "var_expr": expression}
    return _if(rule, condition)


def _if(rule: dict[str, Any], condition: str) -> dict[str, Any]:
    return {**rule, "cond": "if", "cond_test": condition} if condition else rule


def _return(status: int, condition: str) -> dict[str, Any]:
    return _if({"type": "return", "return_status_code": status}, condition)


def _find_host(layout: Layout, scope: str, name: str) -> Iterator[dict[str, Any]]:
    """By exact name, then by ever shorter ``*.suffix``, then ``*``."""

    def set_var(variable: str, expression: str, condition: str = "") -> dict[str, Any]:
        return _set(variable, expression, condition, scope)

    hosts = f"map_str({layout.table(Table.HOSTS)})"
    missing = f"!{_found('vhost', scope)}"
    yield set_var("host", name)
    yield set_var("vhost", f"fe_name,concat(/,{scope}.host),{hosts}")
    yield set_var("parent", f"var({scope}.host),field(2,.,0)", missing)
    for labels in range(WILDCARD_LEVELS, 0, -1):
        deeper = f"{missing} {{ var({scope}.parent) -m len gt 0 }}"
        yield set_var("suffix", f"var({scope}.parent),field(-1,.,{labels})", deeper)
        yield set_var("vhost", f"fe_name,concat(/_.,{scope}.suffix),{hosts}", deeper)
    yield set_var("vhost", f"fe_name,concat(/_),{hosts}", missing)


def _find_listener(layout: Layout) -> Iterator[dict[str, Any]]:
    """By the name in the handshake, once for each connection, as hosts are found: an id begins with the listener's."""
    rules = [
        *_find_host(layout, "sess", "ssl_fc_sni,lower"),
        _set("listener", f"var(sess.vhost),{_LISTENER}", "", "sess"),
    ]
    for rule in rules:
        more = {key: value for key, value in rule.items() if key not in ("type", "var_expr")}
        yield {"type": "session", "action": rule["type"], "expr": rule["var_expr"], **more}


_LISTENER = "field(1,/,3)"


def _refuse_misdirected() -> Iterator[dict[str, Any]]:
    """A request whose host is another listener's is 421 (Listener.hostname; RFC 9110, section 15.5.20)."""
    yield _return(421, f"!{{ var(txn.vhost),{_LISTENER},strcmp(sess.listener) eq 0 }}")
    yield {"type": "set-header", "hdr_name": "x-forwarded-proto", "hdr_format": "https"}


def _find_entry(layout: Layout) -> Iterator[dict[str, Any]]:
    """By exact path, then by regular expressions, then by the longest prefix; Lua picks from a group."""
    pick = _if({"type": "lua", "lua_action": "gwctl_match"}, "{ var(txn.entry) -m beg ~ }")
    missing = f"!{_found('entry')}"
    yield _set("path", f"path,bytes(0,{PATH_BYTES}),url_enc")
    yield _set("key", "var(txn.vhost),concat(,txn.path)", _found("path"))
    yield _set("entry", f"var(txn.key),map_str({layout.table(Table.PATHS_EXACT)})")
    yield pick
    yield _set("entry", f"var(txn.vhost),map_str({layout.table(Table.PATHS_REGEX)})", missing)
    yield pick
    prefix = f"var(txn.key),concat({SLASH}),map_beg({layout.table(Table.PATHS_PREFIX)})"
    yield _set("entry", prefix, missing)
    yield pick
    yield _return(404, missing)
    yield _set("rule", "var(txn.entry),field(2,|)")


def _find_backend(layout: Layout) -> Iterator[dict[str, Any]]:
    """By weight where there are several. A request without filters, as most are, is done here."""
    yield _set("filters", "var(txn.entry),field(3,|)")
    yield _set("target", "var(txn.entry),field(1,|)")
    yield _if({"type": "lua", "lua_action": "gwctl_pick"}, "{ var(txn.target) -m beg * }")
    yield _set("backend_service", "var(txn.target)")
    yield _set("backend", f"var(txn.target),map_str({layout.table(Table.SERVICES)})")
    plain = f"!{_found('filters')}"
    yield _return(500, f"{plain} {_IS_ERROR}")
    yield _if({"type": "allow"}, plain)


_IS_ERROR = "{ var(txn.target) -m str ! }"


def _filter_request(layout: Layout) -> Iterator[dict[str, Any]]:
    """Do what the row in ``filters`` says: see ``_compile_filters`` in ``table.py``."""
    yield _set("filters", f"var(txn.filters),map_str({layout.table(Table.FILTERS)})")
    yield _set("response_headers", f"var(txn.filters),field(2,|),map_str({layout.table(Table.RESPONSE_HEADERS)})")
    yield _set("location", f"var(txn.filters),field(3,|),map_str({layout.table(Table.LOCATIONS)})")
    yield from _answer_preflight(layout)
    yield from _find_path()
    yield from _redirect()
    yield _return(500, _IS_ERROR)
    yield _set("headers", f"var(txn.filters),field(1,|),map_str({layout.table(Table.REQUEST_HEADERS)})")
    yield from _change_headers("headers")
    yield from _rewrite()
    yield _set("timeouts", "var(txn.filters),field(4,|)", "{ var(txn.filters),field(4,|) -m len gt 0 }")


def _answer_preflight(layout: Layout) -> Iterator[dict[str, Any]]:
    """Let Lua compare the origin, where there is one; what it says goes into the response."""
    yield _set("cors", f"var(txn.filters),field(5,|),map_str({layout.table(Table.CORS)})")
    yield _set("origin", "req.hdr(origin)", _found("cors"))
    yield _if({"type": "lua", "lua_action": "gwctl_cors"}, _found("origin"))
    yield _return(204, _found("preflight"))


def _expose_headers() -> Iterator[dict[str, Any]]:
    """Name the headers of a response where a policy exposes all and may not say so: see ``gwctl_expose``."""
    yield _if({"type": "lua", "lua_action": "gwctl_expose"}, _found("expose"))


def _answer_cors() -> Iterator[dict[str, Any]]:
    """The policy alone says what a browser may do: what a backend says of it is taken out."""
    names = encode_header_names(sorted(CORS_HEADERS))
    yield _if({"type": "del-headers-bin", "hdr_expr": f"str({names}),ub64dec"}, _found("origin"))
    yield _if({"type": "set-headers-bin", "hdr_expr": "var(txn.cors_headers)"}, _found("cors_headers"))
    exposed = {"type": "set-header", "hdr_name": "access-control-expose-headers", "hdr_format": "%[var(txn.exposed)]"}
    yield _if(exposed, "{ var(txn.exposed) -m len gt 0 }")
    for_anyone = "{ var(txn.cors) -m beg *|0| }"
    vary = {"type": "add-header", "hdr_name": "vary", "hdr_format": "Origin"}
    yield _if(vary, f"{_found('cors')} !{for_anyone}")


def _change_response() -> Iterator[dict[str, Any]]:
    """Change responses, those that HAProxy itself gives included."""
    unfiltered = f"!{_found('filters')}"
    yield _if({"type": "allow"}, f"{unfiltered} !{grpc.IS_GRPC}")
    yield from grpc.answer_errors()
    yield _if({"type": "allow"}, unfiltered)
    # Waiting for a connection, which HAProxy answers 503, is a part of the time that a rule allows.
    late = {"type": "set-status", "status": 504, "cond": "if"}
    yield {**late, "cond_test": f"{_found('timeouts')} {{ txn.sess_term_state sC }}"}
    yield from _answer_cors()
    yield from _change_headers("response_headers")


def _change_headers(variable: str) -> Iterator[dict[str, Any]]:
    for number, action in enumerate(("del-headers-bin", "set-headers-bin", "add-headers-bin"), 1):
        field = f"var(txn.{variable}),field({number},|)"
        yield _if({"type": action, "hdr_expr": f"{field},ub64dec"}, f"{{ {field} -m len gt 0 }}")


_LOCATION_STATUS = "{ var(txn.location),field(6,|) -m found }"


def _find_path() -> Iterator[dict[str, Any]]:
    """Find the path of a redirect or a rewrite: see ``_location_row`` in ``table.py``."""
    cut = "{ var(txn.location),field(1,|) -m str prefix }"
    yield _set("to_path", "var(txn.location),field(2,|),url_dec", "{ var(txn.location),field(1,|) -m len gt 0 }")
    yield _set("cut", "var(txn.location),field(4,|)", cut)
    yield _set("rest", "path,bytes(txn.cut)", cut)
    before = "var(txn.location),field(3,|),url_dec,concat(,txn.rest)"
    yield _set("to_path", before, f"{cut} {{ var(txn.rest) -m len gt 0 }}")


def _redirect() -> Iterator[dict[str, Any]]:
    yield _set("to_path", "path", f"{_LOCATION_STATUS} !{_found('to_path')}")
    yield _set("to_host", "req.hdr(host),host_only", _LOCATION_STATUS)
    yield _set("to_host", "var(txn.location),field(5,|)", f"{_LOCATION_STATUS} {_LOCATION_HOST}")
    location = (
        "%[var(txn.location),field(7,|)]://%[var(txn.to_host)]%[var(txn.location),field(8,|)]"
        "%[var(txn.to_path)]%[query(with_qm)]"
    )
    for status in (301, 302, 303, 307, 308):
        rule = {"type": "redirect", "redir_type": "location", "redir_value": location, "redir_code": status}
        yield _if(rule, f"{{ var(txn.location),field(6,|) -m str {status} }}")


_LOCATION_HOST = "{ var(txn.location),field(5,|) -m len gt 0 }"


def _rewrite() -> Iterator[dict[str, Any]]:
    yield _if({"type": "set-path", "path_fmt": "%[var(txn.to_path)]"}, _found("to_path"))
    host = {"type": "set-header", "hdr_name": "host", "hdr_format": "%[var(txn.location),field(5,|)]"}
    yield _if(host, _LOCATION_HOST)


def _tcp(layout: Layout) -> Section:
    rules = f"fe_name,map_str({layout.table(Table.TCP)})"

    def content(rule: dict[str, Any], condition: str = "") -> dict[str, Any]:
        return _if({"type": "content", **rule}, condition)

    def set_var(variable: str, expression: str) -> dict[str, Any]:
        return content({"action": "set-var", "var_scope": "txn", "var_name": variable, "expr": expression})

    return {
        "name": DEFAULTS_TCP,
        "mode": "tcp",
        "client_timeout": 60 * _MINUTE,
        "client_fin_timeout": 10 * _SECOND,
        "dontlognull": "enabled",
        "log_format": _TCP_LOG_FORMAT,
        "log_target_list": [{"global": True}],
        "tcp_request_rule_list": [
            _if({"type": "connection", "action": "reject"}, f"!{{ {rules} -m found }}"),
            set_var("entry", rules),
            set_var("rule", "var(txn.entry),field(2,|)"),
            set_var("target", "var(txn.entry),field(1,|)"),
            content({"action": "lua", "lua_action": "gwctl_pick"}, "{ var(txn.target) -m beg * }"),
            content({"action": "reject"}, "{ var(txn.target) -m str ! }"),
            set_var("backend_service", "var(txn.target)"),
            set_var("backend", f"var(txn.target),map_str({layout.table(Table.SERVICES)})"),
        ],
    }


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
        http_request_rule_list=[grpc.set_timeout("server"), *_set_timeouts()],
    )


def _set_timeouts() -> Iterator[dict[str, Any]]:
    """Set a rule's timeouts, which only a backend may do; see ``_timeouts_field`` in ``table.py``."""
    yield _if({"type": "allow"}, f"!{_found('filters')}")
    for kind, number in (("server", 1), ("connect", 2)):
        field = f"var(txn.timeouts),field({number},:)"
        yield _if({"type": "set-timeout", "timeout_type": kind, "timeout": field}, f"{{ {field} -m found }}")


def _tcp_slot() -> Section:
    return _slot(DEFAULTS_TCP_SLOT, "tcp", server_timeout=60 * _MINUTE)
