"""Base images of Debian packages, for machines that reach no image registry.

In: suites, names of packages. Out: an archive in the cache. Surprising: a base is the unpacked packages alone; no
script of theirs has run, so what those would have done and is needed (users, certificates, the linker's cache) is
done here.
"""

import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import image
from tests.parts.apt import Package, PrivateApt, unpack
from tests.parts.cache import building, cache_folder, drop_unused, locked, say
from tests.parts.haproxy import choose_haproxy

NAME = "images"
# What a Dockerfile's RUN needs beside the program itself.
SHELL = (
    "base-files",
    "ca-certificates",
    "coreutils",
    "curl",
    "dash",
    "findutils",
    "grep",
    "gzip",
    "libc-bin",
    "mawk",
    "sed",
    "tar",
)
USERS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
GROUPS = "root:x:0:\nnogroup:x:65534:\n"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")


@dataclass(frozen=True)
class Base:
    """A base image: suites, and what of them."""

    name: str
    suites: tuple[str, ...]
    choose: Callable[[PrivateApt], Sequence[Package]]


PYTHON = Base("python", ("trixie",), lambda apt: apt.closure("python3", "python3-pip", *SHELL))
HAPROXY = Base("haproxy", ("experimental", "sid"), lambda apt: choose_haproxy(apt, *SHELL))


def find_base(base: Base) -> Path:
    """The archive of a base image, made once."""
    recipe = hashlib.sha256(Path(__file__).read_bytes() + Path(image.__file__).read_bytes()).hexdigest()[:16]
    entry = cache_folder() / f"base-{base.name}-{recipe}"
    archive = entry / f"{base.name}.tar"
    with locked(NAME):
        if not entry.exists():
            say(NAME, f"making the base image {base.name} of Debian {' and '.join(base.suites)} …")
            with building(entry) as folder:
                apt = PrivateApt(folder / "apt", base.suites)
                apt.update()
                packages = base.choose(apt)
                size = sum(package.size for package in packages) / 1e6
                say(NAME, f"downloading {len(packages)} Debian packages ({size:.0f} MB) …")
                for file in apt.download([package.pinned for package in packages], folder / "debs"):
                    unpack(file, folder / "root")
                _finish(folder / "root")
                with tarfile.open(folder / "layer.tar", "w") as tar:
                    tar.add(folder / "root", "")
                image.pack(
                    folder / archive.name, [f"gwctl.test/{base.name}:base"], (folder / "layer.tar").read_bytes(), {}
                )
                for left in ("apt", "debs", "root"):
                    shutil.rmtree(folder / left)
                (folder / "layer.tar").unlink()
        drop_unused(f"base-{base.name}-*")
        os.utime(entry)
    return archive


def _finish(root: Path) -> None:
    """Do what the packages' scripts would have done, as far as it is needed."""
    for name in UNUSED:
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "etc" / "passwd").write_text(USERS, encoding="utf-8")
    (root / "etc" / "group").write_text(GROUPS, encoding="utf-8")
    trusted = sorted(root.glob("usr/share/ca-certificates/mozilla/*.crt"))
    (root / CERTIFICATES).write_bytes(b"".join(file.read_bytes() for file in trusted))
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    for name, target in (("sh", "dash"), ("awk", "mawk")):
        if not (root / "usr" / "bin" / name).exists():
            (root / "usr" / "bin" / name).symlink_to(target)
    subprocess.run(["ldconfig", "-r", root], check=True)
