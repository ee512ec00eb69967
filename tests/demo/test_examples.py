"""The examples stand: no problem in any of them, HAProxy's own TCP example carries connections, that of gRPC calls."""

import asyncio
import shutil
from pathlib import Path

import pytest

from gwctl.cli.manifests import find_findings, read_pipeline
from tests.demo.__main__ import QUICKSTART
from tests.demo.command import Gwctl
from tests.grpcecho import OK, UNIMPLEMENTED, Call, GrpcClient, GrpcEcho
from tests.harness import DataPlane, TcpEcho, free_port

GRPC = QUICKSTART.parent / "grpc"
TCP = QUICKSTART.parent / "tcp"
TCP_CONTROLLER = "haproxy.org/gateway-controller"


@pytest.mark.parametrize(
    ("folder", "controller"),
    [
        (QUICKSTART, "gwctl.io/gateway-controller"),
        (GRPC, "gwctl.io/gateway-controller"),
        (TCP, TCP_CONTROLLER),
    ],
)
def test_an_example_has_no_problem(folder: Path, controller: str) -> None:
    result = read_pipeline(folder, controller)
    assert not find_findings(result)
    assert result.pipeline.tables.services


async def test_the_grpc_example_carries_calls(dataplane: DataPlane, tmp_path: Path) -> None:
    port = free_port()
    folder = Path(shutil.copytree(GRPC, tmp_path / "grpc"))
    servers = (GrpcEcho("cart"), GrpcEcho("cart-canary"), GrpcEcho("checkout"))
    ports = {"port: 8080\n": port, **{f"port: {50051 + index}\n": server.port for index, server in enumerate(servers)}}
    for file in folder.iterdir():
        text = file.read_text(encoding="utf-8")
        for old, new in ports.items():
            text = text.replace(old, f"port: {new}\n")
        file.write_text(text, encoding="utf-8")
    async with (
        servers[0],
        servers[1],
        servers[2],
        GrpcClient(port) as client,
        Gwctl(dataplane, folder, tmp_path / "gwctl.log") as gwctl,
    ):
        await gwctl.wait_until_ready()
        pay, canary = Call("/shop.Checkout/Pay", "shop.example"), (("version", "canary"),)
        assert (await client.until(pay, OK)).backend == "checkout"
        assert (await client.call(Call("/shop.Cart/Add", "shop.example", canary))).backend == "cart-canary"
        assert (await client.call(Call("/shop.Cart/Add", "shop.example"))).backend in ("cart", "cart-canary")
        assert (await client.call(Call("/shop.Checkout/Refund", "shop.example"))).code == UNIMPLEMENTED


async def test_haproxys_own_tcp_example_carries_connections(dataplane: DataPlane, tmp_path: Path) -> None:
    port = free_port()
    folder = Path(shutil.copytree(TCP, tmp_path / "tcp"))
    async with TcpEcho("http-echo") as backend:
        for name, old, new in (("gateway", 8000, port), ("service", 5678, backend.port)):
            file = folder / f"{name}.yaml"
            text = file.read_text(encoding="utf-8")
            assert text.count(f"port: {old}\n") == 1
            file.write_text(text.replace(f"port: {old}\n", f"port: {new}\n"), encoding="utf-8")
        flags = ("--gateway-controller-name", TCP_CONTROLLER)
        async with Gwctl(dataplane, folder, tmp_path / "gwctl.log", *flags) as gwctl:
            await gwctl.wait_until_ready()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.readline() == b"http-echo\n"
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
            writer.close()
            assert await dataplane.reloads() == 1
