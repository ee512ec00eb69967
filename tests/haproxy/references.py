"""Checks that every reference in the tables leads somewhere, with a reader of rows of its own."""

from __future__ import annotations

import re

from gwctl.haproxy.lookup import FILTER_FIELDS
from gwctl.haproxy.names import Table
from gwctl.haproxy.state import State


def check_references(state: State) -> None:
    """Assert that no row names a row, a slot or a virtual host that is not there."""
    tables = state.tables
    known = set(tables[Table.HOSTS].values())
    paths = (Table.PATHS_EXACT, Table.PATHS_REGEX, Table.PATHS_PREFIX)
    reached = set()
    for table in paths:
        for key, value in tables[table].items():
            host = key if table is Table.PATHS_REGEX else key.partition("%2F")[0]
            if host in known:
                reached.add(host)
                _check_entry(state, value, f"{table} {key}")
    for key, value in tables[Table.SNI].items():
        if not value.startswith(">"):
            _check_target(state, value.split("|")[0], f"sni {key}")
    for frontend, value in tables[Table.TCP].items():
        _check_target(state, value.split("|")[0], f"tcp {frontend}")
    for key, slot in tables[Table.SERVICES].items():
        assert re.fullmatch(r"gwctl-(http|tcp)-\d+", slot), (key, slot)


def _check_entry(state: State, value: str, where: str) -> None:
    if value.startswith("~"):
        group, _, shorter = value[1:].partition(">")
        assert group in state.tables[Table.GROUPS], f"{where} names group {group}"
        if shorter:
            assert where.startswith(f"{Table.PATHS_PREFIX} {shorter}"), f"{where} hands on to {shorter}"
        for rule in state.tables[Table.GROUPS][group].split("&"):
            _check_entry(state, rule.partition("?")[2], f"group {group}")
        return
    target, rule, *filters = value.split("|")
    assert rule, where
    for name in filters:
        _check_filters(state, name, where)
    _check_target(state, target, where)


def _check_filters(state: State, name: str, where: str) -> None:
    assert name in state.tables[Table.FILTERS], f"{where} names filters {name}"
    for table, key in zip(FILTER_FIELDS, state.tables[Table.FILTERS][name].split("|"), strict=False):
        assert not key or table is None or key in state.tables[table], f"filters {name} name {key} in {table}"
        if key and table is Table.MIRRORS:
            for mirror in state.tables[table][key].split("+"):
                _check_share(state, mirror.partition(":")[2], f"mirrors {key}")
        if key and table is Table.AUTHS:
            for auth in state.tables[table][key].split("+"):
                _check_share(state, auth.partition(":")[0], f"auths {key}")


def _check_target(state: State, target: str, where: str) -> None:
    several = target.rpartition(">")[2].removeprefix("*").split("+") if target.startswith("*") else []
    shares = [part.partition(":")[2] for part in several] or [target]
    for share in shares:
        _check_share(state, share, where)


def _check_share(state: State, share: str, where: str) -> None:
    service, _, filters = share.partition("@")
    assert service in ("!", "-") or service in state.tables[Table.SERVICES], f"{where} names Service {service}"
    if filters:
        _check_filters(state, filters, where)
