"""HTTPS in a cluster: a Gateway's Secret is read, served at a listener slot, and rotated, all without a reload."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gwctl.routing.request import Request
from tests.certificates import make_pair
from tests.harness import DataPlane, EchoBackend
from tests.kube.apiserver import ApiServer
from tests.live.cluster import Replica, cluster_gateway, condition, gateway_services, give_addresses, programmed, site
from tests.manifests import Manifest, https_listener, listener
from tests.tls import fetch_tls, wait_for_certificate

OLD, NEW = make_pair("web.test"), make_pair("web.test", serial=2)


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        yield server


def listener_condition(server: ApiServer, name: str, kind: str) -> Manifest:
    listeners = server.object("Gateway", "gateway").get("status", {}).get("listeners", ())
    return next((condition(item, kind) for item in listeners if item["name"] == name), {})


async def test_a_gateways_certificate_from_its_secret_to_the_handshake(dataplane: DataPlane, server: ApiServer) -> None:
    async with EchoBackend("web") as echo:
        for manifest in site(echo.port):
            server.put(manifest)
        listeners = [listener("http", 80), https_listener("https", 443, "web"), https_listener("later", 8443, "later")]
        server.put(cluster_gateway(listeners=listeners))
        server.put(OLD.secret("web"))
        async with Replica(dataplane, "one").running():
            await server.until(lambda: len(gateway_services(server)) == 2, 30)
            give_addresses(server)
            await server.until(lambda: programmed(server)["status"] == "True", 30)
            slots = {
                p["port"]: p["targetPort"] for item in gateway_services(server) for p in item["spec"].get("ports", ())
            }
            assert slots == {80: 20001, 443: 22001, 8443: 22002}
            await wait_for_certificate(slots[443], "web.test", OLD.der)
            assert (await fetch_tls(slots[443], "web.test", Request("GET", "web.test", "/"))).status == 200
            assert listener_condition(server, "https", "Programmed")["status"] == "True"
            missing = listener_condition(server, "later", "ResolvedRefs")
            assert (missing["status"], missing["reason"]) == ("False", "InvalidCertificateRef")
            assert listener_condition(server, "later", "Programmed")["status"] == "False"

            server.put(NEW.secret("web"))
            await wait_for_certificate(slots[443], "web.test", NEW.der)
            server.put(OLD.secret("later"))
            await wait_for_certificate(slots[8443], "web.test", OLD.der)
            await server.until(lambda: listener_condition(server, "later", "Programmed").get("status") == "True", 30)
            server.remove("Secret", "web")
            await wait_for_certificate(slots[443], "web.test", None)
            assert await dataplane.reloads() == 1
