"""Rules of HAProxy, as the Data Plane API's JSON: what the modules that hold parts of the program write them with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Rule = dict[str, Any]


def when(rule: Rule, condition: str) -> Rule:
    """Give a rule that applies where a condition holds; always where it is empty."""
    return {**rule, "cond": "if", "cond_test": condition} if condition else rule


def found(variable: str, scope: str = "txn") -> str:
    """Give the condition that a variable, of the transaction where nothing else is said, has a value."""
    return f"{{ var({scope}.{variable}) -m found }}"


def set_variable(variable: str, expression: str, condition: str = "", scope: str = "txn") -> Rule:
    """Set a variable. Where the expression has no value the variable stays as it is."""
    rule = {"type": "set-var", "var_scope": scope, "var_name": variable, "var_expr": expression}
    return when(rule, condition)


def answer(status: int, condition: str) -> Rule:
    """Answer a request at once."""
    return when({"type": "return", "return_status_code": status}, condition)


def find_slot_again(services: str, condition: str = "") -> Rule:
    """Find the chosen Service's slot after a wait, when it may be another's. A Service that is gone is answered 503."""
    return set_variable("backend", f"var(txn.target),map_str({services},{_NO_SLOT})", condition)


_NO_SLOT = "gwctl-none"
"""No backend has this name."""


def lua(action: str, condition: str) -> Rule:
    """Run an action of ``gwctl.lua``."""
    return when({"type": "lua", "lua_action": action}, condition)


def set_header(name: str, value: str, condition: str = "") -> Rule:
    """Set a header to a formatted value."""
    return when({"type": "set-header", "hdr_name": name, "hdr_format": value}, condition)


_COUNTER = 1
"""The counter of a request that we use: the Data Plane API does not give back the index 0."""

REQUESTS_SO_FAR = f"sc_get_gpc0({_COUNTER})"
"""The count of `count_requests`, this request included."""


def count_requests(table: str, key: str, condition: str) -> Iterator[Rule]:
    """Count a request in a table of counters, under the value of an expression. A request can be counted once."""
    where = {"track_sc_key": key, "track_sc_table": table, "track_sc_stick_counter": _COUNTER}
    yield when({"type": "track-sc", **where}, condition)
    yield when({"type": "sc-inc-gpc0", "sc_id": _COUNTER}, condition)
