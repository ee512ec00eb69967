"""The pages of docs/features about TLS: they bring their own Gateway, and say what connections lead to.

``connect`` is a handshake with a name, ``backend`` who greets, ``shown`` whose certificate the client sees. A Service
at port 443 does TLS itself, one at port 5000 does not, and one at port 80 speaks HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

from gwctl.routing.request import Request
from tests.certificates import Pair, make_pair
from tests.docs.test_features import COLUMN, FEATURES, TLS_PAGES, blocks, manifests_of
from tests.harness import DataPlane, EchoBackend, TcpEcho, free_port
from tests.live.gateway import Gwctl
from tests.manifests import Manifest, endpoints, gateway_class, service
from tests.tls import fetch_tls, greet, server_context


def examples_of(page: Path) -> Iterator[dict[str, str]]:
    """Yield the examples of a page: what each of its words says."""
    for text in "\n".join(blocks(page, "text")).strip().split("\n\n"):
        yield {line[:COLUMN].strip(): line[COLUMN:] for line in text.splitlines()}


def secrets_of(manifests: list[Manifest]) -> Mapping[str, Pair]:
    """Give a certificate for each Secret that a listener names, made for the listener's hostname."""
    return {
        reference["name"]: make_pair(listener["hostname"])
        for manifest in manifests
        if manifest["kind"] == "Gateway"
        for listener in manifest["spec"]["listeners"]
        for reference in listener.get("tls", {}).get("certificateRefs", ())
    }


def at_free_ports(manifests: list[Manifest]) -> Mapping[int, int]:
    """Let the Gateways listen on free ports, which are given by those of the page."""
    ports: dict[int, int] = {}
    for manifest in manifests:
        for listener in manifest["spec"]["listeners"] if manifest["kind"] == "Gateway" else ():
            listener["port"] = ports.setdefault(listener["port"], free_port())
    return ports


async def what_happens(example: Mapping[str, str], port: int, certificates: Mapping[str, Pair]) -> dict[str, str]:
    """Connect as an example does; say what then happened in the words of a page."""
    if "request" in example:
        method, url = example["request"].split()
        parts = urlsplit(url)
        response = await fetch_tls(port, parts.netloc, Request(method, parts.netloc, parts.path or "/"))
        received = response.json()
        return {"backend": f"{received['name']}: {received['method']} {received['path']}"}
    found = await greet(port, example["connect"])
    if found is None:
        return {"answer": "closed"}
    backend, der = found
    shown = next((name for name, pair in certificates.items() if pair.der == der), "nobody")
    return {"backend": backend, "shown": f"the certificate of {shown}"}


async def test_what_the_pages_say_happens(dataplane: DataPlane, tmp_path: Path) -> None:
    assert TLS_PAGES
    for page in TLS_PAGES:
        manifests = manifests_of(page)
        port = at_free_ports(manifests)[443]
        pairs = secrets_of(manifests)
        certificates = {f"Secret {name}": pair for name, pair in pairs.items()}
        manifests += [gateway_class(), *(pair.secret(name) for name, pair in pairs.items())]
        async with AsyncExitStack() as stack:
            for name, at in set(re.findall(r"\{name: ([a-z0-9-]+), port: (80|443|5000)\}", page.read_text())):
                pair = certificates[f"Service {name}"] = make_pair(f"{name}.internal")
                tls = server_context(pair, tmp_path) if at == "443" else None
                server: EchoBackend | TcpEcho = EchoBackend(name) if at == "80" else TcpEcho(name, tls=tls)
                await server.__aenter__()
                stack.push_async_exit(server.__aexit__)
                manifests += [service(name, int(at)), *endpoints(name, [("127.0.0.1", server.port)])]
            await stack.enter_async_context(Gwctl(dataplane, tmp_path / page.stem, *manifests))
            for example in examples_of(page):
                wanted = {word: said for word, said in example.items() if word in ("backend", "shown", "answer")}
                assert wanted, example
                found = await what_happens(example, port, certificates)
                assert found == wanted, f"{page.relative_to(FEATURES)}: {example}: {found}"
