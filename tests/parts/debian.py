"""Programs of a newer Debian than this machine's, unpacked into the cache with their own libraries.

In: suites, package names. Out: a folder with the packages' files. Surprising: `patchelf` makes each program start
with the tree's own C library and its loader, so it runs on an older Debian and needs no wrapper, which matters
because HAProxy, runc and buildah start themselves again.
"""

import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.parts.apt import Package, PrivateApt, libraries_of, unpack
from tests.parts.cache import PartError, building, say

LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}

Choose = Callable[[PrivateApt], Sequence[Package]]


def make_tree(part: str, entry: Path, suites: Sequence[str], names: Sequence[str], choose: Choose) -> None:
    """Make a cache entry of packages and their libraries; `choose` gives their versions. Needs the entry's lock."""
    loader = LOADERS[platform.machine()]
    say(part, f"reading the package lists of Debian {' and '.join(suites)} (10 MB) …")
    with building(entry) as folder:
        apt = PrivateApt(folder / "apt", suites)
        apt.update()
        packages = libraries_of(names, choose(apt))
        size = sum(package.size for package in packages) / 1e6
        say(part, f"downloading {len(packages)} Debian packages ({size:.0f} MB) …")
        for file in apt.download([package.pinned for package in packages], folder / "debs"):
            unpack(file, folder)
        shutil.rmtree(folder / "apt")
        shutil.rmtree(folder / "debs")
        loaders = sorted(folder.glob(f"usr/lib/*/{loader}")) + sorted(folder.glob(f"lib/*/{loader}"))
        if not loaders:
            raise PartError(f"the packages hold no {loader}")
        libraries = loaders[0].parent.relative_to(folder)
        for program in _programs(folder):
            _stand_alone(program, entry / libraries / loader, entry / libraries)


def _programs(folder: Path) -> Iterator[Path]:
    """All programs that the loader starts; those that are linked statically have no need of it."""
    for file in sorted(folder.glob("usr/**/*")):
        if file.is_file() and not file.is_symlink() and file.stat().st_mode & 0o100:
            with file.open("rb") as opened:
                if opened.read(4) != b"\x7fELF":
                    continue
            if ".so" not in file.name and _patchelf("--print-interpreter", file).returncode == 0:
                yield file


def _stand_alone(program: Path, loader: Path, libraries: Path) -> None:
    """Point a program at the loader and libraries of its own tree, at the place where they will lie."""
    done = _patchelf("--set-interpreter", loader, "--force-rpath", "--set-rpath", libraries, program)
    if done.returncode:
        raise PartError(f"patchelf failed: {done.stderr.strip()[-300:]}")


def _patchelf(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    patchelf = shutil.which("patchelf", path=sysconfig.get_path("scripts")) or shutil.which("patchelf")
    if not patchelf:
        raise PartError(f"patchelf is not installed for {sys.executable}: run this from the project's .venv")
    return subprocess.run([patchelf, *arguments], capture_output=True, text=True)
