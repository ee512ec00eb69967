"""HAProxy 3.4 or newer: the machine's own, or Debian's package unpacked into the cache.

No released Debian has it, so the package comes from experimental (or sid, once it is there) together with its
libraries and its C library. Surprising: `patchelf` makes the program start with that C library's own loader,
so it runs on an older Debian and needs no wrapper, which matters because HAProxy starts itself again on every
reload.
"""

import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.parts.apt import Package, PrivateApt, libraries_of, unpack
from tests.parts.cache import PartError, building, cache_folder, locked, say, short
from tests.parts.part import is_at_least, named_by, on_path, read_version

NAME = "haproxy"
NEEDED = (3, 4)
HINT = "put HAProxy 3.4 or newer on PATH, or set GWCTL_HAPROXY to it"
LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}


def find_haproxy() -> Path:
    """HAProxy 3.4 or newer; `PartError` says what to do when there is none."""
    if named := named_by("GWCTL_HAPROXY"):
        version = haproxy_version(named)
        if not is_at_least(version, NEEDED):
            raise PartError(f"GWCTL_HAPROXY names HAProxy {version}, but gwctl needs 3.4 or newer")
        return _found(named, version, "GWCTL_HAPROXY")
    if present := on_path("haproxy"):
        version = haproxy_version(present)
        if is_at_least(version, NEEDED):
            return _found(present, version, "PATH")
        say(NAME, f"{present} is HAProxy {version}, older than 3.4, so it is left alone")
    return _from_debian()


def haproxy_version(path: Path) -> str:
    """`3.4.7` of `HAProxy version 3.4.7-1 …`."""
    return read_version(path, "-v", pattern=r"HAProxy version (\d+\.\d+(?:\.\d+)?)")


def _found(path: Path, version: str, where: str) -> Path:
    say(NAME, f"using {short(path)} (HAProxy {version}, from {where})")
    return path


def _from_debian() -> Path:
    machine = platform.machine()
    if machine not in LOADERS:
        raise PartError(f"HAProxy 3.4 is not prepared here for {machine} machines; {HINT}")
    entry = cache_folder() / f"haproxy-{NEEDED[0]}.{NEEDED[1]}-{machine}"
    program = entry / "usr" / "sbin" / "haproxy"
    with locked(NAME):
        if program.exists():
            try:
                version = haproxy_version(program)
            except PartError:
                say(NAME, f"{short(entry)} does not run any more, making it anew")
            else:
                say(NAME, f"reusing {short(entry)} (HAProxy {version})")
                return program
        try:
            _build(entry, LOADERS[machine])
        except PartError as error:
            raise PartError(f"HAProxy 3.4 cannot be had from Debian ({error}); {HINT}") from error
    version = haproxy_version(program)
    say(NAME, f"ready: {short(program)} (HAProxy {version})")
    return program


def _build(entry: Path, loader: str) -> None:
    say(NAME, "reading the package lists of Debian experimental and sid (10 MB) …")
    with building(entry) as folder:
        apt = PrivateApt(folder / "apt", ("experimental", "sid"))
        apt.update()
        packages = _choose(apt)
        size = sum(package.size for package in packages) / 1e6
        say(NAME, f"downloading {len(packages)} Debian packages ({size:.0f} MB) …")
        for file in apt.download([package.pinned for package in packages], folder / "debs"):
            unpack(file, folder)
        shutil.rmtree(folder / "apt")
        shutil.rmtree(folder / "debs")
        loaders = sorted(folder.glob(f"usr/lib/*/{loader}")) + sorted(folder.glob(f"lib/*/{loader}"))
        if not loaders:
            raise PartError(f"the packages hold no {loader}")
        libraries = loaders[0].parent.relative_to(folder)
        _stand_alone(folder / "usr" / "sbin" / "haproxy", entry / libraries / loader, entry / libraries)
        _try(folder / libraries / loader, folder / libraries, folder / "usr" / "sbin" / "haproxy")


def _choose(apt: PrivateApt) -> tuple[Package, ...]:
    """The oldest version that is new enough (experimental may hold a development version), with libraries."""
    offered = [version for version in apt.versions("haproxy") if is_at_least(version, NEEDED)]
    if not offered:
        raise PartError("neither experimental nor sid offers HAProxy 3.4 or newer now")
    try:
        closure = apt.closure("haproxy", offered[-1])
    except PartError:  # it needs libraries that are in experimental only
        closure = apt.closure("haproxy", offered[-1], prefer="experimental")
    return libraries_of("haproxy", closure)


def _stand_alone(program: Path, loader: Path, libraries: Path) -> None:
    """Point a program at the loader and libraries of its own tree, at the place where they will lie."""
    patchelf = shutil.which("patchelf", path=sysconfig.get_path("scripts")) or shutil.which("patchelf")
    if not patchelf:
        raise PartError(f"patchelf is not installed for {sys.executable}: run this from the project's .venv")
    done = subprocess.run(
        [patchelf, "--set-interpreter", loader, "--force-rpath", "--set-rpath", libraries, program],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise PartError(f"patchelf failed: {done.stderr.strip()[-300:]}")


def _try(loader: Path, libraries: Path, program: Path) -> None:
    """Start the program before it is moved to its final place, to see that no library is missing."""
    done = subprocess.run([loader, "--library-path", libraries, program, "-v"], capture_output=True, text=True)
    if done.returncode:
        raise PartError(f"the unpacked HAProxy does not start: {(done.stderr or done.stdout).strip()[-300:]}")
