"""``gwctl translate``: what manifests become, step by step, by the controller's own code."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from gwctl.cli.manifests import read_pipeline
from gwctl.cli.option import STATE, config_options, manifests_option, output_option, read_config
from gwctl.cli.plain import to_plain, to_text
from gwctl.haproxy.desired import Pools, build_state, is_slot
from gwctl.haproxy.names import slot_mode
from gwctl.haproxy.program import ANYWHERE, Layout, Listening
from gwctl.haproxy.state import State
from gwctl.runtime.pipeline import Pipeline

LAYOUT = Layout("/var/lib/gwctl/maps", "/var/lib/gwctl/general")
"""Where a Data Plane API that nobody asked might keep files."""

NOTHING = State({}, {}, {}, "")
"""A HAProxy that has nothing of gwctl's."""


@click.command(short_help="Print what manifests become, step by step.")
@manifests_option
@output_option("yaml", "yaml", "json")
@click.option(
    "--to",
    "stage",
    type=click.Choice(["graph", "routes", "haproxy"]),
    default="haproxy",
    show_default=True,
    help="the step to stop at",
)
@config_options("gateway_controller_name", *STATE)
def translate(manifests: Path, output: str, stage: str, config_file: Path | None, **flags: Any) -> None:
    """Print what manifests become.

    \b
    graph    which route attaches where, which reference is allowed, and every problem
    routes   the hosts of each frontend, and the rules of each path in the order of precedence
    haproxy  sections, rows of tables, servers and crt-lists, as for a HAProxy that has nothing yet
    """
    config = read_config(config_file, flags)
    pipeline = read_pipeline(manifests, config.gateway_controller_name).pipeline
    match stage:
        case "graph":
            plain = to_plain(pipeline.graph)
        case "routes":
            plain = to_plain(pipeline.routing)
        case _:
            plain = translate_to_haproxy(pipeline, Pools(config.http_slots, config.tcp_slots), config.listening)
    click.echo(to_text(plain, output))


def translate_to_haproxy(pipeline: Pipeline, pools: Pools, listening: Listening = ANYWHERE) -> dict[str, Any]:
    """Give the state of a HAProxy that had nothing; of the slots that are not used only their number."""
    layout = replace(LAYOUT, listening=listening)
    state = build_state(pipeline.routing, pipeline.tables, NOTHING, layout, pools).state
    unused = Counter(slot_mode(key.name) for key in state.sections if is_slot(key) and key.name not in state.servers)
    sections = {
        f"{key.kind} {key.name}": to_plain(section)
        for key, section in state.sections.items()
        if not is_slot(key) or key.name in state.servers
    }
    return {
        "sections": sections,
        "unused_slots": to_plain(unused),
        "tables": {table.value: to_plain(rows) for table, rows in state.tables.items() if rows},
        "servers": to_plain(state.servers),
        **({"server_tls": to_plain(state.tls)} if state.tls else {}),
        "crt_lists": {name: list(map(str, sorted(entries))) for name, entries in sorted(state.crt_lists.items())},
        "lua": state.lua,
    }
