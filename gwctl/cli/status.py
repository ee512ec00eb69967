"""``gwctl status``: Gateways, ListenerSets, listeners and routes, and why anything of them is not served.

In: objects with their status, from a cluster as they are stored there, or from manifests as gwctl would tell them. Out:
tables and problems. The surprising fact: manifests say nothing about a HAProxy, so what is programmed stays open there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from gwctl.api.parse import Invalid
from gwctl.cli.cluster import read_cluster
from gwctl.cli.manifests import Result, read_pipeline
from gwctl.cli.option import config_options, output_option, read_config
from gwctl.cli.overview import Item, Json, Overview
from gwctl.providers.kubernetes import KINDS
from gwctl.runtime.config import Config
from gwctl.status.build import build_statuses
from gwctl.status.merge import merge_status
from gwctl.status.outcome import Outcome

_SHORT_NAMES = {"gc": "GatewayClass", "gtw": "Gateway", "lset": "ListenerSet"}


@click.command(short_help="Print Gateways and routes, and why anything is not served.")
@click.argument("objects", nargs=-1, metavar="[KIND[/NAME]]...")
@click.option("-n", "--namespace", help="only objects of this namespace")
@click.option("--check", is_flag=True, help="exit with status 1 when anything is wrong")
@output_option("text", "text", "json")
@config_options("source", "gateway_controller_name", "namespaces")
def status(
    objects: tuple[str, ...],
    namespace: str | None,
    check: bool,
    output: str,
    config_file: Path | None,
    **flags: Any,
) -> None:
    """Print Gateways, ListenerSets, their listeners and routes, and why anything of them is not served.

    \b
    gwctl status                                     # the cluster of the current kubeconfig
    gwctl status -n shop httproute/cart gateway
    gwctl status --source file:manifests             # what gwctl would tell; nothing of HAProxy

    The exit status is 0 whatever is found; with --check it is 1 when anything is wrong.
    """
    config = read_config(config_file, flags)
    wanted = [_read_selector(text) for text in objects]
    items, invalid = _read_items(config)
    overview = Overview(items, invalid, config, wanted, namespace)
    overview.check_selectors(objects)
    if output == "json":
        click.echo(json.dumps(overview.plain(), indent=2, ensure_ascii=False))
    else:
        for line in overview.lines():
            click.echo(line)
    if check and overview.troubles:
        raise click.exceptions.Exit(1)


def _read_selector(text: str) -> tuple[str, str]:
    """Read ``kind``, in any spelling that kubectl knows, or ``kind/name``."""
    word, _, name = text.partition("/")
    kind = _SHORT_NAMES.get(word.lower())
    for known in KINDS:
        if word.lower() in (known.name.lower(), known.plural):
            kind = known.name
    if kind is None or not _is_shown(kind):
        raise click.UsageError(
            f"{text!r} is not of the form KIND or KIND/NAME, with a kind such as gateway or httproute"
        )
    return kind, name


def _is_shown(kind: str) -> bool:
    return kind in ("GatewayClass", "Gateway", "ListenerSet", "BackendTLSPolicy") or kind.endswith("Route")


def _read_items(config: Config) -> tuple[list[Item], tuple[Invalid, ...]]:
    if config.source == "kubernetes":
        return [_read_item(manifest) for manifest in read_cluster(config)], ()
    result = read_pipeline(Path(config.source.removeprefix("file:")), config.gateway_controller_name)
    return list(_items_of_manifests(result, config.gateway_controller_name)), result.invalid


def _read_item(manifest: Json) -> Item:
    metadata = manifest["metadata"]
    return Item(
        manifest["kind"],
        metadata.get("namespace", ""),
        metadata["name"],
        metadata.get("generation", 0),
        manifest.get("spec") or {},
        manifest.get("status") or {},
    )


def _items_of_manifests(result: Result, controller_name: str) -> Iterator[Item]:
    statuses = build_statuses(Outcome(result.pipeline.graph)).by_ref
    for resource in result.pipeline.snapshot.resources():
        if not _is_shown(resource.ref.kind):
            continue
        spec = resource.model_dump(mode="json", by_alias=True, exclude_none=True, include={"spec"})["spec"]
        desired, told = statuses.get(resource.ref), None
        if desired is not None:
            namespace = resource.ref.namespace
            told = merge_status(desired, None, namespace=namespace, controller_name=controller_name, now="")
        yield Item(*resource.ref, resource.metadata.generation, spec, _without_haproxy(told or {}))


def _without_haproxy(value: Any) -> Any:
    """A status without what only a cluster and a running HAProxy could say."""
    if isinstance(value, Mapping):
        return {key: _without_haproxy(item) for key, item in value.items() if key != "lastTransitionTime"}
    if isinstance(value, list):
        return [_without_haproxy(item) for item in value if not _is_programmed(item)]
    return value


def _is_programmed(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("type") == "Programmed"
