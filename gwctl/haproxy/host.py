"""The part of the routing program that finds the row of a host name, in requests and in handshakes.

By the exact name, then by ever shorter ``*.suffix``, then ``*``. A row's key begins with the frontend's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gwctl.graph.validate import WILDCARD_LEVELS
from gwctl.haproxy.action import Rule, found, set_variable


def find_row(table: str, name: str, variable: str, *, scope: str = "txn") -> Iterator[Rule]:
    """Rules that set ``variable`` to the value of the row of a name in the table at a path.

    ``name`` is an expression for the name.
    """

    def set_var(target: str, expression: str, condition: str = "") -> Rule:
        return set_variable(target, expression, condition, scope)

    row = f"map_str({table})"
    missing = f"!{found(variable, scope)}"
    yield set_var("host", name)
    yield set_var(variable, f"fe_name,concat(/,{scope}.host),{row}")
    yield set_var("parent", f"var({scope}.host),field(2,.,0)", missing)
    for labels in range(WILDCARD_LEVELS, 0, -1):
        deeper = f"{missing} {{ var({scope}.parent) -m len gt 0 }}"
        yield set_var("suffix", f"var({scope}.parent),field(-1,.,{labels})", deeper)
        yield set_var(variable, f"fe_name,concat(/_.,{scope}.suffix),{row}", deeper)
    yield set_var(variable, f"fe_name,concat(/_),{row}", missing)


def as_session(rules: Iterable[Rule]) -> Iterator[Rule]:
    """Give rules of requests, which set variables, as rules of sessions: once for each connection."""
    for rule in rules:
        more = {key: value for key, value in rule.items() if key not in ("type", "var_expr")}
        yield {"type": "session", "action": rule["type"], "expr": rule["var_expr"], **more}
