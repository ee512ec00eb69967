"""The writer of Gateways' Services: when it tries again, and what it never does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from gwctl.api.ref import Ref
from gwctl.graph.gatewayservice import owner_of, slots_of
from gwctl.kube.client import KubeClient
from gwctl.kube.error import build_refused
from gwctl.runtime import services
from gwctl.runtime.pipeline import Pipeline, advance
from gwctl.runtime.services import ServiceWriter
from tests.graph.manifests import CONTROLLER, read
from tests.infrastructure.test_service import CLASS, SETTINGS, Cluster, gateway


class Api:
    """An API server that tells a writer at once what became of its writes, but for those that it refuses."""

    def __init__(self, text: str) -> None:
        self.cluster = Cluster(text)
        self.pipeline = advance(None, dict(self.cluster.objects), CONTROLLER, SETTINGS.namespace)
        self.written: list[str] = []
        self.refuses: Callable[[str], bool] = lambda name: False
        self.spoils: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda manifest: manifest
        self.tell: Callable[[Pipeline], None] = lambda pipeline: None

    def change(self, changes: Mapping[Ref, Any]) -> None:
        self.pipeline = advance(self.pipeline, changes, CONTROLLER, SETTINGS.namespace)
        self.tell(self.pipeline)

    async def apply(self, path: str, manifest: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        name = manifest["metadata"]["name"]
        self.written.append(name)
        if self.refuses(name):
            raise build_refused("PATCH", path, 403, {"reason": "Forbidden"})
        resource = read(self.spoils(manifest))
        self.change({resource.ref: resource})


@asynccontextmanager
async def writing(api: Api, is_leader: Callable[[], bool] = lambda: True) -> AsyncIterator[ServiceWriter]:
    writer = ServiceWriter(cast("KubeClient", api), SETTINGS, is_leader)
    api.tell = writer.update
    task = asyncio.create_task(writer.run())
    try:
        writer.update(api.pipeline)
        await settle()
        yield writer
    finally:
        task.cancel()
        await asyncio.wait([task])


async def settle() -> None:
    """Let everything run that waits for nothing but its turn."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second try of anything while a test runs."""
    monkeypatch.setattr(services, "_FIRST_RETRY_SECONDS", 3_600.0)
    monkeypatch.setattr(services, "_LONGEST_RETRY_SECONDS", 3_600.0)


async def test_what_is_refused_waits_for_its_time_whatever_else_happens() -> None:
    api = Api(CLASS + gateway())
    api.refuses = lambda name: True
    async with writing(api) as writer:
        assert len(api.written) == 2
        for _ in range(20):
            writer.update(api.pipeline)
            await settle()
        assert len(api.written) == 2
        changed = Cluster(gateway(listeners="[{name: http, port: 8080, protocol: HTTP}]")).objects
        api.change(changed)
        await settle()
        assert len(api.written) == 3, "a Service that shall be another is tried at once, the alias is the same"
        api.refuses = lambda name: False
        writer.wake()
        await settle()
        assert len(api.written) == 5
        assert not writer.errors


async def test_what_somebody_undoes_again_and_again_is_written_ever_more_rarely() -> None:
    api = Api(CLASS + gateway())
    api.spoils = lambda manifest: {**manifest, "spec": {**manifest["spec"], "selector": {"app": "theirs"}}}
    async with writing(api) as writer:
        count = len(api.written)
        for _ in range(20):
            writer.update(api.pipeline)
            await settle()
        assert len(api.written) == count == 2


async def test_only_a_gateways_own_service_counts_against_it() -> None:
    api = Api(CLASS + gateway())
    api.refuses = lambda name: name == "web-gwctl"
    async with writing(api) as writer:
        assert sorted(api.written) == sorted({*api.written})
        assert len(api.written) == 2
        assert not writer.errors
    api = Api(CLASS + gateway())
    api.refuses = lambda name: name != "web-gwctl"
    async with writing(api) as writer:
        assert list(writer.errors) == [Ref("Gateway", "default", "web")]
        assert "Forbidden" in writer.errors[Ref("Gateway", "default", "web")]


async def test_no_slot_is_given_twice_where_a_write_fails() -> None:
    """What was written beside it must be seen before the next plan."""
    api = Api(CLASS + "".join(gateway(name) for name in ("web", "app", "zed")))
    api.refuses = lambda name: name.startswith("gw-default-web")
    told: list[Pipeline] = []
    async with writing(api) as writer:
        api.tell = told.append
        api.change(Cluster(gateway("one") + gateway("two")).objects)
        writer.update(told.pop())
        await settle()
        new = [name for name in api.written if name.startswith(("gw-default-one", "gw-default-two"))]
        assert len(new) == 2, "events have not come yet"
        api.change(Cluster(gateway("more")).objects)
        writer.update(told[0])
        await settle()
        assert not any(name.startswith("gw-default-more") for name in api.written)
        api.tell = writer.update
        writer.update(told[-1])
        await settle()
        assert any(name.startswith("gw-default-more") for name in api.written)
        taken = [
            slot
            for service in api.pipeline.snapshot.services.values()
            if owner_of(service)
            for slot in slots_of(service).values()
        ]
        assert len(taken) == len(set(taken)) == 5


async def test_a_leader_that_loses_the_lead_stops_at_once() -> None:
    api = Api(CLASS + "".join(gateway(name) for name in ("web", "app", "zed")))
    async with writing(api, lambda: len(api.written) < 2):
        assert len(api.written) == 2
