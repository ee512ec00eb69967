"""The pages of docs/features that bring their own Gateway, at port 443: they say what connections and requests lead to.

``connect`` is a handshake with a name, ``with`` what the client shows, ``backend`` who greets, ``shown`` whose
certificate the client sees. A Service at port 443 does TLS itself, one at 5000 does not, and one at 80 speaks HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

from gwctl.routing.request import Request
from tests.certificates import Pair, make_authority, make_pair
from tests.docs.test_features import COLUMN, FEATURES, TLS_PAGES, blocks, manifests_of
from tests.harness import DataPlane, EchoBackend, TcpEcho, free_port
from tests.http1 import Connection
from tests.live.gateway import Gwctl
from tests.manifests import Manifest, config_map, endpoints, gateway_class, service
from tests.tls import client_context, greet, server_context, shake_hands


def examples_of(page: Path) -> Iterator[dict[str, str]]:
    """Yield the examples of a page: what each of its words says."""
    for text in "\n".join(blocks(page, "text")).strip().split("\n\n"):
        yield {line[:COLUMN].strip(): line[COLUMN:] for line in text.splitlines()}


def listeners_of(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield the listeners of a page's Gateways and ListenerSets, each with its namespace."""
    for manifest in manifests:
        if manifest["kind"] in ("Gateway", "ListenerSet"):
            for listener in manifest["spec"]["listeners"]:
                yield namespace_of(manifest), listener


def namespace_of(manifest: Manifest) -> str:
    return str(manifest["metadata"].get("namespace", "default"))


def secrets_of(manifests: list[Manifest]) -> Mapping[str, tuple[str, Pair]]:
    """Give a certificate for each Secret that a listener names, made for the listener's hostname, and its namespace."""
    return {
        reference["name"]: (namespace, make_pair(listener["hostname"]))
        for namespace, listener in listeners_of(manifests)
        for reference in listener.get("tls", {}).get("certificateRefs", ())
    }


def services_of(manifests: list[Manifest]) -> Mapping[tuple[str, int], str]:
    """Give the namespace of each Service, by name and port, that a route names."""
    return {
        (reference["name"], reference["port"]): namespace_of(manifest)
        for manifest in manifests
        if manifest["kind"].endswith("Route")
        for rule in manifest["spec"]["rules"]
        for reference in rule["backendRefs"]
    }


def at_free_ports(manifests: list[Manifest]) -> Mapping[int, int]:
    """Let the Gateways listen on free ports, which are given by those of the page."""
    ports: dict[int, int] = {}
    gateways = (manifest["spec"] for manifest in manifests if manifest["kind"] == "Gateway")
    per_port = [item for spec in gateways for item in spec.get("tls", {}).get("frontend", {}).get("perPort", ())]
    for item in (*(listener for _, listener in listeners_of(manifests)), *per_port):
        if item["port"] not in ports:
            ports[item["port"]] = free_port()
        item["port"] = ports[item["port"]]
    return ports


def config_maps_of(manifests: list[Manifest]) -> list[Manifest]:
    """Give the ConfigMaps that Gateways refer to, with authorities that are called as they are."""
    frontends = [item["spec"]["tls"]["frontend"] for item in manifests if "tls" in item["spec"]]
    settings = [part for item in frontends for part in (item["default"], *(port["tls"] for port in item["perPort"]))]
    references = [ref for item in settings if item for ref in item["validation"]["caCertificateRefs"]]
    return [config_map(name, make_authority(name)) for name in sorted({ref["name"] for ref in references})]


async def what_happens(
    example: Mapping[str, str], ports: Mapping[int, int], certificates: Mapping[str, Pair]
) -> dict[str, str]:
    """Connect as an example does; say what then happened in the words of a page."""
    issuer = example.get("with", "").removeprefix("a certificate of ")
    shown = make_pair("client", issuer=issuer) if issuer else None
    if "request" in example:
        method, url = example["request"].split()
        parts = urlsplit(url)
        host, port = parts.hostname or "", ports[parts.port or 443]
        try:
            async with Connection(port, tls=client_context(shown=shown), server_name=host) as connection:
                received = (await connection.send(Request(method, host, parts.path or "/"))).json()
            done = await shake_hands(port, host, client_context(shown=shown))
        except (OSError, EOFError):
            return {"answer": "closed"}
        assert done is not None
        backend = f"{received['name']}: {received['method']} {received['path']}"
        return {"backend": backend, "shown": describe(done.certificate, certificates)}
    found = await greet(ports[443], example["connect"])
    if found is None:
        return {"answer": "closed"}
    backend, der = found
    return {"backend": backend, "shown": describe(der, certificates)}


def describe(der: bytes, certificates: Mapping[str, Pair]) -> str:
    """Say whose certificate a client has seen."""
    return f"the certificate of {next((name for name, pair in certificates.items() if pair.der == der), 'nobody')}"


async def test_what_the_pages_say_happens(dataplane: DataPlane, tmp_path: Path) -> None:
    assert TLS_PAGES
    for page in TLS_PAGES:
        manifests = manifests_of(page)
        manifests += config_maps_of(manifests)
        ports = at_free_ports(manifests)
        pairs = secrets_of(manifests)
        certificates = {f"Secret {name}": pair for name, (_, pair) in pairs.items()}
        services = services_of(manifests)
        manifests += [gateway_class(), *(pair.secret(name, namespace) for name, (namespace, pair) in pairs.items())]
        async with AsyncExitStack() as stack:
            for (name, at), namespace in services.items():
                pair = certificates[f"Service {name}"] = make_pair(f"{name}.internal")
                tls = server_context(pair, tmp_path) if at == 443 else None
                server: EchoBackend | TcpEcho = EchoBackend(name) if at == 80 else TcpEcho(name, tls=tls)
                await server.__aenter__()
                stack.push_async_exit(server.__aexit__)
                manifests.append(service(name, at, namespace))
                manifests += endpoints(name, [("127.0.0.1", server.port)], namespace)
            await stack.enter_async_context(Gwctl(dataplane, tmp_path / page.stem, *manifests))
            for example in examples_of(page):
                wanted = {word: said for word, said in example.items() if word in ("backend", "shown", "answer")}
                assert wanted, example
                found = await what_happens(example, ports, certificates)
                said = {word: found.get(word) for word in wanted}
                assert said == wanted, f"{page.relative_to(FEATURES)}: {example}: {found}"
