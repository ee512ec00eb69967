"""The walking skeleton: one HTTPRoute from a file through every layer to a real response."""

from pathlib import Path

from gwctl.routing.request import Request
from tests.harness import DataPlane, EchoBackend, free_port
from tests.live.gateway import Gwctl, wait_for
from tests.manifests import (
    backend,
    endpoints,
    gateway,
    gateway_class,
    http_route,
    listener,
    prefix_rule,
    service,
)


async def test_a_route_from_a_file_reaches_its_backend_with_one_reload(dataplane: DataPlane, tmp_path: Path) -> None:
    port = free_port()
    async with EchoBackend("web") as web:
        manifests = [
            gateway_class(),
            gateway([listener("http", port)]),
            http_route("web", [prefix_rule("/", backend("web"))], ("web.test",)),
            service("web"),
            *endpoints("web", [("127.0.0.1", web.port)]),
        ]
        async with Gwctl(dataplane, tmp_path / "manifests", *manifests):
            response = await wait_for(port, Request("GET", "web.test", "/hello"), status=200, backend="web")
            assert response.json()["path"] == "/hello"
            assert (await wait_for(port, Request("GET", "other.test", "/"), status=404)).status == 404
            assert await dataplane.reloads() == 1
