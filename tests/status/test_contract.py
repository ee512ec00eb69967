"""What is told must be what the CRDs take: every status and Event against a real API server, where there is one."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from gwctl.api.ref import Ref
from gwctl.cli.manifests import read_pipeline
from gwctl.graph.node import ListenerKey
from gwctl.kube.client import KubeClient
from gwctl.kube.error import AlreadyExists, Invalid
from gwctl.kube.kind import Kind
from gwctl.providers.kubernetes import KINDS
from gwctl.status.build import build_statuses
from gwctl.status.event import build_events, to_manifest
from gwctl.status.merge import has_own_entries, merge_status, release
from gwctl.status.outcome import GatewayAddresses, Outcome
from tests.golden.test_golden import CASES, NAMES

KIND = {kind.name: kind for kind in (*KINDS, Kind("Event", "events", "events.k8s.io"))}


@dataclass
class Lab:
    """A namespace of a real API server, and a controller name that nobody else has."""

    client: KubeClient
    namespace: str
    controller_name: str

    def path(self, kind: str, name: str = "") -> str:
        return KIND[kind].path("v1", self.namespace, name)


@pytest.fixture
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    kubeconfig = request.config.getoption("--kubeconfig")
    if not kubeconfig:
        pytest.skip("STATUSES ARE NOT CHECKED AGAINST A REAL API SERVER: give --kubeconfig")
    namespace = f"gwctl-{uuid.uuid4().hex[:8]}"
    path = KIND["Namespace"].path("v1")
    async with KubeClient(kubeconfig) as client:
        await client.create(path, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        yield Lab(client, namespace, f"example.com/{namespace}")
        await client.delete(f"{path}/{namespace}")
        for item in (await client.list_page(KIND["GatewayClass"].path("v1")))["items"]:
            if item["metadata"]["name"].startswith(namespace):
                await client.delete(KIND["GatewayClass"].path("v1", name=item["metadata"]["name"]))


def is_told(manifest: dict[str, Any]) -> bool:
    own = ("GatewayClass", "Gateway", "ListenerSet", "BackendTLSPolicy")
    return manifest["kind"] in own or manifest["kind"].endswith("Route")


def transplant(lab: Lab, name: str) -> list[dict[str, Any]]:
    """A golden case in one namespace, under a controller name of its own, without what the CRDs refuse."""
    text = (CASES / f"{name}.in.yaml").read_text(encoding="utf-8")
    text = text.replace("gwctl.io/gateway-controller", lab.controller_name)
    found = [item for item in yaml.safe_load_all(text) if item]
    for item in found:
        metadata = item["metadata"]
        if item["kind"] == "GatewayClass":
            metadata["name"] = f"{lab.namespace}-{metadata['name']}"
        else:
            metadata["namespace"] = lab.namespace
        if item["kind"] == "Gateway":
            item["spec"]["gatewayClassName"] = f"{lab.namespace}-{item['spec']['gatewayClassName']}"
        spec = item.get("spec", {})
        for parent in (*spec.get("parentRefs", ()), spec.get("parentRef", {})):
            parent.pop("namespace", None)
    return found


@pytest.mark.parametrize("name", NAMES)
async def test_every_status_is_taken_as_it_is(lab: Lab, name: str, tmp_path: Path) -> None:
    live: dict[Ref, dict[str, Any]] = {}
    kept = []
    for manifest in transplant(lab, name):
        if manifest["kind"] not in KIND or not is_told(manifest):
            kept.append(manifest)
            continue
        try:
            created = await lab.client.create(lab.path(manifest["kind"]), manifest)
        except (AlreadyExists, Invalid):  # what no API server takes has no status
            continue
        kept.append(created)
        metadata = created["metadata"]
        live[Ref(created["kind"], metadata.get("namespace", ""), metadata["name"])] = created
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump_all(kept))
    graph = read_pipeline(path, lab.controller_name).pipeline.graph
    addresses = {ref: GatewayAddresses((("IPAddress", "192.0.2.1"), ("Hostname", "a.test"))) for ref in graph.gateways}
    refused: dict[ListenerKey, str] = dict.fromkeys(list(graph.listeners)[:1], "x" * 10_000)
    for outcome in (
        Outcome(graph, bundle_versions=frozenset({"v1.6.3"})),
        Outcome(graph, graph, addresses=addresses, bundle_versions=frozenset({"v9"})),
        Outcome(graph, graph, refused=refused),
    ):
        statuses = build_statuses(outcome)
        for ref, desired in statuses.by_ref.items():
            live[ref] = await write(lab, ref, live[ref], desired)
        for event in build_events(None, statuses):
            manifest = dict(to_manifest(event, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "pod-1"))
            try:
                told = await lab.client.create(
                    lab.path("Event") if event.subject.namespace else KIND["Event"].path("v1", "default"), manifest
                )
            except AlreadyExists:
                continue
            assert told["note"] == event.note
    for ref, manifest in live.items():
        status = manifest.get("status") or {}
        if has_own_entries(status, lab.controller_name):
            released = release(status, manifest["metadata"]["uid"], manifest["metadata"]["generation"])
            after = await write(lab, ref, manifest, released)
            assert not has_own_entries(after["status"], lab.controller_name)


async def write(lab: Lab, ref: Ref, manifest: dict[str, Any], desired: Any) -> dict[str, Any]:
    """Write a status as the writer does; the API server must keep all of it, so that there is nothing to write then."""
    assert (desired.uid, desired.generation) == (manifest["metadata"]["uid"], manifest["metadata"]["generation"])

    def merge(live: dict[str, Any]) -> dict[str, Any] | None:
        return merge_status(
            desired,
            live.get("status"),
            namespace=ref.namespace,
            controller_name=lab.controller_name,
            now="2026-01-02T03:04:05Z",
        )

    new = merge(manifest)
    if new is None:
        return manifest
    path = lab.path(ref.kind, ref.name)
    written: dict[str, Any] = await lab.client.patch_status(path, new, manifest["metadata"]["resourceVersion"])
    assert written["status"] == new
    assert merge(written) is None
    return written
