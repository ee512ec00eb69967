"""HTTPS before a real HAProxy: certificates by name, rotation without a reload, and the request's host."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gwctl.api.parse import parse_resource
from gwctl.api.secret import Secret
from gwctl.cli.main import main
from gwctl.cli.manifests import read_pipeline
from gwctl.cli.translate import LAYOUT, NOTHING
from gwctl.graph.certificate import PEM_LIMIT, read_certificate
from gwctl.haproxy.desired import Pools, build_state
from gwctl.haproxy.plan import diff
from gwctl.routing.request import Request
from tests.certificates import Pair, make_authority, make_odd_authority, make_pair, tls_secret
from tests.harness import DataPlane, EchoBackend, free_port
from tests.http1 import Connection
from tests.live.gateway import Gwctl
from tests.manifests import (
    CONTROLLER,
    Manifest,
    backend,
    endpoints,
    gateway,
    gateway_class,
    http_route,
    https_listener,
    prefix_rule,
    service,
)
from tests.tls import client_context, fetch_tls, shake_hands, wait_for_certificate

pytestmark = pytest.mark.usefixtures("no_key_in_logs")

WEB, OTHER, WILD = make_pair("web.test"), make_pair("other.test"), make_pair("*.wild.test", "x.y.wild.test")


@pytest.fixture
async def web() -> AsyncIterator[EchoBackend]:
    async with EchoBackend("web") as server:
        yield server


def read_secret(manifest: Manifest) -> Secret:
    resource = parse_resource(manifest).resource
    assert isinstance(resource, Secret)
    return resource


def base(web: EchoBackend, *listeners: Manifest) -> list[Manifest]:
    return [
        gateway_class(),
        gateway(list(listeners)),
        http_route("web", [prefix_rule("/", backend("web"))]),
        service("web"),
        *endpoints("web", [("127.0.0.1", web.port)]),
    ]


async def test_a_listener_serves_its_certificate_with_modern_tls_and_http2(
    dataplane: DataPlane, web: EchoBackend, tmp_path: Path
) -> None:
    port = free_port()
    manifests = [*base(web, https_listener("https", port, "web")), WEB.secret("web")]
    async with Gwctl(dataplane, tmp_path / "manifests", *manifests):
        for name in ("web.test", "any.other.test", ""):
            await wait_for_certificate(port, name, WEB.der)
        assert await dataplane.reloads() == 1
        response = await fetch_tls(port, "web.test", Request("GET", "web.test", "/hello"))
        assert response.status == 200
        assert response.json()["headers"]["x-forwarded-proto"] == ["https"]
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            done = await shake_hands(port, "web.test", client_context(newest=version, protocols=("h2", "http/1.1")))
            assert done is not None
            assert (done.version, done.protocol) == (version.name.replace("_", "."), "h2")
        done = await shake_hands(port, "web.test", client_context(protocols=("http/1.1",)))
        assert done is not None
        assert done.protocol == "http/1.1"
        weak = client_context(newest=ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0")
        assert await shake_hands(port, "web.test", weak) is None


async def test_each_name_is_shown_the_certificate_that_is_made_for_it(
    dataplane: DataPlane, web: EchoBackend, tmp_path: Path
) -> None:
    port = free_port()
    rsa = make_pair("web.test", algorithm="rsa")
    listeners = [
        https_listener("web", port, "web", "web-rsa", hostname="web.test"),
        https_listener("wild", port, "wild", hostname="*.wild.test"),
    ]
    secrets = [WEB.secret("web"), rsa.secret("web-rsa"), WILD.secret("wild")]
    deep = http_route("deep", [prefix_rule("/", backend("web"))], ("d.e.wild.test",))
    async with Gwctl(dataplane, tmp_path / "manifests", *base(web, *listeners), *secrets) as gwctl:
        await wait_for_certificate(port, "web.test", WEB.der)
        only_rsa = await shake_hands(
            port, "WEB.test", client_context(newest=ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-RSA-AES128-GCM-SHA256")
        )
        assert only_rsa is not None
        assert only_rsa.certificate == rsa.der
        for name in ("a.wild.test", "x.y.wild.test"):
            await wait_for_certificate(port, name, WILD.der)
        for name in ("wild.test", "d.e.wild.test", "web.test.other", "gwctl.invalid", ""):
            assert await shake_hands(port, name) is None
        await gwctl.apply("deep.yaml", [deep])
        await wait_for_certificate(port, "d.e.wild.test", WILD.der)
        assert await dataplane.reloads() == 1


async def test_no_listener_shows_its_certificate_to_the_name_of_another(
    dataplane: DataPlane, web: EchoBackend, tmp_path: Path
) -> None:
    port = free_port()
    rsa, ecdsa = make_pair("a.wild.test", algorithm="rsa"), make_pair("a.wild.test")
    hostnames = {"a": "a.wild.test", "gone": "gone.wild.test", "far": "far.test", "wild": "*.wild.test", "web": ""}
    listeners = [https_listener(name, port, name, hostname=hostname) for name, hostname in hostnames.items()]
    manifests = [*base(web, *listeners), WILD.secret("wild"), WEB.secret("web")]
    shown: set[bytes | None] = set()

    async def watch() -> None:
        while True:
            done = await shake_hands(port, "a.wild.test")
            shown.add(done.certificate if done is not None else None)

    async def check(pair: Pair | None) -> None:
        await wait_for_certificate(port, "a.wild.test", pair.der if pair is not None else None)
        for name in ("gone.wild.test", "far.test"):
            assert await shake_hands(port, name) is None
        for name, other in (("b.wild.test", WILD), ("any.test", WEB)):
            done = await shake_hands(port, name)
            assert done is not None
            assert done.certificate == other.der

    async with Gwctl(dataplane, tmp_path / "manifests", *manifests, rsa.secret("a")) as gwctl:
        await check(rsa)
        reloads = await dataplane.reloads()
        watching = asyncio.create_task(watch())
        for pair in (None, rsa, ecdsa, rsa, None, ecdsa, None, rsa):
            await gwctl.apply("manifests.yaml", [*manifests, *([pair.secret("a")] if pair is not None else [])])
            await check(pair)
        watching.cancel()
        await asyncio.wait([watching])
        assert shown <= {rsa.der, ecdsa.der, None}
        assert await dataplane.reloads() == reloads
        await wait_for_files(dataplane, rsa, WILD, WEB)
    await dataplane.restart_haproxy()
    await check(rsa)
    async with Gwctl(dataplane, tmp_path / "manifests", *manifests, rsa.secret("a")) as gwctl:
        assert await gwctl.operations("certificates") == {}


@pytest.mark.parametrize("tls_version", ["1.3", "1.2"])
async def test_a_request_for_the_host_of_another_listener_is_misdirected(
    dataplane: DataPlane, web: EchoBackend, tmp_path: Path, tls_version: str
) -> None:
    port = free_port()
    pair = make_pair("*.org", "*.wildcard.org")
    hostnames = {
        "any": "",
        "second": "second-example.org",
        "wildcard": "*.wildcard.org",
        "fourth": "fourth.wildcard.org",
    }
    listeners = [https_listener(name, port, "cert", hostname=hostname) for name, hostname in hostnames.items()]
    routes = [
        http_route(
            name,
            [prefix_rule(f"/{name}", backend("web"))],
            ("example.org",) if name == "any" else (),
            ({"name": "gateway", "sectionName": name},),
        )
        for name in hostnames
    ]
    manifests = [manifest for manifest in base(web, *listeners) if manifest["kind"] != "HTTPRoute"]
    async with Gwctl(dataplane, tmp_path / "manifests", *manifests, *routes, pair.secret("cert")):
        await wait_for_certificate(port, "example.org", pair.der)
        for name, host, path, status in (
            ("example.org", "example.org", "/any", 200),
            ("example.org", "second-example.org", "/second", 421),
            ("example.org", "unknown-example.org", "/any", 404),
            ("second-example.org", "second-example.org", "/second", 200),
            ("second-example.org", "Second-Example.ORG:443", "/second", 200),
            ("second-example.org", "example.org", "/any", 421),
            ("second-example.org", "unknown-example.org", "/any", 421),
            ("third.wildcard.org", "third.wildcard.org", "/wildcard", 200),
            ("third.wildcard.org", "fifth.wildcard.org", "/wildcard", 200),
            ("third.wildcard.org", "fourth.wildcard.org", "/fourth", 421),
            ("third.wildcard.org", "second-example.org", "/second", 421),
            ("third.wildcard.org", "unknown-example.org", "/any", 421),
            ("fourth.wildcard.org", "fourth.wildcard.org", "/fourth", 200),
            ("fourth.wildcard.org", "fifth.wildcard.org", "/wildcard", 421),
            ("unknown-example.org", "example.org", "/any", 200),
            ("unknown-example.org", "unknown-example.org", "/any", 404),
            ("", "example.org", "/any", 200),
            ("", "second-example.org", "/second", 421),
        ):
            newest = ssl.TLSVersion.TLSv1_3 if tls_version == "1.3" else ssl.TLSVersion.TLSv1_2
            async with Connection(port, tls=client_context(newest=newest), server_name=name) as connection:
                response = await connection.send(Request("GET", host, path))
                assert (name, host, response.status) == (name, host, status)


async def test_the_longest_certificate_that_is_not_refused_is_served(
    dataplane: DataPlane, web: EchoBackend, tmp_path: Path
) -> None:
    port = free_port()
    pair = make_pair("web.test", algorithm="rsa", issuer="i")
    chain = "".join(make_authority(f"authority {number}", issuer="r") for number in range(30))
    while isinstance(found := read_certificate(read_secret(tls_secret("s", pair.certificate + chain, pair.key))), str):
        chain = chain[: chain.rindex("-----BEGIN")]
    assert len(found.pem.reveal()) > PEM_LIMIT - 1_000
    long = tls_secret("web", pair.certificate + chain, pair.key)
    async with Gwctl(dataplane, tmp_path / "manifests", *base(web, https_listener("https", port, "web")), long):
        await wait_for_certificate(port, "web.test", pair.der)


async def test_a_new_certificate_is_shown_from_the_next_handshake_on_and_connections_go_on(
    dataplane: DataPlane, web: EchoBackend, tmp_path: Path
) -> None:
    port = free_port()
    pairs = [make_pair("web.test", serial=number) for number in range(1, 6)]
    request = Request("GET", "web.test", "/")
    async with Gwctl(dataplane, tmp_path / "manifests", *base(web, https_listener("https", port, "web"))) as gwctl:
        await gwctl.apply("secret.yaml", [pairs[0].secret("web")])
        await wait_for_certificate(port, "web.test", pairs[0].der)
        worker, reloads = await dataplane.worker(), await dataplane.reloads()
        async with Connection(port, tls=client_context(), server_name="web.test") as connection:
            for pair in pairs:
                if pair is not pairs[0]:
                    await gwctl.apply("secret.yaml", [pair.secret("web")])
                done = await shake_hands(port, "web.test")
                assert done is not None
                assert done.certificate == pair.der
                assert (await connection.send(request)).status == 200
                assert connection.certificate == pairs[0].der
        assert (await dataplane.worker(), await dataplane.reloads()) == (worker, reloads)
        held = [line for line in (await dataplane.runtime("show ssl cert")).split() if "gwctl-" in line]
        assert len(held) == 2  # the last one and the placeholder


async def test_a_secret_whose_certificate_is_the_same_causes_no_call(
    dataplane: DataPlane, web: EchoBackend, tmp_path: Path
) -> None:
    port = free_port()
    manifests = base(web, https_listener("https", port, "web", "again"))
    async with Gwctl(dataplane, tmp_path / "manifests", *manifests, WEB.secret("web")) as gwctl:
        await wait_for_certificate(port, "web.test", WEB.der)
        before = await gwctl.operations("certificates")
        assert before == {"AddCertificate": 1, "AddEntry": 1}
        # The same once more, and text around it that means nothing.
        noisy = {
            **WEB.secret("again"),
            "data": {},
            "stringData": {"tls.crt": f"x\n{WEB.certificate}", "tls.key": WEB.key},
        }
        await gwctl.apply("again.yaml", [noisy])
        assert await gwctl.operations("certificates") == before


async def test_a_secret_that_is_missing_or_wrong_takes_down_its_listener_alone(
    dataplane: DataPlane, web: EchoBackend, tmp_path: Path
) -> None:
    port = free_port()
    listeners = [
        https_listener("web", port, "web", hostname="web.test"),
        https_listener("other", port, "other", "none", hostname="other.test"),
    ]
    manifests = [*base(web, *listeners), OTHER.secret("other")]
    async with Gwctl(dataplane, tmp_path / "manifests", *manifests) as gwctl:
        await wait_for_certificate(port, "other.test", OTHER.der)
        assert await shake_hands(port, "web.test") is None
        reloads = await dataplane.reloads()
        await gwctl.apply("web.yaml", [WEB.secret("web")])
        assert (await fetch_tls(port, "web.test", Request("GET", "web.test", "/"))).status == 200
        broken = WEB.secret("web") | {"data": {}, "stringData": {"tls.crt": WEB.certificate, "tls.key": OTHER.key}}
        await gwctl.apply("web.yaml", [broken])
        assert await shake_hands(port, "web.test") is None
        assert (await fetch_tls(port, "other.test", Request("GET", "other.test", "/"))).status == 200
        await gwctl.apply("web.yaml", [WEB.secret("web")])
        await wait_for_certificate(port, "web.test", WEB.der)
        assert await dataplane.reloads() == reloads


async def test_a_haproxy_that_starts_anew_has_its_certificates_from_files(
    dataplane: DataPlane, web: EchoBackend, tmp_path: Path
) -> None:
    port = free_port()
    manifests = base(web, https_listener("https", port, "web", "wild"))
    async with Gwctl(dataplane, tmp_path / "manifests", *manifests, WEB.secret("web"), OTHER.secret("x")) as gwctl:
        await gwctl.apply("wild.yaml", [WILD.secret("wild")])
        await wait_for_certificate(port, "a.wild.test", WILD.der)
        renewed = make_pair("web.test", serial=2)
        await gwctl.apply("manifests.yaml", [*manifests, renewed.secret("web")])
        await wait_for_files(dataplane, renewed, WILD)
    await dataplane.restart_haproxy()
    assert await dataplane.reloads() == 0
    for name, pair in (("web.test", renewed), ("a.wild.test", WILD), ("", renewed)):
        done = await shake_hands(port, name)
        assert done is not None
        assert done.certificate == pair.der
    async with Gwctl(dataplane, tmp_path / "manifests", *manifests, renewed.secret("web")) as gwctl:
        assert await gwctl.operations("certificates") == {}
        assert await dataplane.reloads() == 0
        (gwctl.folder / "wild.yaml").unlink()
        await wait_for_certificate(port, "a.wild.test", renewed.der)


async def wait_for_files(dataplane: DataPlane, *pairs: Pair) -> None:
    """Wait until the files that HAProxy starts from hold these certificates and no others."""
    wanted = {pair.certificate for pair in pairs}
    async with asyncio.timeout(30):
        while True:
            files = {path.name: path.read_text(encoding="utf-8") for path in (dataplane.folder / "ssl").glob("gwctl-*")}
            lists = "".join(
                path.read_text(encoding="utf-8") for path in (dataplane.folder / "general").glob("*.crt-list")
            )
            held = {text[: text.index("-----BEGIN PRIVATE KEY")] for text in files.values()}
            if held == wanted and all(name in lists for name in files):
                return
            await asyncio.sleep(0.02)


async def test_a_certificate_that_haproxy_does_not_take_harms_no_other(
    dataplane: DataPlane, web: EchoBackend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    odd = make_pair("odd.test", issuer="odd")
    chained = tls_secret("odd", odd.certificate + make_odd_authority("odd"), odd.key)
    listeners = [
        https_listener("odd", port, "odd", hostname="odd.test"),
        https_listener("web", port, "web", hostname="web.test"),
    ]
    async with Gwctl(dataplane, tmp_path / "manifests", *base(web, *listeners), WEB.secret("web"), chained) as gwctl:
        await wait_for_certificate(port, "web.test", WEB.der)
        assert await shake_hands(port, "odd.test") is None
        (refusal,) = [record for record in caplog.records if record.__dict__.get("reason") == "CertificateRefused"]
        assert refusal.__dict__["object"] == "Secret default/odd"
        await gwctl.apply("manifests.yaml", [*base(web, *listeners), WEB.secret("web"), odd.secret("odd")])
        await wait_for_certificate(port, "odd.test", odd.der)


async def test_no_private_key_is_in_anything_that_anyone_can_read(
    dataplane: DataPlane,
    web: EchoBackend,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A key may be in the manifests, in HAProxy's memory and in the files that HAProxy starts from; nowhere else."""
    caplog.set_level(logging.DEBUG)
    port = free_port()
    odd = make_pair("odd.test", issuer="odd")
    rsa = make_pair("rsa.test", algorithm="rsa")
    secrets = [
        WEB.secret("web"),
        rsa.secret("rsa"),
        tls_secret("mixed", WEB.certificate, OTHER.key),
        tls_secret("odd", odd.certificate + make_odd_authority("odd"), odd.key),
        {**WILD.secret("opaque"), "type": "Opaque"},
    ]
    listener = https_listener("https", port, "web", "rsa", "mixed", "odd", "opaque")
    folder = tmp_path / "manifests"
    async with Gwctl(dataplane, folder, *base(web, listener), *secrets) as gwctl:
        await wait_for_certificate(port, "web.test", WEB.der)
        await gwctl.apply("secret.yaml", [make_pair("web.test", serial=2).secret("web")])
        (folder / "broken.yaml").write_text(
            f"kind: Secret\ntype: kubernetes.io/tls\ndata: {WEB.key}\n", encoding="utf-8"
        )
        await gwctl.wait_for_checkpoint()
        metrics = await gwctl.metrics()
        pipeline = read_pipeline(folder, CONTROLLER).pipeline
        plan = f"{diff(build_state(pipeline.routing, pipeline.tables, NOTHING, LAYOUT, Pools()).state, NOTHING)!r}"
    logged = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    written = {"logs": logged, "metrics": metrics, "plan": plan, "output": "".join(capfd.readouterr())}
    for command in ("validate", "translate", "explain"):
        arguments = ["GET", f"https://web.test:{port}/"] if command == "explain" else []
        for stage in ("graph", "routes", "haproxy") if command == "translate" else ("",):
            more = ["--to", stage] if stage else []
            result = CliRunner().invoke(main, [command, "-f", str(folder), *more, *arguments])
            written[f"{command} {stage}"] = result.output
    files = [path for path in dataplane.folder.rglob("*") if path.is_file() and folder not in path.parents]
    written |= {
        str(path): path.read_text(encoding="utf-8", errors="replace") for path in files if path.parent.name != "ssl"
    }
    lines = {
        line
        for pair in (WEB, OTHER, WILD, odd, rsa, make_pair("web.test", serial=2))
        for line in pair.key.splitlines()
        if not line.startswith("---")
    }
    assert len(lines) > 6
    for where, text in written.items():
        assert not [line for line in lines if line in text], f"a private key is in {where}"
    assert "CertificateRefused" in logged
    assert "gwctl_certificate_expiry_timestamp_seconds" in metrics
