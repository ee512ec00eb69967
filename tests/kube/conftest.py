"""A stand-in API server, and a client of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gwctl.kube.client import KubeClient
from tests.kube.apiserver import ApiServer


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Know of no cluster but the test's own."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    """A stand-in without objects."""
    async with ApiServer() as server:
        yield server


@pytest.fixture
async def client(server: ApiServer, tmp_path: Path) -> AsyncIterator[KubeClient]:
    """A client of the stand-in."""
    async with KubeClient(server.kubeconfig(tmp_path / "kubeconfig")) as client:
        yield client
