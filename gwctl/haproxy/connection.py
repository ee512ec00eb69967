"""The part of the routing program that decides once for each connection: TCP, and TLS by the name in the handshake.

A frontend that looks at handshakes (SNI) leads a connection to a Service as it is, or hands it to an *inner* frontend
of its own that terminates TLS: for HTTP, or for plain connections. The surprising fact: HAProxy forgets the rules of
``defaults`` after one that waits for data, so the rules that wait are written into each frontend.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from gwctl.haproxy.action import Rule, found, when
from gwctl.haproxy.names import DEFAULTS_TCP_SLOT, to_inner_name
from gwctl.haproxy.state import Section
from gwctl.routing.virtualhost import Inner

INNERS: tuple[Inner, ...] = get_args(Inner)

HELLO_TIMEOUT = 5_000
"""How long a client may take for the first message of its handshake, in milliseconds."""


def hand_over(frontend: str, inner: str, socket: str) -> Section:
    """Give the backend that leads to an inner frontend, which listens on ``socket``, and says who the client is."""
    server = {"name": inner, "address": socket, "send-proxy-v2": "enabled"}
    name = to_inner_name(frontend, inner)
    return {"name": name, "mode": "tcp", "from": DEFAULTS_TCP_SLOT, "servers": {inner: server}}


def route_tcp(table: str, services: str) -> Iterator[Rule]:
    """Rules that lead all connections of a frontend one way."""
    row = f"fe_name,map_str({table})"
    yield when({"type": "connection", "action": "reject"}, f"!{{ {row} -m found }}")
    yield _set("entry", row)
    yield from _lead_to_service(services)


def route_handshakes(services: str) -> Iterator[Rule]:
    """Rules that read the name in a handshake, and lead the connection to a Service or to an inner frontend."""
    yield {"type": "inspect-delay", "timeout": HELLO_TIMEOUT}
    yield _content("reject", "!{ req.ssl_hello_type 1 }")
    # The condition is what waits until the whole message has come.
    yield _set("name", "req.ssl_sni,lower,rtrim(.)", "{ req.ssl_sni -m found }")
    yield from _find_row()
    is_inner = found("inner")
    yield {**_content("set-log-level", is_inner), "log_level": "silent"}
    yield _content("accept", is_inner)
    yield from _lead_to_service(services)


def route_terminated(services: str) -> Iterator[Rule]:
    """Rules that lead a connection, whose TLS has been terminated, to a Service by the name in its handshake."""
    yield _set("name", "ssl_fc_sni,lower,rtrim(.)")
    yield from _find_row()
    yield from _lead_to_service(services)


def _find_row() -> Iterator[Rule]:
    """Let Lua find the row of a name in ``sni``."""
    yield {**_content("lua"), "lua_action": "gwctl_name"}
    yield _content("reject", f"!{found('entry')}")


def _lead_to_service(services: str) -> Iterator[Rule]:
    yield _set("rule", "var(txn.entry),field(2,|)")
    yield _set("target", "var(txn.entry),field(1,|)")
    yield {**_content("lua", "{ var(txn.target) -m beg * }"), "lua_action": "gwctl_pick"}
    yield _content("reject", "{ var(txn.target) -m str ! }")
    yield _set("backend_service", "var(txn.target)")
    yield _set("backend", f"var(txn.target),map_str({services})")


def _content(action: str, condition: str = "") -> Rule:
    return when({"type": "content", "action": action}, condition)


def _set(variable: str, expression: str, condition: str = "") -> Rule:
    return {**_content("set-var", condition), "var_scope": "txn", "var_name": variable, "expr": expression}
