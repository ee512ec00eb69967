"""A stand-in API server, and a client of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gwctl.kube.client import KubeClient
from tests.kube.apiserver import ApiServer


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiServer]:
    """A stand-in without objects."""
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    monkeypatch.delenv("http_proxy", raising=False)
    async with ApiServer() as server:
        yield server


@pytest.fixture
async def client(server: ApiServer, tmp_path: Path) -> AsyncIterator[KubeClient]:
    """A client of the stand-in."""
    async with KubeClient(server.kubeconfig(tmp_path / "kubeconfig")) as client:
        yield client
