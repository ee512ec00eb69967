"""The pages of docs/features: their examples are served by HAProxy, and every line of what they say happens.

A page has a YAML block with manifests and a text block with what happens: a request, what reaches the backend, and the
answer. Words in the first ten columns say what a line is about; a line without them goes on with the one above.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from gwctl.routing.request import Request
from tests.harness import DataPlane, EchoBackend, free_port
from tests.http1 import Response, fetch
from tests.live.gateway import Gwctl
from tests.manifests import Manifest, endpoints, gateway, gateway_class, listener, service

FEATURES = Path(__file__).parents[2] / "docs" / "features"
PAGES = sorted(FEATURES.glob("*.md"))
COLUMN = 10


@dataclass
class Example:
    """A request and what it leads to; ``backend`` and ``answer`` hold the lines as the page has them."""

    request: Request
    backend: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)


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
        word = ""
        for line in text.splitlines():
            word = line[:COLUMN].strip() or word
            lines.setdefault(word, []).append(line[COLUMN:])
        assert lines.keys() <= {"request", "with", "backend", "answer"}, lines
        (first,) = lines["request"]
        method, url = first.split()
        parts = urlsplit(url)
        headers = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines.get("with", ())))
        request = Request(method, parts.netloc, parts.path or "/", parts.query, headers)
        yield Example(request, lines.get("backend", []), lines.get("answer", []))


def backends_of(page: Path) -> set[str]:
    """Give the names of the Services that a page speaks of."""
    return set(re.findall(r"\{name: ([a-z0-9-]+), port: 80\b|- name: ([a-z0-9-]+)\n +port: 80\b", page.read_text()))


def differences(example: Example, response: Response) -> Iterator[str]:
    """Yield what of an example did not happen."""
    received = response.json() if response.status == 200 and response.body else None
    if example.backend:
        assert received is not None, f"no backend was asked: {response}"
        target = received["path"] + (f"?{received['query']}" if received["query"] else "")
        first, *lines = example.backend
        if first != f"{received['name']}: {received['method']} {target}":
            yield f"{received['name']}: {received['method']} {target}, not {first}"
        yield from _missing(lines, received["headers"])
    if example.answer:
        first, *lines = example.answer
        if first != str(response.status):
            yield f"{response.status}, not {first}"
        yield from _missing(lines, {name: response.values(name) for name in response.headers})


def _missing(lines: list[str], there: dict[str, list[str]]) -> Iterator[str]:
    wanted: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("no "):
            wanted[line[3:]] = []
        else:
            name, _, value = line.partition(": ")
            wanted.setdefault(name, []).append(value)
    for name, values in wanted.items():
        if there.get(name, []) != values:
            yield f"{name}: {there.get(name)}, not {values}"


async def test_what_the_pages_say_happens(dataplane: DataPlane, tmp_path: Path) -> None:
    assert PAGES
    port = free_port()
    names = sorted({name for page in PAGES for pair in backends_of(page) for name in pair if name})
    backends = {name: EchoBackend(name) for name in names}
    base = [gateway_class(), gateway([listener("http", port)])]
    try:
        for name, backend in backends.items():
            await backend.start()
            base += [service(name), *endpoints(name, [("127.0.0.1", backend.port)])]
        wrong = []
        async with Gwctl(dataplane, tmp_path / "manifests", *base) as gwctl:
            worker = await dataplane.worker()
            for page in PAGES:
                await gwctl.apply("page.yaml", manifests_of(page))
                examples = list(examples_of(page))
                assert examples, page
                for example in examples:
                    response = await fetch(port, example.request)
                    wrong += [f"{page.name}: {example.request}: {text}" for text in differences(example, response)]
            assert await dataplane.worker() == worker, "HAProxy was reloaded"
    finally:
        for backend in backends.values():
            await backend.stop()
    assert not wrong, "\n".join(wrong)
