"""Start and stop the cluster from outside its namespaces.

In: the programs and images of the cache. Out: `Cluster`. Surprising: whether one runs is said by a lock that its first
process holds, so a run that crashed leaves nothing but a folder and cgroups, which the next start or stop removes. Only
one runs at a time, because the machine's routes to its addresses are the same for each.
"""

import base64
import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster import node
from tests.cluster.image import pack_program
from tests.cluster.programs import find_debian, find_gateway_api, find_programs
from tests.parts.cache import PartError, building, cache_folder, locked, say, short

NAME = "cluster"
HOST_LINK = "gwctl-node"
START_SECONDS = 180.0
MANIFESTS = Path(__file__).parent / "manifests"
REPOSITORY = Path(__file__).parents[2]
TOOLS = ("ip", "mount", "nsenter", "openssl", "unshare")
# kubelet sets these for the whole machine
SYSCTLS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: gwctl, cluster: {{server: "https://{address}:6443", certificate-authority-data: {ca}}}}}]
users: [{{name: admin, user: {{client-certificate-data: {certificate}, client-key-data: {key}}}}}]
contexts: [{{name: gwctl, context: {{cluster: gwctl, user: admin}}}}]
current-context: gwctl
"""


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs. `ours` is one of this module, whose containerd takes images; `images` tells those it has."""

    kubeconfig: Path
    ours: bool = True
    images: str = ""

    def load(self, archive: Path) -> None:
        """Give the node an image."""
        command = ["nsenter", f"--target={_first_process()}", "--mount", *node.import_command(str(archive))]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": _path()})
        if done.returncode:
            raise PartError(f"the node does not take {archive.name}: {(done.stderr + done.stdout).strip()[-300:]}")


def running() -> Cluster | None:
    """The cluster that runs on this machine."""
    return Cluster(_state() / "kubeconfig") if _runs() else None


def start(channel: str = "standard", images: Sequence[Path] = (), *, stays: bool = False) -> Cluster:
    """Start a cluster with the Gateway API of that channel; it ends with this process unless it `stays`.

    Raises `PartError`.
    """
    if os.geteuid() != 0:
        raise PartError("a cluster needs root: or set KUBECONFIG to use one that runs")
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        raise PartError(f"a cluster needs {', '.join(missing)}: install util-linux, iproute2 and openssl")
    programs, debian = find_programs(), find_debian()
    crds = find_gateway_api() / f"{channel}.yaml"
    own = _own_images()
    if _runs():
        raise PartError("a cluster runs already: make cluster-down")
    _remove_what_is_left()
    state = _state()
    for folder in ("bin", "log", "pki"):
        (state / folder).mkdir(parents=True)
    for name, path in programs.items():
        (state / "bin" / name).symlink_to(path)
    (state / "sysctls").write_text(json.dumps({name: _sysctl(name).read_text() for name in SYSCTLS}), encoding="utf-8")
    _make_certificates(state)
    archives = [*own, *images]
    manifests = [crds, *sorted(MANIFESTS.glob("*.yaml"))]
    settings = node.Settings(
        str(state), str(debian), [str(path) for path in archives], [str(path) for path in manifests]
    )
    (state / "settings.json").write_text(json.dumps(asdict(settings)), encoding="utf-8")
    try:
        _start_node(state, stays=stays)
    except BaseException:
        stop()
        raise
    return Cluster(state / "kubeconfig")


def stop() -> None:
    """End the cluster and remove every trace of it."""
    state = _state()
    with contextlib.suppress(OSError, ValueError):
        outer = int((state / "pid").read_text(encoding="utf-8"))
        if _runs():
            os.kill(_first_process(), signal.SIGKILL)  # all other processes of its namespace end with it
            _wait_for_end(outer)
    _remove_what_is_left()


def _start_node(state: Path, *, stays: bool) -> None:
    say(NAME, "starting the node …")
    unshare = ["unshare", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--mount-proc", "--kill-child"]
    with (state / "lock").open("w") as lock, (state / "log" / "node.log").open("wb") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [*unshare, sys.executable, "-m", "tests.cluster.node", state / "settings.json"],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, pass_fds=[lock.fileno()],
            start_new_session=True, preexec_fn=None if stays else _die_with_parent,
        )  # fmt: skip
    _started.append(process)
    (state / "pid").write_text(str(process.pid), encoding="utf-8")
    deadline = time.monotonic() + START_SECONDS
    while not (first := _children(process.pid)):
        if process.poll() is not None or time.monotonic() > deadline:
            raise PartError(f"unshare did not start: {(state / 'log' / 'node.log').read_text(encoding='utf-8')}")
        time.sleep(0.01)
    _link(first[0])
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.close()
    _follow(state, process, deadline)


def _follow(state: Path, process: subprocess.Popen[bytes], deadline: float) -> None:
    """Show what the node says until it is ready."""
    shown = 0
    while True:
        is_ready = (state / "ready").exists()
        lines = (state / "log" / "node.log").read_text(encoding="utf-8", errors="replace").splitlines()
        for line in lines[shown:]:
            say(NAME, line)
        shown = len(lines)
        if is_ready:
            return
        if process.poll() is not None or time.monotonic() > deadline:
            kept = cache_folder() / "cluster-log"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(state / "log", kept)
            raise PartError(f"the cluster did not start; its logs are in {short(kept)}")
        time.sleep(0.05)


_started: list[subprocess.Popen[bytes]] = []  # kept, because one that is dropped while it runs is warned of


def _die_with_parent() -> None:
    """In a child before it becomes its program: end with the parent, even when the parent is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _link(first: int) -> None:
    """Join the node's network with the machine's, and send all that is the node's there."""
    _run("ip", "link", "add", HOST_LINK, "type", "veth", "peer", "name", node.LINK, "netns", str(first))
    _run("ip", "address", "add", node.HOST_ADDRESS, "peer", node.ADDRESS, "dev", HOST_LINK)
    _run("ip", "link", "set", HOST_LINK, "up")
    for network in (node.NODES, node.PODS, node.SERVICES):
        _run("ip", "route", "add", network, "via", node.ADDRESS)


def _own_images() -> list[Path]:
    """Archives of what the node itself and the conformance suite run."""
    programs = find_programs(("pause", "coredns", "echo-basic"))
    suite = (find_gateway_api() / "images").read_text(encoding="utf-8").split()
    names = {
        "pause": [node.PAUSE],
        "coredns": ["gwctl.test/coredns:test", *(name for name in suite if "/coredns:" in name)],
        "echo-basic": ["gwctl.test/echo-basic:test", *(name for name in suite if "/echo-basic:" in name)],
    }
    archives = []
    for name, tags in names.items():
        entry = programs[name].parent / "image"
        with locked("cluster-images"):
            if not entry.exists():
                with building(entry) as folder:
                    user = "0:0" if name == "coredns" else "65532:65532"
                    pack_program(folder / f"{name}.tar", tags, programs[name], user)
        archives.append(entry / f"{name}.tar")
    return archives


def _make_certificates(state: Path) -> None:
    """A certificate authority, and what it signs; the kubeconfig holds what a user needs."""
    pki = state / "pki"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "365"]

    def certify(name: str, subject: str, *more: str) -> None:
        files = ["-keyout", str(pki / f"{name}.key"), "-out", str(pki / f"{name}.crt")]
        _run("openssl", "req", "-x509", *curve, *files, "-subj", subject, *more)

    certify("ca", "/CN=gwctl-test-ca", "-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature")
    signed = [
        "-CA",
        str(pki / "ca.crt"),
        "-CAkey",
        str(pki / "ca.key"),
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ]
    names = ",".join(f"DNS:kubernetes{tail}" for tail in ("", ".default", ".default.svc", ".default.svc.cluster.local"))
    names += f",IP:127.0.0.1,IP:10.96.0.1,IP:{node.ADDRESS}"
    server = ["-addext", f"subjectAltName={names}", "-addext", "extendedKeyUsage=serverAuth"]
    certify("apiserver", "/CN=kube-apiserver", *signed, *server)
    certify("admin", "/O=system:masters/CN=admin", *signed, "-addext", "extendedKeyUsage=clientAuth")
    _run("openssl", "genrsa", "-out", str(pki / "accounts.key"), "2048")
    encoded = {
        name: base64.b64encode((pki / file).read_bytes()).decode()
        for name, file in {"ca": "ca.crt", "certificate": "admin.crt", "key": "admin.key"}.items()
    }
    kubeconfig = state / "kubeconfig"
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_text(KUBECONFIG.format(address=node.ADDRESS, **encoded), encoding="utf-8")


def _remove_what_is_left() -> None:
    """Remove what does not go with the processes. Nothing runs."""
    state = _state()
    if not state.exists():
        return
    subprocess.run(["ip", "link", "delete", HOST_LINK], capture_output=True)  # its routes go with it
    with contextlib.suppress(OSError, ValueError):
        for name, value in json.loads((state / "sysctls").read_text(encoding="utf-8")).items():
            if _sysctl(name).read_text(encoding="utf-8") != value:
                _sysctl(name).write_text(value, encoding="utf-8")
    for root in node.cgroup_roots():
        for folder, _, _ in os.walk(root / node.CGROUP, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
    shutil.rmtree(state)


def _state() -> Path:
    return cache_folder() / "cluster-state"


def _runs() -> bool:
    """Whether the first process of a cluster holds its lock."""
    try:
        with (_state() / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _first_process() -> int:
    """Process 1 of the node, as the machine numbers it."""
    return _children(int((_state() / "pid").read_text(encoding="utf-8")))[0]


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except FileNotFoundError:
        return []


def _wait_for_end(pid: int) -> None:
    """Wait until unshare, which waits for all of the namespace, has ended; a zombie has no program."""
    while True:
        try:
            Path(f"/proc/{pid}/exe").readlink()
        except OSError:
            return
        time.sleep(0.02)


def _sysctl(name: str) -> Path:
    return Path("/proc/sys", name)


def _path() -> str:
    usr = find_debian() / "usr"
    return os.pathsep.join([str(usr / "sbin"), str(usr / "bin"), os.environ.get("PATH", os.defpath)])


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode:
        raise PartError(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-300:]}")
