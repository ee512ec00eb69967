"""Fixtures that need the machine: HAProxy, a Data Plane API, and the options that choose among them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness import DataPlane
from tests.parts import Part, PartError, find_dataplaneapi, find_haproxy


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gwctl")
    group.addoption(
        "--dataplane",
        choices=("any", "real", "standin"),
        default="any",
        help="the Data Plane API to test with (any: the real one where there is one, else the stand-in)",
    )
    group.addoption(
        "--kubeconfig", help="test with the API server of this kubeconfig too (it needs the Gateway API's CRDs)"
    )
    group.addoption("--cluster", action="store_true", help="also run the tests that need a Kubernetes (tests/cluster)")
    group.addoption(
        "--channel",
        choices=("standard", "experimental"),
        default="standard",
        help="which of the Gateway API's CRDs a cluster that is started has",
    )
    group.addoption("--update-golden", action="store_true", help="rewrite the expected files of golden tests")


@pytest.fixture(scope="session")
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden tests write their expected files instead of comparing with them."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def haproxy() -> Path:
    """HAProxy's program."""
    try:
        return find_haproxy()
    except PartError as error:
        pytest.exit(str(error), returncode=1)


@pytest.fixture(scope="session")
def dataplaneapi(request: pytest.FixtureRequest) -> Part:
    """The Data Plane API that `--dataplane` asks for."""
    try:
        return find_dataplaneapi(request.config.getoption("--dataplane"))
    except PartError as error:
        pytest.exit(str(error), returncode=1)


@pytest.fixture
async def dataplane(haproxy: Path, dataplaneapi: Part, tmp_path: Path) -> AsyncIterator[DataPlane]:
    """A fresh HAProxy with a Data Plane API, its files and logs in `tmp_path`."""
    async with DataPlane(tmp_path, haproxy=haproxy, api=dataplaneapi) as running:
        yield running
