"""HTTPS in a cluster: a Gateway's Secret is read, served at a listener slot, and rotated, all without a reload."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gwctl.routing.request import Request
from tests.certificates import make_odd_authority, make_pair, tls_secret
from tests.harness import DataPlane, EchoBackend, TcpEcho
from tests.kube.apiserver import ApiServer
from tests.live.cluster import Replica, cluster_gateway, condition, gateway_services, give_addresses, programmed, site
from tests.manifests import Manifest, backend, endpoints, https_listener, listener, service, tls_listener, tls_route
from tests.secrecy import find_keys
from tests.tls import fetch_tls, server_context, wait_for_certificate, wait_for_greeting

pytestmark = pytest.mark.usefixtures("no_key_in_logs")

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


async def test_nothing_that_is_written_to_the_cluster_holds_a_private_key(
    dataplane: DataPlane, server: ApiServer
) -> None:
    """Not statuses nor Events, whatever is wrong with a Secret."""
    good, swapped = OLD.secret("good"), OLD.secret("swapped")
    swapped["data"] = {"tls.crt": swapped["data"]["tls.key"], "tls.key": swapped["data"]["tls.crt"]}
    applied = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(good)}
    secrets = {
        "good": {**good, "metadata": {**good["metadata"], "annotations": applied}},
        "swapped": swapped,
        "mixed": tls_secret("mixed", OLD.certificate, NEW.key),
        "odd": tls_secret("odd", OLD.certificate + make_odd_authority("odd"), OLD.key),
        "opaque": {**OLD.secret("opaque"), "type": "Opaque"},
        "broken": {**OLD.secret("broken"), "data": OLD.key},
    }
    async with EchoBackend("web") as echo:
        for manifest in site(echo.port):
            server.put(manifest)
        for secret in secrets.values():
            server.put(secret)
        listeners = [https_listener(name, 443, name, hostname=f"{name}.test") for name in secrets]
        server.put(cluster_gateway(listeners=listeners))
        async with Replica(dataplane, "one").running():
            await server.until(lambda: listener_condition(server, "good", "ResolvedRefs").get("status") == "True", 30)
            await server.until(lambda: listener_condition(server, "mixed", "ResolvedRefs").get("status") == "False", 30)
            await server.until(lambda: len(server.objects("Event")) >= len(secrets) - 2, 30)
        kinds = [kind for kind in server.kinds if kind != "Secret"]
        assert find_keys(json.dumps(list(server.objects(kind).values())) for kind in kinds) == []


async def test_a_port_with_tls_listeners_gets_a_slot_that_reads_the_name_in_handshakes(
    dataplane: DataPlane, server: ApiServer, tmp_path: Path
) -> None:
    own = make_pair("own.test")
    async with EchoBackend("web") as web, TcpEcho("db", tls=server_context(own, tmp_path)) as db:
        for manifest in (*site(web.port), service("db"), *endpoints("db", [("127.0.0.1", db.port)])):
            server.put(manifest)
        server.put(OLD.secret("web"))
        https = https_listener("https", 443, "web", hostname="web.test")
        server.put(cluster_gateway(listeners=[https]))
        async with Replica(dataplane, "one").running():
            await server.until(lambda: len(gateway_services(server)) == 2, 30)
            give_addresses(server)
            await server.until(lambda: programmed(server)["status"] == "True", 30)
            await wait_for_certificate(22001, "web.test", OLD.der)
            server.put(cluster_gateway(listeners=[https, tls_listener("db", 443, hostname="own.test")]))
            server.put(tls_route("db", [backend("db")], ("own.test",)))
            await wait_for_greeting(24001, "own.test", ("db", own.der))
            await wait_for_certificate(24001, "web.test", OLD.der)
            await server.until(lambda: listener_condition(server, "db", "Programmed").get("status") == "True", 30)
            parents = server.object("TLSRoute", "db")["status"]["parents"]
            assert [condition(parent, "Accepted")["status"] for parent in parents] == ["True"]
            ports = [port for item in gateway_services(server) for port in item["spec"].get("ports", ())]
            assert [(port["port"], port["targetPort"]) for port in ports] == [(443, 24001)]
            assert await dataplane.reloads() == 1
