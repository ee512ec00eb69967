"""The versions of the CRDs: what is asked, and what an API server makes of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gwctl.kube.bundle import BundleVersions
from gwctl.kube.client import KubeClient
from gwctl.kube.reflector import Pace
from gwctl.providers.kubernetes import GATEWAY_KINDS
from tests.kube.apiserver import ApiServer

PACE = Pace(first=0.01, longest=0.02, missing=0.01)


def put_crd(server: ApiServer, plural: str, **annotations: str) -> None:
    metadata = {
        "name": f"{plural}.gateway.networking.k8s.io",
        "annotations": {
            f"gateway.networking.k8s.io/{key.replace('_', '-')}": text for key, text in annotations.items()
        },
    }
    server.put({"kind": "CustomResourceDefinition", "metadata": metadata, "spec": {"large": True}})


@asynccontextmanager
async def looking(client: KubeClient, seconds: float = 60.0) -> AsyncIterator[tuple[BundleVersions, asyncio.Event]]:
    changed = asyncio.Event()
    versions = BundleVersions(client, GATEWAY_KINDS, changed.set, pace=PACE, seconds=seconds)
    task = asyncio.create_task(versions.run())
    try:
        yield versions, changed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_every_crd_says_its_version(client: KubeClient, server: ApiServer) -> None:
    put_crd(server, "gateways", bundle_version="v1.6.3", channel="standard")
    put_crd(server, "httproutes", bundle_version="v1.5.0", channel="experimental")
    put_crd(server, "tcproutes")
    async with looking(client) as (versions, changed):
        await asyncio.wait_for(changed.wait(), 10)
    assert versions.found == frozenset({"v1.6.3", "v1.5.0", ""})
    assert versions.channels == {"standard", "experimental"}


async def test_a_newer_version_is_seen_in_time_and_only_a_change_is_told(client: KubeClient, server: ApiServer) -> None:
    put_crd(server, "gateways", bundle_version="v1.6.3")
    async with looking(client, seconds=0.01) as (versions, changed):
        await asyncio.wait_for(changed.wait(), 10)
        changed.clear()
        asked = server.count("GET", "/gateways.gateway")
        await server.until(lambda: server.count("GET", "/gateways.gateway") > asked + 2)
        assert not changed.is_set()
        put_crd(server, "gateways", bundle_version="v2.0.0")
        await asyncio.wait_for(changed.wait(), 10)
    assert versions.found == frozenset({"v2.0.0"})


async def test_without_the_right_nothing_is_said(client: KubeClient, server: ApiServer) -> None:
    server.fail("GET", "/customresourcedefinitions/", 403, times=1000)
    async with looking(client, seconds=0.01) as (versions, changed):
        await asyncio.wait_for(changed.wait(), 10)
        assert versions.has_looked
        changed.clear()
        await server.until(lambda: server.count("GET", "/customresourcedefinitions/") > 3)
        assert versions.found is None
        assert not changed.is_set()


async def test_nothing_is_known_while_the_api_server_fails(
    client: KubeClient, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    put_crd(server, "gateways", bundle_version="v1.6.3")
    failing = server.hang("GET", "/gateways.gateway")
    server.fail("GET", "/gateways.gateway", 500, times=2)
    server.answer_with("GET", "/gateways.gateway", b"[]")
    async with looking(client) as (versions, changed):
        await server.until(lambda: server.count("GET", "/gateways.gateway") == 1)
        failing.set()
        await asyncio.wait_for(changed.wait(), 10)
        assert server.count("GET", "/gateways.gateway") == 5
    assert (versions.has_looked, versions.found) == (True, frozenset({"v1.6.3"}))
    assert "the Kubernetes API fails" in caplog.messages


async def test_a_refusal_that_will_stay_is_an_answer(client: KubeClient, server: ApiServer) -> None:
    put_crd(server, "gateways", bundle_version="v1.6.3")
    server.fail("GET", "/gateways.gateway", 400)
    async with looking(client) as (versions, changed):
        await asyncio.wait_for(changed.wait(), 10)
        assert (versions.has_looked, versions.found) == (True, None)
        changed.clear()
        await asyncio.wait_for(changed.wait(), 10)
    assert versions.found == frozenset({"v1.6.3"})


async def test_crds_that_come_later_are_seen_soon(client: KubeClient, server: ApiServer) -> None:
    async with looking(client) as (versions, changed):
        await asyncio.wait_for(changed.wait(), 10)
        assert versions.found == frozenset()
        changed.clear()
        put_crd(server, "gateways", bundle_version="v2.0.0", channel="standard")
        await asyncio.wait_for(changed.wait(), 10)
    assert versions.found == {"v2.0.0"}
    assert versions.channels == {"standard"}
