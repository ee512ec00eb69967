"""`python -m tests.cluster.node SETTINGS`: process 1 of the node's namespaces, which starts and holds all the others.

In: a JSON file with `Settings`, and one line on standard input when the network link is there. Out: a file `ready`
in the state folder; log files. It ends, and with it the whole node, when a component ends. Surprising: `/run` is the
node's own and `/var/lib` a copy on write, so that what kubelet and containerd leave in fixed places goes with the node.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ADDRESS = "10.250.0.1"
HOST_ADDRESS = "10.250.0.2"
NODES = "10.250.0.0/24"
PODS = "10.244.0.0/24"
SERVICES = "10.96.0.0/16"
DNS_ADDRESS = "10.96.0.10"
LINK = "gwctl0"  # inside; the machine's end of the link is gwctl-node
PAUSE = "gwctl.test/pause:test"
CGROUP = "gwctl-node"
SOCKET = "/run/containerd/containerd.sock"
ETCD = "http://127.0.0.1:2379"
HERE = Path("/run/node")  # the state folder, at a short path because sockets must have one
API_CLIENT = (
    "--kubeconfig=/run/node/kubeconfig",
    "--bind-address=127.0.0.1",
    "--leader-elect=false",
    "--kube-api-qps=200",
)
AUTHENTICATION = ("--authentication-kubeconfig=/run/node/kubeconfig", "--authorization-kubeconfig=/run/node/kubeconfig")

CONTAINERD = """\
version = 3
root = "/run/node/containerd"
state = "/run/containerd"
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "/run/opt"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true  # for want of CAP_SYS_RESOURCE
  disable_apparmor = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{debian}/usr/lib/cni"]
    conf_dir = "/run/node/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "{debian}/usr/bin/runc"
        SystemdCgroup = false
"""
NETWORK = {
    "cniVersion": "1.0.0",
    "name": "gwctl",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "mtu": 1400,
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni-ipam",
                "ranges": [[{"subnet": PODS}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "address": ADDRESS,
    "healthzBindAddress": "127.0.0.1",
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "containerRuntimeEndpoint": f"unix://{SOCKET}",
    "cgroupDriver": "cgroupfs",
    "cgroupRoot": f"/{CGROUP}",
    "failCgroupV1": False,
    "failSwapOn": False,
    "enforceNodeAllocatable": [],
    "clusterDomain": "cluster.local",
    "clusterDNS": [DNS_ADDRESS],
    "resolvConf": "/run/node/resolv.conf",
    "maxPods": 250,
    "kubeAPIQPS": 200,
    "kubeAPIBurst": 400,
    "imageGCHighThresholdPercent": 100,
    "imageGCLowThresholdPercent": 99,
    "evictionHard": {
        "memory.available": "10Mi",
        "nodefs.available": "0%",
        "nodefs.inodesFree": "0%",
        "imagefs.available": "0%",
    },
    "localStorageCapacityIsolation": False,
    "shutdownGracePeriod": "0s",
    "volumePluginDir": "/run/node/volumeplugins",
    "podLogsDir": "/run/node/log/pods",
}
KUBE_PROXY = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
    "kind": "KubeProxyConfiguration",
    "clientConnection": {"kubeconfig": "/run/node/kubeconfig"},
    "mode": "iptables",
    "hostnameOverride": "node",
    "bindAddress": "127.0.0.1",
    "healthzBindAddress": "",
    "metricsBindAddress": "",
    "clusterCIDR": PODS,
    "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "60s", "localhostNodePorts": False},
}


class NodeError(Exception):
    """A component did not start; one sentence."""


@dataclass(frozen=True)
class Settings:
    """Paths as the machine sees them."""

    state: str
    debian: str
    images: list[str]
    manifests: list[str]


class Node:
    """Components by name, started in order."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._components: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, tuple[str, ...]] = {}
        self._started = time.monotonic()
        os.environ["KUBECONFIG"] = f"{HERE}/kubeconfig"
        os.environ["KUBECACHEDIR"] = "/run/kubectl"
        usr = f"{settings.debian}/usr"
        folders = [f"{HERE}/bin", f"{usr}/sbin", f"{usr}/bin", f"{usr}/lib/cni", os.environ.get("PATH", os.defpath)]
        os.environ["PATH"] = os.pathsep.join([*folders, "/usr/sbin", "/sbin"])
        os.environ["XTABLES_LIBDIR"] = str(next(Path(usr, "lib").glob("*/xtables"), ""))
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            del os.environ[name]

    def start(self) -> None:
        """Bring the node up; `NodeError` when something does not start."""
        self._prepare()
        self._start_control_plane()
        self._start_runtime()
        self._until("the API server", 60, lambda: _succeeds("kubectl", "get", "--raw", "/readyz"))
        self._start_controllers()
        self._start_kubelet()
        ready = ["kubectl", "wait", "--for=condition=Ready", "node/node", "--timeout=1s"]
        self._until("the node", 60, lambda: _succeeds(*ready))
        for manifest in self._settings.manifests:
            _run("kubectl", "apply", "--server-side", "-f", manifest)
        self._start("loadbalancer", sys.executable, "-m", "tests.cluster.loadbalancer")
        account = ["kubectl", "-n", "default", "get", "serviceaccount", "default"]
        self._until("the first service account", 30, lambda: _succeeds(*account))
        _run("kubectl", "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s")
        self._say("DNS ready")

    def hold(self) -> str:
        """Wait until a component ends of itself, and say which; one that was killed is started again."""
        while True:
            pid, status = os.wait()  # the pods' orphans too: this is process 1
            for name, process in self._components.items():
                if process.pid == pid:
                    code = os.waitstatus_to_exitcode(status)
                    if code >= 0:
                        return f"{name} ended with status {code}"
                    self._say(f"{name} was killed, starting it again")
                    self._start(name, *self._commands[name])
                    break

    def _prepare(self) -> None:
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "gwctl", "/run")
        HERE.mkdir()
        _run("mount", "--bind", self._settings.state, str(HERE))
        for name in ("upper", "work"):
            Path("/run/varlib", name).mkdir(parents=True)
        overlay = "lowerdir=/var/lib,upperdir=/run/varlib/upper,workdir=/run/varlib/work"
        _run("mount", "-t", "overlay", "-o", overlay, "gwctl", "/var/lib")
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "address", "add", f"{ADDRESS}/24", "dev", LINK)
        _run("ip", "link", "set", LINK, "up")
        # What runs in the node's own network reaches Services; the route only leads a packet to where it is translated.
        _run("ip", "route", "add", SERVICES, "dev", LINK)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="utf-8")
        for controller in cgroup_roots():
            (controller / CGROUP).mkdir(exist_ok=True)

    def _start_control_plane(self) -> None:
        peer = "http://127.0.0.1:2380"
        self._start(
            "etcd", "etcd", "--name=node", "--data-dir=/run/node/etcd", "--unsafe-no-fsync", "--log-level=warn",
            f"--listen-client-urls={ETCD}", f"--advertise-client-urls={ETCD}", f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=node={peer}",
        )  # fmt: skip
        self._until("etcd", 30, lambda: _answers(f"{ETCD}/health"))
        for _ in range(10):  # a history, as every cluster has, so that there are versions too old to watch from
            _answers(f"{ETCD}/v3/kv/put", b'{"key": "Z3djdGw=", "value": ""}')
        self._start(
            "kube-apiserver", "kube-apiserver", f"--etcd-servers={ETCD}", f"--advertise-address={ADDRESS}",
            f"--service-cluster-ip-range={SERVICES}", "--client-ca-file=/run/node/pki/ca.crt",
            "--tls-cert-file=/run/node/pki/apiserver.crt", "--tls-private-key-file=/run/node/pki/apiserver.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-key-file=/run/node/pki/accounts.key",
            "--service-account-signing-key-file=/run/node/pki/accounts.key", "--authorization-mode=Node,RBAC",
            "--allow-privileged=true", "--kubelet-preferred-address-types=InternalIP", "--max-requests-inflight=2000",
            "--max-mutating-requests-inflight=1000", "--v=1",
        )  # fmt: skip

    def _start_runtime(self) -> None:
        settings = CONTAINERD.format(socket=SOCKET, pause=PAUSE, debian=self._settings.debian)
        (HERE / "containerd.toml").write_text(settings, encoding="utf-8")
        (HERE / "cni").mkdir()
        (HERE / "cni" / "10-gwctl.conflist").write_text(json.dumps(NETWORK), encoding="utf-8")
        self._start("containerd", "containerd", "--config", "/run/node/containerd.toml", "--log-level", "warn")
        self._until("containerd", 30, lambda: _succeeds("ctr", "-a", SOCKET, "version"))
        for archive in self._settings.images:
            _run(*import_command(archive))
        self._say(f"{len(self._settings.images)} images imported")

    def _start_controllers(self) -> None:
        self._start(
            "kube-controller-manager", "kube-controller-manager", *API_CLIENT, *AUTHENTICATION,
            "--root-ca-file=/run/node/pki/ca.crt", "--service-account-private-key-file=/run/node/pki/accounts.key",
            "--allocate-node-cidrs=true", f"--cluster-cidr={PODS}", f"--service-cluster-ip-range={SERVICES}",
            "--kube-api-burst=400", "--v=1",
        )  # fmt: skip
        self._start("kube-scheduler", "kube-scheduler", *API_CLIENT, *AUTHENTICATION, "--kube-api-burst=400", "--v=1")

    def _start_kubelet(self) -> None:
        (HERE / "resolv.conf").write_text("nameserver 127.0.0.1\n", encoding="utf-8")
        (HERE / "kubelet.json").write_text(json.dumps(KUBELET), encoding="utf-8")
        (HERE / "kube-proxy.json").write_text(json.dumps(KUBE_PROXY), encoding="utf-8")
        self._start(
            "kubelet", "kubelet", "--config=/run/node/kubelet.json", "--kubeconfig=/run/node/kubeconfig",
            "--root-dir=/run/node/kubelet", "--cert-dir=/run/node/kubelet-pki", f"--node-ip={ADDRESS}",
            "--hostname-override=node", "--v=1",
        )  # fmt: skip
        self._start("kube-proxy", "kube-proxy", "--config=/run/node/kube-proxy.json", "--v=1")

    def _start(self, name: str, *command: str) -> None:
        self._commands[name] = command
        with (HERE / "log" / f"{name}.log").open("ab") as log:
            self._components[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def _until(self, what: str, seconds: float, test: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        while not test():
            for name, process in self._components.items():
                if process.poll() is not None:
                    raise NodeError(f"{name} ended with status {process.returncode}")
            if time.monotonic() > deadline:
                raise NodeError(f"{what} was not ready after {seconds} s")
            time.sleep(0.1)
        self._say(f"{what} ready")

    def _say(self, message: str) -> None:
        print(f"{time.monotonic() - self._started:5.1f} s  {message}", flush=True)


def import_command(archive: str) -> list[str]:
    """Give the node's containerd an image; the path is the machine's."""
    return ["ctr", "-a", SOCKET, "-n", "k8s.io", "images", "import", "--snapshotter", "overlayfs", archive]


def cgroup_roots() -> list[Path]:
    """Where the machine's cgroups are: one tree with cgroup v2, one for each controller with v1."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return [root]
    return [folder for folder in root.iterdir() if folder.is_dir() and not folder.is_symlink()]


def _answers(url: str, body: bytes | None = None) -> bool:
    try:
        with urllib.request.urlopen(url, body, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode:
        raise NodeError(f"{' '.join(command[:4])} failed: {(done.stderr + done.stdout).strip()[-500:]}")


def main() -> int:
    settings = Settings(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    sys.stdin.readline()
    node = Node(settings)
    try:
        node.start()
    except NodeError as error:
        print(f"error: {error}", flush=True)
        return 1
    (HERE / "ready").touch()
    print(f"error: {node.hold()}", flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
