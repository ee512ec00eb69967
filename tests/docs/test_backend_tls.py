"""The pages of docs/features about TLS to backends: their examples are served by HAProxy.

A Service at port 443 has a backend with TLS, whose certificate is made for ``NAME.internal``; the ConfigMap
``backends`` trusts it. ``asked`` is the name in the handshake, ``shown`` the certificate that the backend saw.
"""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from pathlib import Path

from gwctl.routing.request import Request
from tests.certificates import make_authority, make_pair
from tests.docs.test_features import BACKEND_PAGES, blocks, manifests_of
from tests.docs.test_tls import at_free_ports, examples_of
from tests.harness import DataPlane
from tests.http1 import fetch
from tests.live.gateway import Gwctl
from tests.manifests import config_map, endpoints, gateway, gateway_class, listener, service
from tests.tls import TlsBackend

EDGE = make_pair("edge", issuer="clients")


async def test_what_the_pages_say_happens(dataplane: DataPlane, tmp_path: Path) -> None:
    assert BACKEND_PAGES
    for page in BACKEND_PAGES:
        manifests = manifests_of(page)
        if all(manifest["kind"] != "Gateway" for manifest in manifests):
            manifests.append(gateway([listener("http", 80)]))
        port = at_free_ports(manifests)[80]
        manifests += [gateway_class(), config_map("backends", make_authority("root")), EDGE.secret("edge")]
        async with AsyncExitStack() as stack:
            backends: dict[str, TlsBackend] = {}
            for name in sorted(set(re.findall(r"\{name: ([a-z0-9-]+), port: 443\}", page.read_text()))):
                pair = make_pair(f"{name}.internal", issuer="root")
                authority = make_authority("clients") if "shown" in "".join(blocks(page, "text")) else ""
                backends[name] = await stack.enter_async_context(TlsBackend(name, pair, authority=authority))
                manifests += [service(name, 443), *endpoints(name, [("127.0.0.1", backends[name].port)])]
            await stack.enter_async_context(Gwctl(dataplane, tmp_path / page.stem, *manifests))
            for example in examples_of(page):
                method, url = example["request"].split()
                host, _, path = url.removeprefix("http://").partition("/")
                response = await fetch(port, Request(method, host, f"/{path}"))
                found = {"answer": str(response.status)}
                backend = backends[path]
                if response.status == 200:
                    found["backend"] = f"{response.json()['name']}: {method} {response.json()['path']}"
                if "asked" in example:
                    found["asked"] = f"for {backend.names[-1]}"
                if "shown" in example:
                    assert backend.last.getpeercert(binary_form=True) == EDGE.der
                    found["shown"] = "the certificate of Secret edge"
                assert found == {word: said for word, said in example.items() if word != "request"}
