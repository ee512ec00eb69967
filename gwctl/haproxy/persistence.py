"""The part of the routing program that keeps clients at their servers; Lua finds who is whose (``gwctl_pick``)."""

from __future__ import annotations

from collections.abc import Iterator

from gwctl.haproxy.action import Rule, found, lua, when


def use_server() -> Iterator[Rule]:
    """Rules of a slot, which only a backend may have. A server that is gone is no obstacle: then any other is taken."""
    yield when({"target_server": "%[var(txn.server)]"}, found("server"))


def keep_session() -> Iterator[Rule]:
    """Rules of a server's response."""
    yield lua("gwctl_session", found("session"))
