"""TLS to backends in a cluster: a policy's ConfigMap is read by its name, and the policy's status written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gwctl.routing.request import Request
from tests.certificates import make_authority, make_pair
from tests.harness import DataPlane
from tests.kube.apiserver import ApiServer
from tests.live.cluster import Replica, cluster_gateway, condition, gateway_services, give_addresses, site
from tests.live.gateway import wait_for
from tests.manifests import CONTROLLER, Manifest, backend_tls_policy, config_map, listener
from tests.tls import TlsBackend

ROOT, OTHER = make_authority("root"), make_authority("other")
THEIRS = {"ancestorRef": {"name": "theirs"}, "controllerName": "example.com/other", "conditions": []}


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        yield server


def told(server: ApiServer, name: str, kind: str) -> Manifest:
    """What our one entry says of a policy."""
    entries = server.object("BackendTLSPolicy", name).get("status", {}).get("ancestors", ())
    return next((condition(item, kind) for item in entries if item["controllerName"] == CONTROLLER), {})


async def test_a_policy_from_its_config_map_to_the_backend_and_its_status(
    dataplane: DataPlane, server: ApiServer
) -> None:
    async with TlsBackend("web", make_pair("backend.test", issuer="root")) as web:
        for manifest in site(web.port):
            server.put(manifest)
        server.put(cluster_gateway(listeners=[listener("http", 80)]))
        server.put(backend_tls_policy("p", "web", "ca") | {"status": {"ancestors": [THEIRS]}})
        server.put(backend_tls_policy("unused", "nobodys", "ca"))
        async with Replica(dataplane, "one").running():
            await server.until(lambda: len(gateway_services(server)) == 2, 30)
            give_addresses(server)
            await server.until(lambda: told(server, "p", "Accepted").get("reason") == "NoValidCACertificate", 30)
            assert told(server, "p", "ResolvedRefs")["reason"] == "InvalidCACertificateRef"
            await wait_for(20001, Request("GET", "a.test", "/"), status=500)
            server.put(config_map("ca", ROOT))
            await wait_for(20001, Request("GET", "a.test", "/"), status=200, backend="web")
            await server.until(lambda: told(server, "p", "Accepted").get("status") == "True", 30)
            server.put(config_map("ca", OTHER))
            await wait_for(20001, Request("GET", "a.test", "/"), status=503)
            server.put(backend_tls_policy("p", "web", "missing", "ca") | {"status": {"ancestors": [THEIRS]}})
            server.remove("HTTPRoute", "web")
            await server.until(lambda: not told(server, "p", "Accepted"), 30)
            assert server.object("BackendTLSPolicy", "p")["status"]["ancestors"] == [THEIRS]
            assert "ancestors" not in server.object("BackendTLSPolicy", "unused").get("status", {})
            assert await dataplane.reloads() == 1
    assert all("fieldSelector" in request for request in server.requests if "/configmaps" in request)
