"""The chart in a cluster: what users do with releases, while requests go on."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.install import CHART, helm, image_values
from tests.cluster.kubectl import Kubectl

WAIT_SECONDS = 120
CONTROLLER = "example.com/edge"
DELAY_SECONDS = 4
LONG_SECONDS = 60
"""How long connections may take to end when a pod does: much longer than any does here."""

VALUES = {
    "controllerName": CONTROLLER,
    "gatewayClass.name": "edge",
    "shutdownDelaySeconds": str(DELAY_SECONDS),
    "haproxy.hardStopAfterSeconds": str(LONG_SECONDS),
    "gwctl.httpSlots": "8",
    "gwctl.tcpSlots": "2",
}


@dataclass(frozen=True)
class Release:
    """A release `edge` in a namespace of its own."""

    cluster: Cluster
    kubectl: Kubectl
    namespace: str

    def install(self, **values: str) -> None:
        """Install it and wait until it is ready."""
        given = {**VALUES, **image_values(self.cluster), **values}
        settings = [f"--set={name}={value}" for name, value in given.items()]
        self.helm("install", "edge", str(CHART), "--wait", f"--timeout={WAIT_SECONDS}s", *settings)

    def helm(self, *arguments: str) -> str:
        return helm(self.cluster, *arguments, namespace=self.namespace)

    def pods(self) -> set[str]:
        """The pods that are there, those that end included."""
        found = self.kubectl.get("pods", f"--namespace={self.namespace}", "--selector=app.kubernetes.io/instance=edge")
        return {item["metadata"]["uid"] for item in found["items"]}


class Requests:
    """Requests to one address that go on until this is left, each on a connection of its own."""

    def __init__(self, address: str) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._address = (address, 80)
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(4)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        while not self._ended.wait(0.02):
            try:
                status = get(*self._address)
            except OSError as error:
                self.failures.append(repr(error))
            else:
                self.answered += 1
                if status != 200:
                    self.failures.append(f"status {status}")


def get(address: str, port: int = 80) -> int:
    """The status of an answer. Raises `OSError`."""
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request("GET", "/", headers={"Host": "shop.example"})
        response = connection.getresponse()
        response.read()
        return response.status
    except http.client.HTTPException as error:
        raise ConnectionError(repr(error)) from None
    finally:
        connection.close()


def until(question: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Ask a cluster until it answers yes."""
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def site(namespace: str, port: int) -> list[dict[str, Any]]:
    """A Gateway, a route and what it leads to."""
    labels = {"app": "shop"}
    echo = {
        "name": "echo",
        "image": "gwctl.test/echo-basic:test",
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "NAMESPACE", "value": namespace},
        ],
        "readinessProbe": {"tcpSocket": {"port": 3000}, "periodSeconds": 1},
    }
    group = "gateway.networking.k8s.io/v1"
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"namespace": namespace, "name": "shop"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [echo]}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": namespace, "name": "shop"},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 3000}]},
        },
        {
            "apiVersion": group,
            "kind": "Gateway",
            "metadata": {"namespace": namespace, "name": "gateway"},
            "spec": {"gatewayClassName": "edge", "listeners": [{"name": "http", "protocol": "HTTP", "port": port}]},
        },
        {
            "apiVersion": group,
            "kind": "HTTPRoute",
            "metadata": {"namespace": namespace, "name": "shop"},
            "spec": {
                "parentRefs": [{"name": "gateway"}],
                "hostnames": ["shop.example"],
                "rules": [{"backendRefs": [{"name": "shop", "port": 80}]}],
            },
        },
    ]


def open_site(kubectl: Kubectl, namespace: str, port: int = 80) -> str:
    """Make it, and give the Gateway's address when it is programmed and its backend answers."""
    kubectl.apply(*site(namespace, port))
    kubectl.run(
        "-n", namespace, "wait", "--for=condition=Programmed", "gateway/gateway", f"--timeout={WAIT_SECONDS}s"
    )  # fmt: skip
    gateway = kubectl.get("-n", namespace, "gateway", "gateway")
    address = str(gateway["status"]["addresses"][0]["value"])
    until(lambda: answers(address, port), f"{address}:{port} answers")
    return address


def answers(address: str, port: int) -> bool:
    try:
        return get(address, port) == 200
    except OSError:
        return False


@pytest.fixture
def edge(cluster: Cluster, kubectl: Kubectl, namespace: str) -> Iterator[Release]:
    """A release that is still to be installed, in a namespace that lets nothing in but what is restricted."""
    if not cluster.ours:
        pytest.skip("load balancers of this cluster cannot be reached from here")
    kubectl.run("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    release = Release(cluster, kubectl, namespace)
    yield release
    release.helm("uninstall", "edge", "--ignore-not-found", "--wait")


@pytest.fixture
def shop(kubectl: Kubectl, namespace: str) -> Iterator[str]:
    """A namespace for a site."""
    name = f"{namespace[:55]}-shop"
    kubectl.run("create", "namespace", name)
    yield name
    kubectl.run("delete", "namespace", name, "--wait=false")


def test_the_life_of_a_release(edge: Release, kubectl: Kubectl, shop: str) -> None:
    edge.install()
    address = open_site(kubectl, shop)
    services = kubectl.get("services", f"--namespace={edge.namespace}")["items"]
    update_under_load(
        edge, address, "upgrade", "edge", str(CHART), "--reset-then-reuse-values", "--set=gwctl.logLevel=debug"
    )
    update_under_load(edge, address, "rollback", "edge", "1")
    assert [
        (item["metadata"]["uid"], item["spec"]["ports"])
        for item in kubectl.get("services", f"--namespace={edge.namespace}")["items"]
    ] == [(item["metadata"]["uid"], item["spec"]["ports"]) for item in services]

    edge.helm("uninstall", "edge", "--wait")
    until(lambda: left_behind(kubectl, edge.namespace) == {"lease/edge-gwctl"}, "nothing but the Lease is left")
    assert kubectl.get("-n", shop, "gateway", "gateway")["metadata"].get("finalizers", []) == []


def update_under_load(edge: Release, address: str, *command: str) -> None:
    """Change a release while requests go on, and see that none fails and that old pods do not linger."""
    before = edge.pods()
    with Requests(address) as requests:
        edge.helm(*command, "--wait", f"--timeout={WAIT_SECONDS}s")
        until(lambda: not before & edge.pods(), "the old pods end", DELAY_SECONDS + LONG_SECONDS / 2)
    assert requests.failures == []
    assert requests.answered > 100


def left_behind(kubectl: Kubectl, namespace: str) -> set[str]:
    """What there is of a release and of what it has made."""
    found = set()
    kinds = (
        "deployments,pods,services,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets,secrets,leases"
    )
    for item in kubectl.get(kinds, f"--namespace={namespace}")["items"]:
        found.add(f"{item['kind'].lower()}/{item['metadata']['name']}")
    for item in kubectl.get("gatewayclasses,clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/instance=edge")[
        "items"
    ]:
        found.add(f"{item['kind'].lower()}/{item['metadata']['name']}")
    return found - {"configmap/kube-root-ca.crt", "serviceaccount/default"}


def test_only_some_namespaces(edge: Release, kubectl: Kubectl, shop: str) -> None:
    edge.install(namespaces=f"{{{shop}}}", replicas="1")
    elsewhere = site(edge.namespace, 80)[2]
    kubectl.apply(elsewhere)
    open_site(kubectl, shop)
    conditions = kubectl.get("-n", edge.namespace, "gateway", "gateway")["status"]["conditions"]
    assert {condition["status"] for condition in conditions} == {"Unknown"}
    log = kubectl.run("-n", edge.namespace, "logs", "deployment/edge-gwctl", "-c", "gwctl")
    assert "orbidden" not in log


def test_the_nodes_own_network(edge: Release, kubectl: Kubectl, shop: str) -> None:
    kubectl.run(
        "label", "--overwrite", "namespace", edge.namespace, "pod-security.kubernetes.io/enforce=privileged"
    )  # fmt: skip
    ports = {"gwctl.metricsPort": "9191", "haproxy.metricsPort": "8415"}
    edge.install(kind="DaemonSet", hostNetwork="true", privilegedPorts="true", **ports)
    (node,) = kubectl.get("nodes")["items"]
    assert open_site(kubectl, shop, 80) in {item["address"] for item in node["status"]["addresses"]}
    made = {item["metadata"]["name"] for item in kubectl.get("-n", edge.namespace, "services")["items"]}
    assert made == {"edge-gwctl-metrics", "edge-gwctl-addresses"}
