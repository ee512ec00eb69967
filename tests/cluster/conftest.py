"""Fixtures of the tests that need a cluster; they are collected with `--cluster` only (`make cluster-test`)."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import install
from tests.cluster.__main__ import find_cluster
from tests.cluster.cluster import Cluster, stop
from tests.cluster.kubectl import Kubectl, find_kubectl
from tests.parts import PartError


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave all of this folder out where no cluster is asked for."""
    needs_cluster = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if needs_cluster and not config.getoption("--cluster") else None


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster; one that was started for this ends afterwards, but with KEEP=1."""
    stays = bool(os.environ.get("KEEP"))
    try:
        found, started = find_cluster(request.config.getoption("--channel"), stays=stays)
    except PartError as error:
        pytest.exit(str(error), returncode=1)
    yield found
    if started and not stays:
        stop()


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster) -> Kubectl:
    """kubectl for the cluster."""
    return find_kubectl(cluster.kubeconfig)


@pytest.fixture
def namespace(kubectl: Kubectl, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for one test, named after it."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-")
    kubectl.run("create", "namespace", name)
    yield name
    kubectl.run("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def release(cluster: Cluster) -> Cluster:
    """The cluster with gwctl in it, installed by its chart and ready."""
    install.install(cluster)
    return cluster
