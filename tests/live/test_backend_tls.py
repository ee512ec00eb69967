"""TLS to backends before a real HAProxy: who is verified and by what, certificates shown, all without a reload."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from gwctl.routing.request import Request
from tests.certificates import make_authority, make_odd_authority, make_pair, tls_secret
from tests.grpcecho import OK, Call, GrpcClient, GrpcEcho
from tests.harness import DataPlane, EchoBackend, TcpEcho, free_port
from tests.live.gateway import Gwctl, wait_for
from tests.manifests import (
    Manifest,
    backend,
    backend_tls_policy,
    config_map,
    endpoints,
    gateway,
    gateway_class,
    grpc_route,
    http_route,
    listener,
    prefix_rule,
    service,
    tcp_route,
)
from tests.parts import Part
from tests.tls import TlsBackend

pytestmark = pytest.mark.usefixtures("no_key_in_logs")

ROOT, OTHER_ROOT = make_authority("root"), make_authority("other root")
BACKEND = make_pair("backend.test", issuer="root")
OF_OTHER_ROOT = make_pair("backend.test", issuer="other root")
CLIENT_ROOT = make_authority("clients")
CLIENT, RENEWED, OTHER_CLIENT = (make_pair("client.test", serial=number, issuer="clients") for number in (1, 2, 3))


def get(path: str = "/") -> Request:
    return Request("GET", "a.test", path)


def served(*servers: EchoBackend | TcpEcho | GrpcEcho) -> list[Manifest]:
    return [item for one in servers for item in (service(one.name), *endpoints(one.name, [("127.0.0.1", one.port)]))]


async def authorities(dataplane: DataPlane) -> set[str]:
    return set(re.findall(r"gwctl-ca-[0-9a-f]+", await dataplane.runtime("show ssl ca-file")))


async def wait_until(check: Any, wanted: Any) -> None:
    async with asyncio.timeout(30):
        while await check() != wanted:  # noqa: ASYNC110 (HAProxy tells nobody)
            await asyncio.sleep(0.05)


async def test_backends_are_verified_by_name_and_authority_and_never_get_plain_text_instead(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    port = free_port()
    async with TlsBackend("web", BACKEND) as web, TlsBackend("other", OF_OTHER_ROOT) as other:
        policies = {
            "/web": backend_tls_policy("web", "web", "root"),
            "/both": backend_tls_policy("both", "both", "missing", "roots"),
            "/other": backend_tls_policy("other", "other", "root"),
            "/name": backend_tls_policy("name", "name", "root", hostname="another.test"),
            "/system": backend_tls_policy("system", "system", wellKnownCACertificates="System"),
            "/missing": backend_tls_policy("missing", "missing", "nothing"),
            "/san": backend_tls_policy("san", "san", "root", subjectAltNames=[{"type": "URI", "uri": "spiffe://a/b"}]),
        }
        services = {"/both": other.port, "/other": other.port}
        manifests = [gateway_class(), gateway([listener("http", port)])]
        manifests += [config_map("root", ROOT), config_map("roots", ROOT, OTHER_ROOT)]
        for path in policies:
            target = ("127.0.0.1", services.get(path, web.port))
            manifests += [service(path[1:]), *endpoints(path[1:], [target])]
        rules = [prefix_rule(path, backend(path[1:])) for path in policies]
        manifests += [http_route("r", rules), *policies.values()]
        async with Gwctl(dataplane, tmp_path / "manifests", *manifests) as gwctl:
            wanted = {"/web": 200, "/both": 200, "/other": 503, "/name": 503, "/system": 503, "/missing": 500}
            cases = (wanted | {"/san": 500}).items()
            await asyncio.gather(*(wait_for(port, get(path), status=status) for path, status in cases))
            assert set(web.names) == {"backend.test", "another.test"}
            assert (web.requests, other.requests) == (1, 1)
            assert await dataplane.reloads() == 1
            assert "gwctl_drift_repaired_total{" not in await gwctl.metrics()


async def test_policies_and_their_authorities_come_change_and_go_while_requests_are_served(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    port = free_port()
    async with TlsBackend("web", BACKEND) as web, EchoBackend("plain") as plain:
        base = [gateway_class(), gateway([listener("http", port)]), *served(plain)]
        base.append(http_route("r", [prefix_rule("/", backend("web")), prefix_rule("/plain", backend("plain"))]))
        policy = backend_tls_policy("p", "web", "ca")
        async with Gwctl(dataplane, tmp_path / "manifests", *base, *served(web)) as gwctl:
            worker, reloads = await dataplane.worker(), await dataplane.reloads()
            await wait_for(port, get("/plain"), status=200)
            assert (await wait_for(port, get(), status=502)).status == 502  # plain text to a server that wants TLS
            await gwctl.apply("policy.yaml", [policy, config_map("ca", ROOT)])
            await wait_for(port, get(), status=200)
            (first,) = await authorities(dataplane)
            await gwctl.apply("policy.yaml", [policy, config_map("ca", OTHER_ROOT)])
            await wait_for(port, get(), status=503)
            await wait_until(lambda: authorities(dataplane), await authorities(dataplane) - {first})
            await gwctl.apply("policy.yaml", [policy])
            await wait_for(port, get(), status=500)
            await gwctl.apply("policy.yaml", [policy, config_map("ca", ROOT, OTHER_ROOT)])
            await wait_for(port, get(), status=200)
            younger = backend_tls_policy("q", "web", "ca", hostname="another.test", created="2026-01-01T00:00:00Z")
            await gwctl.apply("policy.yaml", [policy, younger, config_map("ca", ROOT)])
            assert (await wait_for(port, get(), status=200)).status == 200
            await gwctl.apply("policy.yaml", [config_map("ca", ROOT)])
            await wait_for(port, get(), status=502)
            await wait_until(lambda: authorities(dataplane), set())
            assert (await dataplane.worker(), await dataplane.reloads()) == (worker, reloads)
            assert "gwctl_drift_repaired_total{" not in await gwctl.metrics()


async def test_a_gateway_shows_its_certificate_to_backends_and_the_next_one_without_a_reload(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    ports = {name: free_port() for name in ("one", "two", "none")}

    def gateways(secrets: Iterable[tuple[str, str]]) -> list[Manifest]:
        made = {name: gateway([listener("http", port)], name) for name, port in ports.items()}
        for name, secret in secrets:
            made[name]["spec"]["tls"] = {"backend": {"clientCertificateRef": {"name": secret}}}
        return list(made.values())

    parents = tuple({"name": name} for name in ports)
    async with (
        TlsBackend("web", BACKEND, authority=CLIENT_ROOT) as web,
        TlsBackend("lax", BACKEND, authority=CLIENT_ROOT, required=False) as lax,
    ):
        base = [gateway_class(), *served(web, lax), config_map("ca", ROOT)]
        base += [backend_tls_policy(name, name, "ca") for name in ("web", "lax")]
        rules = [prefix_rule("/", backend("web")), prefix_rule("/lax", backend("lax"))]
        base += [http_route("r", rules, (), parents), *gateways([("one", "one"), ("two", "two")])]
        secrets = [CLIENT.secret("one"), OTHER_CLIENT.secret("two")]
        async with Gwctl(dataplane, tmp_path / "manifests", *base) as gwctl:
            worker, reloads = await dataplane.worker(), await dataplane.reloads()
            # With TLS 1.3 a client learns only after its handshake that its certificate was wanted.
            for path, status in (("/", 502), ("/lax", 200)):
                await wait_for(ports["one"], get(path), status=status)
            await gwctl.apply("secrets.yaml", secrets)
            for name, pair in (("one", CLIENT), ("two", OTHER_CLIENT)):
                await wait_for(ports[name], get(), status=200)
                assert web.last.getpeercert(binary_form=True) == pair.der
            await wait_for(ports["none"], get(), status=502)
            await gwctl.apply("secrets.yaml", [RENEWED.secret("one"), secrets[1]])
            await wait_for(ports["one"], get(), status=200)
            assert web.last.getpeercert(binary_form=True) == RENEWED.der
            assert (await dataplane.worker(), await dataplane.reloads()) == (worker, reloads)
            await gwctl.apply("secrets.yaml", [CLIENT.secret("unused")])
            await wait_for(ports["one"], get(), status=502)
            await wait_until(lambda: held(dataplane), 0)


async def test_a_certificate_that_haproxy_does_not_take_harms_its_own_gateway_alone(
    dataplane: DataPlane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = free_port(), free_port()
    odd = make_pair("odd", issuer="odd")
    chained = tls_secret("odd", odd.certificate + make_odd_authority("odd"), odd.key)
    gateways = [gateway([listener("http", port)], name) for name, port in (("good", good), ("bad", bad))]
    gateways[1]["spec"]["tls"] = {"backend": {"clientCertificateRef": {"name": "odd"}}}
    async with TlsBackend("web", BACKEND) as web:
        rules = [prefix_rule("/", backend("web"))]
        manifests = [gateway_class(), *gateways, *served(web), config_map("ca", ROOT), chained]
        manifests += [http_route("r", rules, (), ({"name": "good"}, {"name": "bad"}))]
        manifests += [backend_tls_policy("p", "web", "ca")]
        async with Gwctl(dataplane, tmp_path / "manifests", *manifests) as gwctl:
            await wait_for(good, get(), status=200)
            await wait_for(bad, get(), status=503)
            (refusal,) = [record for record in caplog.records if record.__dict__.get("reason") == "CertificateRefused"]
            assert refusal.__dict__["object"] == "Secret default/odd"
            await gwctl.apply("manifests.yaml", [*(manifests[:6]), CLIENT.secret("odd"), *manifests[7:]])
            await wait_for(bad, get(), status=200)


async def held(dataplane: DataPlane) -> int:
    """How many certificates HAProxy holds for servers."""
    return len(re.findall(r"^gwctl-[0-9a-f]{32}", await dataplane.runtime("show ssl cert"), re.MULTILINE))


async def test_the_authorities_of_the_system_are_those_of_haproxys_machine(
    haproxy: Path, dataplaneapi: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, trusted = free_port(), tmp_path / "trusted"
    trusted.mkdir()
    (trusted / "root.pem").write_text(ROOT, encoding="ascii")
    monkeypatch.setenv("SSL_CERT_DIR", str(trusted))
    async with (
        DataPlane(tmp_path / "plane", haproxy=haproxy, api=dataplaneapi) as dataplane,
        TlsBackend("web", BACKEND) as web,
        TlsBackend("other", OF_OTHER_ROOT) as other,
    ):
        manifests = [gateway_class(), gateway([listener("http", port)]), *served(web, other)]
        manifests += [http_route("r", [prefix_rule(f"/{name}", backend(name)) for name in ("web", "other")])]
        manifests += [backend_tls_policy(name, name, wellKnownCACertificates="System") for name in ("web", "other")]
        async with Gwctl(dataplane, tmp_path / "manifests", *manifests) as gwctl:
            await wait_for(port, get("/web"), status=200, backend="web")
            await wait_for(port, get("/other"), status=503)
            await gwctl.until_file_says("ca-file @system-ca")
        await dataplane.restart_haproxy()
        await wait_for(port, get("/web"), status=200, backend="web")


async def test_a_haproxy_that_starts_anew_speaks_tls_from_files(dataplane: DataPlane, tmp_path: Path) -> None:
    port = free_port()
    async with TlsBackend("web", BACKEND, authority=CLIENT_ROOT) as web:
        manifests = [gateway_class(), gateway([listener("http", port)]), *served(web)]
        manifests[1]["spec"]["tls"] = {"backend": {"clientCertificateRef": {"name": "client"}}}
        manifests += [http_route("r", [prefix_rule("/", backend("web"))]), CLIENT.secret("client")]
        manifests += [config_map("ca", ROOT), backend_tls_policy("p", "web", "ca")]
        async with Gwctl(dataplane, tmp_path / "manifests", *manifests) as gwctl:
            await wait_for(port, get(), status=200)
            await gwctl.until_file_says("ca-file gwctl-ca-")
        await dataplane.restart_haproxy()
        assert (await wait_for(port, get(), status=200)).json()["name"] == "web"
        async with Gwctl(dataplane, tmp_path / "manifests", *manifests) as gwctl:
            await wait_for(port, get(), status=200)
            assert await dataplane.reloads() == 0
            assert "gwctl_reloads_total{" not in await gwctl.metrics()


async def test_mirrors_retries_calls_and_connections_are_tls_as_well(dataplane: DataPlane, tmp_path: Path) -> None:
    http, tcp = free_port(), free_port()
    async with AsyncExitStack() as stack:
        web, copy = [await stack.enter_async_context(TlsBackend(name, BACKEND)) for name in ("web", "copy")]
        calls = await stack.enter_async_context(GrpcEcho("calls", pair=BACKEND))
        mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "copy", "port": 80}}}
        manifests = [gateway_class(), gateway([listener("http", http), listener("tcp", tcp, protocol="TCP")])]
        manifests += [*served(web, copy, calls), config_map("ca", ROOT)]
        manifests += [backend_tls_policy(name, name, "ca") for name in ("web", "copy", "calls")]
        rules = [
            prefix_rule("/mirror", backend("web")) | {"filters": [mirror]},
            prefix_rule("/retry", backend("web")) | {"retry": {"attempts": 2, "codes": [503]}},
        ]
        manifests += [http_route("r", rules, ("a.test",))]
        manifests += [grpc_route("g", [{"backendRefs": [backend("calls")]}], ("g.test",))]
        manifests += [tcp_route("t", [backend("web")])]
        async with Gwctl(dataplane, tmp_path / "manifests", *manifests):
            await wait_for(http, get("/mirror"), status=200, backend="web")
            await wait_until(lambda: _value(copy.paths["/mirror"]), 1)
            before = web.requests
            await wait_for(http, get("/retry"), status=200, backend="web")
            assert (await wait_for(http, get("/status/503"), status=404)).status == 404
            assert web.requests == before + 1
            await wait_for(tcp, get("/over-tcp"), status=200, backend="web")
            assert set(web.names) == set(copy.names) == {"backend.test"}
            async with GrpcClient(http) as client:
                reply = await client.call(Call("/a.B/Echo", host="g.test"))
                assert (reply.code, reply.backend) == (OK, "calls")


async def _value(value: Any) -> Any:
    return value
