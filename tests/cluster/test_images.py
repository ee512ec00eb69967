"""The images as a pod has them: an unprivileged user, a read-only root file system, no capabilities."""

import json
import socket
import time
from collections.abc import Callable, Sequence

import pytest

from gwctl import __version__
from tests.cluster.cluster import Cluster
from tests.cluster.install import image_names
from tests.cluster.kubectl import Kubectl

ASK_API = """
import httpx, pathlib
client = httpx.Client(transport=httpx.HTTPTransport(uds="/var/run/gwctl/dataplane.sock"), base_url="http://api/v3",
                      auth=("admin", pathlib.Path("/var/lib/gwctl/password").read_text()))
print(client.get("/services/haproxy/runtime/info").text)
"""
LOOK_AROUND = """
import importlib.util, json, os, pathlib, shutil
def writes(path):
    try:
        pathlib.Path(path).touch()
    except OSError:
        return False
    return True
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "writes": [path for path in ("/x", "/tmp/x", "/opt/gwctl/x") if writes(path)],
    "tools": [tool for tool in ("pip", "pip3", "gcc", "cc") if shutil.which(tool)],
    "modules": [name for name in ("pip", "ensurepip", "setuptools") if importlib.util.find_spec(name)],
}))
"""
SHARED = [{"name": "data", "mountPath": "/var/lib/gwctl"}, {"name": "run", "mountPath": "/var/run/gwctl"}]
WAIT_SECONDS = 60


def container(name: str, image: str, *, command: Sequence[str] = (), args: Sequence[str] = ()) -> dict[str, object]:
    """A container as the chart's: nothing but its volumes can be written."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "args": list(args),
        "volumeMounts": SHARED,
        "securityContext": {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def pod(namespace: str, name: str, containers: Sequence[object], init: Sequence[object] = ()) -> dict[str, object]:
    """A pod that runs once."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 20,
            "securityContext": {"runAsNonRoot": True, "fsGroup": 65532},
            "initContainers": list(init),
            "containers": list(containers),
            "volumes": [
                {"name": "data", "emptyDir": {}},
                {"name": "run", "emptyDir": {"medium": "Memory"}},
            ],
        },
    }


def test_gwctl_runs_unprivileged(kubectl: Kubectl, namespace: str) -> None:
    gwctl, _ = image_names()
    containers = [
        container("version", gwctl, args=["version"]),
        container("help", gwctl, args=["--help"]),
        container("inside", gwctl, command=["python3", "-c", LOOK_AROUND]),
    ]
    kubectl.apply(pod(namespace, "gwctl", containers))
    kubectl.run("-n", namespace, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/gwctl", "--timeout=60s")

    def log(name: str) -> str:
        return kubectl.run("-n", namespace, "logs", "gwctl", "-c", name)

    assert log("version") == f"gwctl {__version__}\n"
    assert "Usage: " in log("help")
    assert json.loads(log("inside")) == {"user": [65532, 65532], "writes": [], "tools": [], "modules": []}


def test_haproxy_and_data_plane_api_serve_a_pod(kubectl: Kubectl, namespace: str) -> None:
    gwctl, haproxy = image_names()
    dataplane = container("dataplane", haproxy, command=["gwctl-dataplane"])
    there = ["test", "-S", "/var/run/gwctl/dataplane.sock"]
    dataplane["startupProbe"] = {"exec": {"command": there}, "periodSeconds": 1, "failureThreshold": 60}
    stay = container("gwctl", gwctl, command=["python3", "-c", "import signal; signal.pause()"])
    proxy = container("haproxy", haproxy)
    kubectl.apply(pod(namespace, "proxy", [proxy, dataplane, stay], init_container(haproxy)))
    kubectl.run("-n", namespace, "wait", "--for=condition=Ready", "pod/proxy", "--timeout=60s")

    def execute(name: str, *command: str) -> str:
        return kubectl.run("-n", namespace, "exec", "proxy", "-c", name, "--", *command)

    def get(path: str) -> str:
        return kubectl.run("get", "--raw", f"/api/v1/namespaces/{namespace}/pods/proxy:8405/proxy{path}")

    info = json.loads(execute("gwctl", "python3", "-c", ASK_API))
    assert info["info"]["version"].startswith("3.")
    files = ["password", "haproxy.cfg"]  # the other file, without secrets, is rewritten by the Data Plane API
    modes = execute("haproxy", "stat", "-c", "%a %u", *(f"/var/lib/gwctl/{name}" for name in files))
    assert modes.splitlines() == ["600 65532"] * 2
    kept = ["sha256sum", "/var/lib/gwctl/password", "/var/lib/gwctl/haproxy.cfg"]
    before = execute("haproxy", *kept)
    execute("haproxy", "gwctl-init")
    assert execute("haproxy", *kept) == before
    assert "200 OK" in get("/healthz")
    assert "haproxy_process_" in get("/metrics")


def test_haproxy_of_a_deleted_pod_finishes_its_requests(cluster: Cluster, kubectl: Kubectl, namespace: str) -> None:
    if not cluster.ours:
        pytest.skip("pods of this cluster cannot be reached from here")
    _, haproxy = image_names()
    kubectl.apply(pod(namespace, "proxy", [container("haproxy", haproxy)], init_container(haproxy)))
    kubectl.run("-n", namespace, "wait", "--for=condition=Ready", "pod/proxy", "--timeout=60s")
    address = (kubectl.get("-n", namespace, "pod", "proxy")["status"]["podIP"], 8405)
    _until(lambda: _accepts(address), "HAProxy accepts connections")
    with socket.create_connection(address, timeout=WAIT_SECONDS) as request:
        request.sendall(b"GET /metrics HTTP/1.1\r\nHost: here\r\n")
        kubectl.run("-n", namespace, "delete", "pod", "proxy", "--wait=false")
        _until(lambda: not _accepts(address), "HAProxy accepts no more connections")
        request.sendall(b"\r\n")
        assert request.recv(64).startswith(b"HTTP/1.1 200 ")


def init_container(image: str) -> list[dict[str, object]]:
    """What prepares the volumes."""
    return [container("init", image, command=["gwctl-init"])]


def _accepts(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=1):
            return True
    except OSError:
        return False


def _until(test: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not test():
        assert time.monotonic() < deadline, f"not within {WAIT_SECONDS} s: {what}"
        time.sleep(0.05)
