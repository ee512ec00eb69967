"""The programs of the cluster: from Go's module registry those of `go/`, from Debian what is written in C or needs it.

In: nothing but the machine. Out: paths in the shared cache, where each program is an entry of its own, so that a build
which was broken off goes on where it was. Surprising: which versions, and their hashes, is said by `go/*/go.mod` and
`go.sum` alone; a change there makes new entries.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.parts.cache import PartError, building, cache_folder, drop_unused, locked, say, short
from tests.parts.debian import make_tree

NAME = "cluster"
MODULES = Path(__file__).parent / "go"
DEBIAN = "forky"  # the first Debian whose containerd and buildah are new enough
PACKAGES = (
    "buildah",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "etcd-server",
    "iptables",
    "netavark",
    "runc",
)
IPTABLES = ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore")
KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
GATEWAY_API = "sigs.k8s.io/gateway-api"


@dataclass(frozen=True)
class Program:
    """A program, the module below `go/` that says its version, and the package that it is built from."""

    name: str
    module: str
    package: str


PROGRAMS = {
    program.name: program
    for program in (
        *(Program(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}") for name in KUBERNETES),
        Program("coredns", "coredns", "."),
        Program("pause", "pause", "."),
        Program("echo-basic", "conformance", f"{GATEWAY_API}/conformance/echo-basic"),
        Program("conformance", "conformance", "."),  # a test binary
    )
}


def find_programs(names: Iterable[str] = PROGRAMS) -> dict[str, Path]:
    """Paths of programs by name, built where they are missing. Raises `PartError`."""
    entries = {name: _entry(PROGRAMS[name]) for name in names}
    with locked(NAME):
        missing = [name for name, entry in entries.items() if not (entry / name).exists()]
        for number, name in enumerate(missing, 1):
            started = time.monotonic()
            say(NAME, f"building {name} ({number} of {len(missing)}) …")
            with building(entries[name]) as folder:
                _build(PROGRAMS[name], folder / name)
            say(NAME, f"{name} took {time.monotonic() - started:.0f} s")
        for name, entry in entries.items():
            os.utime(entry)
            drop_unused(f"{name}-{platform.machine()}-*")
    return {name: entry / name for name, entry in entries.items()}


def find_debian() -> Path:
    """The tree with containerd, runc, CNI plugins, etcd, iptables and buildah. Raises `PartError`."""
    entry = cache_folder() / f"cluster-debian-{platform.machine()}-{_hash(DEBIAN, *PACKAGES)}"
    with locked("cluster-debian"):
        if not entry.exists():
            make_tree(NAME, entry, [DEBIAN], PACKAGES, lambda apt: apt.closure(*PACKAGES))
        for name in IPTABLES:
            (entry / "usr" / "sbin" / name).unlink(missing_ok=True)
            (entry / "usr" / "sbin" / name).symlink_to("xtables-nft-multi")
        os.utime(entry)
        drop_unused("cluster-debian-*")
    return entry


def find_gateway_api() -> Path:
    """A folder with `standard.yaml` and `experimental.yaml`, the CRDs, and `images`, what the suite's pods run."""
    entry = cache_folder() / f"gateway-api-{version(GATEWAY_API)}"
    with locked("gateway-api"):
        if not entry.exists():
            with building(entry) as folder:
                crds = _module_folder(GATEWAY_API) / "config" / "crd"
                for channel in ("standard", "experimental"):
                    texts = [
                        file.read_text(encoding="utf-8") for file in sorted((crds / channel).glob("gateway*.yaml"))
                    ]
                    (folder / f"{channel}.yaml").write_text("\n---\n".join(texts), encoding="utf-8")
                suite = _module_folder(f"{GATEWAY_API}/conformance")
                manifests = (file.read_text(encoding="utf-8") for file in suite.rglob("*.yaml"))
                images = {image for text in manifests for image in re.findall(r"image: *(\S+)", text)}
                (folder / "images").write_text("\n".join(sorted(images)), encoding="utf-8")
    return entry


def version(module: str) -> str:
    """The version of a module, as one of the `go.mod` files has it."""
    for file in MODULES.glob("*/go.mod"):
        text = file.read_text(encoding="utf-8")
        if found := re.search(rf"^(?:require )?\s*{re.escape(module)} (v\S+)", text, re.MULTILINE):
            return found[1]
    raise PartError(f"no go.mod below {short(MODULES)} requires {module}")


def _entry(program: Program) -> Path:
    sources = [file.read_bytes().decode() for file in sorted((MODULES / program.module).iterdir())]
    return cache_folder() / f"{program.name}-{platform.machine()}-{_hash(*sources)}"


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _build(program: Program, output: Path) -> None:
    flags = ["-s", "-w"]
    if program.module == "kubernetes":
        number = version("k8s.io/kubernetes")
        major, minor = number.removeprefix("v").split(".")[:2]
        values = {"gitVersion": number, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
        flags += [f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items()]
    command = ["test", "-c"] if program.name == "conformance" else ["build"]
    _go(program.module, *command, "-trimpath", "-ldflags", " ".join(flags), "-o", str(output), program.package)


def _module_folder(module: str) -> Path:
    return Path(_go("conformance", "list", "-m", "-f", "{{.Dir}}", module).strip())


def _go(module: str, *arguments: str) -> str:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if not go:
        raise PartError("Go is not on PATH, and the cluster's programs are written in it: install Go 1.26 or newer")
    # go prints what it downloads on standard error, which is our progress
    done = subprocess.run(
        [go, *arguments],
        cwd=MODULES / module,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise PartError(f"go {arguments[0]} in {short(MODULES / module)} failed (its message is above)")
    return done.stdout
