"""What clients see while parts of gwctl end, by plan or by accident: two replicas, a Gateway and a constant load.

Containers are killed from the node, which only the cluster that the tests start lets them do.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gwctl.routing.request import Request
from tests.cluster import install
from tests.cluster.cluster import Cluster
from tests.cluster.install import GATEWAY_CLASS, NAMESPACE
from tests.cluster.kubectl import Kubectl
from tests.live.load import Load
from tests.parts import PartError

ECHO_IMAGE = "registry.k8s.io/gateway-api/echo-basic:v1.5.1"
WAIT_SECONDS = 120.0
PODS = ("--namespace", NAMESPACE, "--selector", "app.kubernetes.io/name=gwctl")


@pytest.fixture(scope="module")
def two_replicas(cluster: Cluster) -> Iterator[Cluster]:
    if not cluster.ours:
        pytest.skip("processes of pods can only be killed in the tests' own cluster")
    install.install(cluster, {"replicas": "2", "shutdownDelaySeconds": "10"})
    yield cluster
    install.install(cluster)


def backend(name: str, image: str) -> list[dict[str, Any]]:
    labels = {"app": name}
    variables = [
        {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for variable, path in (("POD_NAME", "metadata.name"), ("NAMESPACE", "metadata.namespace"))
    ]
    container = {
        "name": "echo",
        "image": image,
        "env": variables,
        "readinessProbe": {"httpGet": {"path": "/", "port": 3000}, "timeoutSeconds": 10, "failureThreshold": 10},
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
    }
    spec = {
        "replicas": 2,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
    }
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 3000}]},
        },
    ]


def until(what: str, holds: Callable[[], object]) -> Any:
    """Wait until something holds, and give it."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not in {WAIT_SECONDS} s: {what}")


@pytest.fixture
def address(two_replicas: Cluster, kubectl: Kubectl, namespace: str) -> str:
    """The address of a Gateway that leads to a backend of two pods."""
    assert two_replicas.ours
    until("two replicas and no others", lambda: all_ready(kubectl))
    gateway = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "gateway"},
        "spec": {
            "gatewayClassName": GATEWAY_CLASS,
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    }
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web"},
        "spec": {"parentRefs": [{"name": "gateway"}], "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]},
    }
    for manifest in (gateway, route, *backend("web", ECHO_IMAGE)):
        manifest["metadata"]["namespace"] = namespace
        kubectl.apply(manifest)
    kubectl.run("rollout", "status", "deployment/web", f"--namespace={namespace}", "--timeout=90s")
    kubectl.run("wait", "gateway/gateway", f"--namespace={namespace}", "--for=condition=Programmed", "--timeout=90s")
    found = kubectl.get("gateway", "gateway", f"--namespace={namespace}")
    address = str(found["status"]["addresses"][0]["value"])
    until("both replicas serve", lambda: all(answers(address).status == 200 for _ in range(20)))
    return address


def answers(address: str) -> http.client.HTTPResponse:
    """Send a request on a connection of its own, which leads to either replica."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", "/", headers={"host": "life.test"})
        return connection.getresponse()
    finally:
        connection.close()


@asynccontextmanager
async def under_load(address: str) -> AsyncIterator[Load]:
    """A load on kept-alive connections; ``failures`` tells what clients saw."""
    request = Request("GET", "life.test", "/")
    async with Load(80, request, lambda response: response.status == 200, connections=8, host=address) as load:
        await load.wait_for(50)
        yield load
        await load.wait_for(200)


def processes(marker: str) -> list[int]:
    """The processes whose command line has this in it, the oldest first, without those that one of them started."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                status = dict(
                    line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line
                )
            except OSError:
                continue
            if marker in command:
                parents[int(folder.name)] = int(status["PPid"])
    return sorted(process for process, parent in parents.items() if parent not in parents)


def restarts(kubectl: Kubectl, container: str) -> int:
    pods = kubectl.get("pods", *PODS)["items"]
    return sum(
        status["restartCount"]
        for pod in pods
        for status in pod["status"].get("containerStatuses", ())
        if status["name"] == container
    )


def all_ready(kubectl: Kubectl) -> bool:
    pods = kubectl.get("pods", *PODS)["items"]
    return len(pods) == 2 and all(
        condition["status"] == "True"
        for pod in pods
        for condition in pod["status"].get("conditions", ())
        if condition["type"] == "Ready"
    )


@pytest.mark.parametrize(
    ("container", "marker"),
    [("gwctl", "-m gwctl run"), ("dataplane", "dataplaneapi -f /var/lib/gwctl/dataplaneapi.yaml")],
)
async def test_a_part_that_steers_is_killed_and_clients_see_nothing(
    address: str, kubectl: Kubectl, container: str, marker: str
) -> None:
    before = restarts(kubectl, container)
    async with under_load(address) as load:
        victims = processes(marker)
        assert victims, f"no process {marker}"
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(until, "restarted", lambda: restarts(kubectl, container) == before + len(victims))
        await asyncio.to_thread(until, "ready again", lambda: all_ready(kubectl))
    assert load.failures == []


async def test_a_haproxy_that_is_killed_serves_everything_at_once_when_it_is_back(
    address: str, kubectl: Kubectl
) -> None:
    before = restarts(kubectl, "haproxy")
    async with under_load(address) as load:
        victim = processes("-S /var/run/gwctl/master.sock")[0]
        os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(until, "restarted", lambda: restarts(kubectl, "haproxy") == before + 1)
        await asyncio.to_thread(until, "ready again", lambda: all_ready(kubectl))
    # Connections to the one that died break; no answer is ever a wrong one.
    assert [failure for failure in load.failures if failure[:3].isdigit()] == []


async def test_a_rollout_fails_no_request(address: str, kubectl: Kubectl) -> None:
    async with under_load(address) as load:
        await asyncio.to_thread(kubectl.run, "rollout", "restart", "deployment/gwctl", f"--namespace={NAMESPACE}")
        await asyncio.to_thread(
            kubectl.run, "rollout", "status", "deployment/gwctl", f"--namespace={NAMESPACE}", "--timeout=180s"
        )
    # A kept-alive connection is closed between two requests, never in one.
    assert load.failures == []


async def test_a_rollout_of_the_backend_fails_no_request(address: str, kubectl: Kubectl, namespace: str) -> None:
    async with under_load(address) as load:
        await asyncio.to_thread(kubectl.run, "rollout", "restart", "deployment/web", f"--namespace={namespace}")
        await asyncio.to_thread(
            kubectl.run, "rollout", "status", "deployment/web", f"--namespace={namespace}", "--timeout=120s"
        )
    assert load.failures == []
    assert len(load.answers) > 2


async def test_the_api_server_is_killed_and_clients_see_nothing(address: str, kubectl: Kubectl, namespace: str) -> None:
    def is_there() -> bool:
        try:
            return kubectl.run("get", "--raw", "/readyz").strip() == "ok"
        except PartError:
            return False

    before = restarts(kubectl, "gwctl")
    async with under_load(address) as load:
        (victim,) = processes("kube-apiserver --etcd-servers")
        os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(until, "another process", lambda: victim not in processes("kube-apiserver --etcd"))
        await asyncio.to_thread(until, "the API server answers again", is_there)
        filters = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "a", "value": "b"}]}}]
        rule = {"filters": filters, "backendRefs": [{"name": "web", "port": 80}]}
        route = kubectl.get("httproute", "web", f"--namespace={namespace}")
        route["spec"]["rules"] = [rule]
        kubectl.apply({key: route[key] for key in ("apiVersion", "kind", "metadata", "spec")})

        def is_changed() -> bool:
            return all(answers(address).headers.get("a") == "b" for _ in range(20))

        await asyncio.to_thread(until, "a change made afterwards is served", is_changed)
        await asyncio.to_thread(until, "ready", lambda: all_ready(kubectl))
    assert load.failures == []
    assert restarts(kubectl, "gwctl") == before


async def test_the_leader_is_killed_and_another_writes_on(address: str, kubectl: Kubectl, namespace: str) -> None:
    def leader() -> str:
        return str(kubectl.get("lease", "gwctl", f"--namespace={NAMESPACE}")["spec"].get("holderIdentity", ""))

    before = leader()
    async with under_load(address) as load:
        command = ("delete", "pod", before, f"--namespace={NAMESPACE}", "--grace-period=0", "--force")
        await asyncio.to_thread(kubectl.run, *command)
        await asyncio.to_thread(until, "another leads", lambda: leader() not in ("", before))
        route = kubectl.get("httproute", "web", f"--namespace={namespace}")
        route["spec"]["rules"][0]["backendRefs"].append({"name": "missing", "port": 80, "weight": 0})
        kubectl.apply({key: route[key] for key in ("apiVersion", "kind", "metadata", "spec")})

        def is_told() -> bool:
            text = json.dumps(kubectl.get("httproute", "web", f"--namespace={namespace}")["status"])
            return "BackendNotFound" in text

        await asyncio.to_thread(until, "the new leader tells of the route", is_told)
        await asyncio.to_thread(until, "ready again", lambda: all_ready(kubectl))
    assert [failure for failure in load.failures if failure[:3].isdigit()] == []
