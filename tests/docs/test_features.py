"""The pages of docs/features: their examples are served by HAProxy, and every line of what they say happens.

A page has a YAML block with manifests and a text block with what happens: a request or a gRPC call, what reaches the
backend, and the answer. Words in the first ten columns say what a line is about; a line without them goes on with the
one above.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from gwctl.routing.request import Request
from tests.grpcecho import Call, GrpcClient, GrpcEcho, Reply
from tests.harness import DataPlane, EchoBackend, free_port
from tests.http1 import Response, fetch
from tests.live.gateway import Gwctl
from tests.manifests import Manifest, endpoints, gateway, gateway_class, listener, service

FEATURES = Path(__file__).parents[2] / "docs" / "features"
BACKEND_PAGES = [FEATURES / "backend-tls.md", FEATURES / "backend-client-certificate.md"]
TLS_PAGES = sorted({*FEATURES.glob("tls-*.md"), FEATURES / "listener-sets.md"})
PAGES = sorted({*FEATURES.glob("*.md")} - {*TLS_PAGES, *BACKEND_PAGES})
COLUMN = 10


@dataclass
class Example:
    """A request and what it leads to, in lines as the page has them; ``copies`` are what mirrors get."""

    request: Request | Call
    backend: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    copies: list[list[str]] = field(default_factory=list)


class Backend(EchoBackend):
    """A backend that keeps what has come in."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def note(self, reply: dict[str, Any]) -> None:
        """Keep a request."""
        self.received.put_nowait(reply)


def blocks(page: Path, language: str) -> list[str]:
    """Give a page's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def manifests_of(page: Path) -> list[Manifest]:
    """Give the manifests of a page."""
    return [manifest for block in blocks(page, "yaml") for manifest in yaml.safe_load_all(block)]


def examples_of(page: Path) -> Iterator[Example]:
    """Yield the examples of a page."""
    for text in "\n".join(blocks(page, "text")).strip().split("\n\n"):
        lines: dict[str, list[str]] = {}
        copies: list[list[str]] = []
        part: list[str] = []
        for line in text.splitlines():
            word = line[:COLUMN].strip()
            if word == "copy":
                copies.append(part := [])
            elif word:
                part = lines.setdefault(word, [])
            part.append(line[COLUMN:])
        assert lines.keys() <= {"request", "call", "with", "backend", "answer"}, lines
        headers = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines.get("with", ())))
        yield Example(_request(lines, headers), lines.get("backend", []), lines.get("answer", []), copies)


def _request(lines: dict[str, list[str]], headers: tuple[tuple[str, str], ...]) -> Request | Call:
    if "call" in lines:
        (first,) = lines["call"]
        host, slash, path = first.partition("/")
        return Call(slash + path, host, headers)
    (first,) = lines["request"]
    method, url = first.split()
    parts = urlsplit(url)
    return Request(method, parts.netloc, parts.path or "/", parts.query, headers)


def backends_of(page: Path) -> set[tuple[str, int]]:
    """Give the names and ports of the Services that a page speaks of: HTTP at port 80, gRPC at 9000."""
    found = re.findall(r"(?:\{|- )name: ([a-z0-9-]+)(?:, |\n +)port: (80|9000)\b", page.read_text())
    return {(name, int(port)) for name, port in found}


def differences(example: Example, response: Response) -> Iterator[str]:
    """Yield what of an example did not happen."""
    received = response.json() if response.status == 200 and response.body else None
    if example.backend:
        assert received is not None, f"no backend was asked: {response}"
        yield from _received(example.backend, received)
    if example.answer:
        first, *lines = example.answer
        if first != str(response.status):
            yield f"{response.status}, not {first}"
        yield from _missing(lines, {name: response.values(name) for name in response.headers})


def call_differences(example: Example, reply: Reply) -> Iterator[str]:
    """Yield what of an example did not happen, where it is a gRPC call."""
    first, *lines = example.answer
    if first != reply.code:
        yield f"{reply.code}, not {first}"
    yield from _missing(lines, {name: [str(value)] for name, value in reply.headers.items()})
    if example.backend:
        first, *lines = example.backend
        there = f"{reply.backend}: {reply.echo.get('path')}"
        if first != there:
            yield f"{there}, not {first}"
        yield from _missing(lines, reply.echo["metadata"])


def _received(wanted: list[str], received: dict[str, Any]) -> Iterator[str]:
    target = received["path"] + (f"?{received['query']}" if received["query"] else "")
    first, *lines = wanted
    if first != f"{received['name']}: {received['method']} {target}":
        yield f"{received['name']}: {received['method']} {target}, not {first}"
    yield from _missing(lines, received["headers"])


def _missing(lines: list[str], there: dict[str, list[str]]) -> Iterator[str]:
    wanted: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("no "):
            wanted[line[3:]] = []
        else:
            name, _, value = line.partition(": ")
            wanted.setdefault(name, []).append(value)
    for name, values in wanted.items():
        if not _fit(there.get(name, []), values):
            yield f"{name}: {there.get(name)}, not {values}"


def _fit(values: list[str], wanted: list[str]) -> bool:
    """Tell whether values are those wanted, where a … stands for any text."""
    patterns = [re.escape(value).replace("…", ".+") for value in wanted]
    return len(values) == len(wanted) and all(map(re.fullmatch, patterns, values))


async def test_what_the_pages_say_happens(dataplane: DataPlane, tmp_path: Path) -> None:
    assert PAGES
    port = free_port()
    base = [gateway_class(), gateway([listener("http", port)])]
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(GrpcClient(port))
        backends: dict[str, Backend] = {}
        for name, at in sorted({pair for page in PAGES for pair in backends_of(page)}):
            backend: GrpcEcho | Backend
            if at == 9000:
                backend = GrpcEcho(name)
            else:
                backend = backends[name] = Backend(name)
            await backend.__aenter__()
            stack.push_async_exit(backend.__aexit__)
            base += [service(name, at), *endpoints(name, [("127.0.0.1", backend.port)])]
        wrong = []
        async with Gwctl(dataplane, tmp_path / "manifests", *base) as gwctl:
            worker = await dataplane.worker()
            for page in PAGES:
                await gwctl.apply("page.yaml", manifests_of(page))
                examples = list(examples_of(page))
                assert examples, page
                for example in examples:
                    for mirror in backends.values():
                        mirror.received = asyncio.Queue()
                    if isinstance(example.request, Call):
                        found = list(call_differences(example, await client.call(example.request)))
                    else:
                        found = list(differences(example, await fetch(port, example.request)))
                    for copy in example.copies:
                        async with asyncio.timeout(10):
                            found += _received(copy, await backends[copy[0].partition(":")[0]].received.get())
                    wrong += [f"{page.name}: {example.request}: {text}" for text in found]
            assert await dataplane.worker() == worker, "HAProxy was reloaded"
    assert not wrong, "\n".join(wrong)
