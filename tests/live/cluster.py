"""gwctl as an operator in the test's process, at an API server's stand-in, and what tests ask of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gwctl.runtime.config import Config
from gwctl.runtime.health import Health
from gwctl.runtime.supervisor import run
from tests.harness import DataPlane, free_port
from tests.kube.apiserver import ApiServer
from tests.manifests import (
    CONTROLLER,
    Manifest,
    backend,
    endpoints,
    gateway,
    gateway_class,
    http_route,
    listener,
    prefix_rule,
    service,
)

NAMESPACE = "gwctl-system"


class Replica:
    """A gwctl in this process, at an API server's stand-in."""

    def __init__(self, dataplane: DataPlane, name: str, **options: Any) -> None:
        self.health = Health()
        self.name = name
        self._options = {
            "source": "kubernetes",
            "dataplane_url": dataplane.url,
            "dataplane_username": dataplane.username,
            "dataplane_password": dataplane.password,
            "gateway_controller_name": CONTROLLER,
            "http_slots": 8,
            "tcp_slots": 2,
            "http_listeners": 4,
            "https_listeners": 4,
            "tls_listeners": 2,
            "tcp_listeners": 2,
            "metrics_address": f"127.0.0.1:{free_port()}",
            "pod_namespace": NAMESPACE,
            "identity": name,
            "gateway_service_selector": {"app": "gwctl"},
            **options,
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(run(Config.model_validate(self._options), self.health))
        try:
            yield
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def cluster_gateway(name: str = "gateway", **spec: Any) -> Manifest:
    """A Gateway of which the cluster chooses the address."""
    manifest = gateway([listener("http", 80)])
    kept = {key: value for key, value in manifest["spec"].items() if key != "addresses"}
    return {**manifest, "metadata": {"name": name}, "spec": {**kept, **spec}}


def site(port: int) -> list[Manifest]:
    return [
        gateway_class(),
        cluster_gateway(),
        http_route("web", [prefix_rule("/", backend("web"))]),
        service("web"),
        *endpoints("web", [("127.0.0.1", port)]),
    ]


def condition(status: Manifest, kind: str) -> Manifest:
    return next((item for item in status.get("conditions", ()) if item["type"] == kind), {})


def programmed(server: ApiServer, name: str = "gateway") -> Manifest:
    status = server.object("Gateway", name).get("status", {})
    return condition(status, "Programmed") or {"status": "", "reason": ""}


def gateway_services(server: ApiServer) -> list[Manifest]:
    return [
        item
        for item in server.objects("Service").values()
        if "gwctl.io/gateway" in item["metadata"].get("annotations", {})
    ]


def give_addresses(server: ApiServer) -> None:
    """Do what a load balancer's controller does."""
    for item in gateway_services(server):
        if item["spec"]["type"] == "LoadBalancer" and "status" not in item:
            server.put({**item, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}})


def holder(server: ApiServer) -> str:
    return str(server.object("Lease", "gwctl", NAMESPACE)["spec"].get("holderIdentity"))
