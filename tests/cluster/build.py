"""Images of gwctl and of HAProxy, made by buildah from `docker/` without any image registry.

In: the Dockerfiles, bases made of Debian packages, the Data Plane API of `tests.parts`. Out: archives in the cache,
which containerd takes. Surprising: buildah needs no privileges of a container engine here, because `RUN` is a chroot
on the machine's network.
"""

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import base
from tests.cluster.programs import find_debian
from tests.parts import Part
from tests.parts.cache import PartError, cache_folder, locked, say, short

NAME = "images"
REPOSITORY = Path(__file__).parents[2]
GWCTL = "gwctl.test/gwctl:test"
HAPROXY = "gwctl.test/haproxy:test"
# Of the machine, where pip finds its registry; mounted while RUN runs, not part of the image.
MACHINE = ("/etc/ssl/certs", "/etc/pip.conf")


def build_gwctl() -> Path:
    """The archive of gwctl's image, built again when the code has changed."""
    sources = [REPOSITORY / "docker" / "Dockerfile", REPOSITORY / "gwctl", REPOSITORY / "requirements" / "runtime.txt"]
    return _build("gwctl", GWCTL, base.PYTHON, sources, ["-f", "docker/Dockerfile", "."])


def build_haproxy(api: Part) -> Path:
    """The archive of the image with HAProxy and that Data Plane API."""
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(api.path, Path(context, "dataplaneapi"))
        handed = ["--build-arg=DATAPLANEAPI=context", f"--build-context=dataplaneapi={context}"]
        sources = [REPOSITORY / "docker" / "haproxy", api.path]
        return _build("haproxy", HAPROXY, base.HAPROXY, sources, [*handed, "docker/haproxy"])


def _build(name: str, tag: str, image: base.Base, sources: Sequence[Path], arguments: Sequence[str]) -> Path:
    from_archive = base.find_base(image)
    from_image = f"gwctl.test/{from_archive.parent.name}:base"
    archive = cache_folder() / f"image-{name}-{_hash([Path(__file__), *sources])}.tar"
    with locked(NAME):
        if archive.exists():
            say(NAME, f"{tag}: reusing {short(archive)}")
            return archive
        started = time.monotonic()
        say(NAME, f"building {tag} …")
        buildah = _Buildah(cache_folder() / "buildah", find_debian() / "usr")
        present = buildah.run("images", "--format={{.Name}}:{{.Tag}}").split()
        if from_image not in present:
            recipe = from_archive.parent.name.rpartition("-")[2]
            if any(name.startswith("gwctl.test/base-") and recipe not in name for name in present):
                buildah.run("rmi", "--all", "--force")  # made upon bases that are no more, and large
            pulled = buildah.run(
                "pull", "--quiet", f"--signature-policy={buildah.policy}", f"oci-archive:{from_archive}"
            )
            buildah.run("tag", pulled.strip(), from_image)
        machine = [f"--volume={path}:{path}:ro" for path in MACHINE if Path(path).exists()]
        # buildah would raise these limits to their highest, which a container that it runs in may forbid
        for limit, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
            machine.append(f"--ulimit={limit}=" + ":".join(map(str, resource.getrlimit(number))))
        buildah.run(
            "build", "--isolation=chroot", "--network=host", "--layers", "--pull=never", *machine, f"--tag={tag}",
            f"--signature-policy={buildah.policy}", f"--build-arg=BASE={from_image}", *arguments,
        )  # fmt: skip
        for old in cache_folder().glob(f"image-{name}-*"):
            old.unlink()
        partial = archive.with_suffix(".partial")
        buildah.run("push", "--quiet", f"--signature-policy={buildah.policy}", tag, f"docker-archive:{partial}:{tag}")
        partial.rename(archive)
        say(NAME, f"{tag} took {time.monotonic() - started:.0f} s: {archive.stat().st_size / 1e6:.0f} MB")
    return archive


class _Buildah:
    """buildah with a store of its own, that reads no settings of the machine."""

    def __init__(self, store: Path, usr: Path) -> None:
        settings = store / "settings"
        settings.mkdir(parents=True, exist_ok=True)
        self.policy = settings / "policy.json"
        self.policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}', encoding="utf-8")
        registries = settings / "registries.conf"
        registries.write_text("unqualified-search-registries = []\n", encoding="utf-8")
        containers = settings / "containers.conf"
        containers.write_text(f'[engine]\nhelper_binaries_dir = ["{usr}/lib/podman"]\n', encoding="utf-8")
        self._environment = {**os.environ, "CONTAINERS_CONF": str(containers)}
        self._command = [
            "unshare", "--mount",  # what buildah mounts goes with it
            str(usr / "bin" / "buildah"), f"--root={store / 'root'}", f"--runroot={store / 'run'}",
            "--storage-driver=overlay", f"--registries-conf={registries}",
        ]  # fmt: skip

    def run(self, command: str, *arguments: str) -> str:
        """Run a command and give what it prints; what a build says is progress, and shown."""
        done = subprocess.run(
            [*self._command, command, *arguments], cwd=REPOSITORY, env=self._environment, stdin=subprocess.DEVNULL,
            stdout=sys.stderr if command == "build" else subprocess.PIPE, text=True,
        )  # fmt: skip
        if done.returncode:
            raise PartError(f"buildah {command} failed (its message is above)")
        return done.stdout or ""


def _hash(paths: Sequence[Path]) -> str:
    """A hash of files, and of all files in folders."""
    digest = hashlib.sha256()
    for path in paths:
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        for file in files:
            if "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(path.parent)}\0{file.stat().st_mode}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
