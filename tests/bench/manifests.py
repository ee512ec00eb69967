"""The benchmark's manifests as files: one for each route, as a person or a GitOps tool keeps them."""

from __future__ import annotations

from pathlib import Path

import yaml

from gwctl.routing.request import Request
from tests.manifests import (
    Manifest,
    backend,
    endpoints,
    gateway,
    gateway_class,
    http_route,
    listener,
    prefix_rule,
    service,
)

SERVICES = 20


class Manifests:
    """A folder of manifests. All routes have paths of their own; with ``one_host`` they share one host."""

    def __init__(self, folder: Path, port: int, backend_port: int, *, one_host: bool) -> None:
        self.folder = folder
        self._one_host = one_host
        folder.mkdir()
        fixed: list[Manifest] = [gateway_class(), gateway([listener("http", port)])]
        for number in range(SERVICES):
            fixed += [service(f"s{number}"), *endpoints(f"s{number}", [("127.0.0.1", backend_port)])]
        (folder / "fixed.yaml").write_text(yaml.safe_dump_all(fixed), encoding="utf-8")

    def text(self, number: int) -> str:
        """Give a route's manifest."""
        rules = [prefix_rule(f"/path-{number}", backend(f"s{number % SERVICES}"))]
        return yaml.safe_dump(http_route(f"r{number:05d}", rules, (self._host(number),)))

    def path(self, number: int) -> Path:
        """Give a route's file."""
        return self.folder / f"route-{number:05d}.yaml"

    def write(self, numbers: range) -> None:
        """Write many routes."""
        for number in numbers:
            self.path(number).write_text(self.text(number), encoding="utf-8")

    def request(self, number: int) -> Request:
        """Give a request that only this route takes."""
        return Request("GET", self._host(number), f"/path-{number}/x")

    def _host(self, number: int) -> str:
        return "shop.test" if self._one_host else f"h{number}.test"
