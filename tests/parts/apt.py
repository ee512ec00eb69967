"""A private apt: packages of any Debian suite into a folder, without root and without touching the system's
own apt.

In: suites, package names. Out: `.deb` files and an unpacked tree. It uses the mirror that this machine's apt
is set up with, its own lists, its own cache and an empty status file, so that a package's whole closure
counts as not yet installed.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from tests.parts.cache import PartError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_URI = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Package:
    """One version of a package, and what the archive says about it."""

    name: str
    version: str
    size: int = 0
    section: str = ""
    depends: frozenset[str] = field(default=frozenset())

    @property
    def pinned(self) -> str:
        """`name=version`, as apt takes it."""
        return f"{self.name}={self.version}"


class PrivateApt:
    """An apt whose whole state lies in one folder. With no suites it reads the sources of the system."""

    def __init__(self, folder: Path, suites: Sequence[str] = ()) -> None:
        self.folder = folder.absolute()
        for name in ("apt-get", "apt-cache", "dpkg"):
            if not shutil.which(name):
                raise PartError(f"{name} is not on this machine")
        self._write_configuration(suites=())
        if suites:
            mirrors = self._mirrors()
            signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
            (self.folder / "sources.list").write_text(
                "".join(f"deb {signed}{mirrors[0]} {suite} main\n" for suite in suites), encoding="utf-8"
            )
            self._write_configuration(suites)

    def update(self) -> None:
        """Fetch the lists of packages."""
        self._run("apt-get", "update", "-q")

    def versions(self, name: str) -> tuple[str, ...]:
        """All versions of a package that the suites offer, newest first."""
        lines = self._run("apt-cache", "madison", name, check=False).splitlines()
        return tuple(dict.fromkeys(line.split("|")[1].strip() for line in lines if line.count("|") >= 2))

    def closure(self, *wanted: str, prefer: str | None = None) -> tuple[Package, ...]:
        """What installing packages, `name` or `name=version`, on an empty system installs, themselves included."""
        target = ["-t", prefer] if prefer else []
        simulate = ["install", "--print-uris", "-qq", "--no-install-recommends", *target]
        printed = self._run("apt-get", *simulate, *wanted)
        chosen = {}
        for found in _URI.finditer(printed):
            package, package_version, _ = unquote(found["file"]).split("_", 2)
            chosen[package] = (package_version, int(found["size"]))
        described = self._run("apt-cache", "show", *(f"{package}={of[0]}" for package, of in sorted(chosen.items())))
        packages = {}
        for stanza in filter(None, described.split("\n\n")):
            fields = _fields(stanza)
            package = fields["Package"]
            packages[package] = Package(
                package, *chosen[package], fields.get("Section", ""), _depends(fields)
            )  # once, although two suites may have the same version
        return tuple(packages.values())

    def download(self, names: Sequence[str], into: Path) -> tuple[Path, ...]:
        """Fetch packages, given as `name` or `name=version`, and check their hashes; returns the files."""
        into.mkdir(parents=True, exist_ok=True)
        self._run("apt-get", "download", "-q", *names, cwd=into)
        return tuple(sorted(into.glob("*.deb")))

    def _write_configuration(self, suites: Sequence[str]) -> None:
        for name in ("lists/partial", "cache/archives/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").write_text("", encoding="utf-8")
        settings = {
            "Dir::State": self.folder,
            "Dir::State::lists": self.folder / "lists",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "Dir::Cache::pkgcache": "pkgcache.bin",
            "Dir::Log": self.folder,
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Acquire::Languages": "none",
            "Acquire::PDiffs": "false",
            "Acquire::Retries": "3",
            "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
        }
        if suites:
            settings |= {
                "Dir::Etc::sourcelist": self.folder / "sources.list",
                "Dir::Etc::sourceparts": "/dev/null",
            }
        # On the command line, because the system's apt.conf.d (proxies, certificates) stays in force.
        self._options = [option for name, value in settings.items() for option in ("-o", f"{name}={value}")]

    def _mirrors(self) -> list[str]:
        """The archives of this machine's own sources, Debian's main one first; needs no lists."""
        targets = self._run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", check=False)
        uris = targets.splitlines()
        uris += [
            found["uri"].split("/dists/")[0] + "/"
            for found in _URI.finditer(self._run("apt-get", "update", "--print-uris"))
        ]
        debian = [uri for uri in dict.fromkeys(uris) if "/debian/" in uri and "security" not in uri]
        debian.sort(key=lambda uri: not uri.endswith("/debian/"))
        if not debian:
            raise PartError("this machine's apt names no Debian archive")
        return debian

    def _run(self, program: str, *arguments: str, check: bool = True, cwd: Path | None = None) -> str:
        done = subprocess.run(
            [program, *self._options, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            cwd=cwd or self.folder,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )
        if check and done.returncode:
            raise PartError(f"{program} {arguments[0]} failed: {' '.join(done.stderr.split())[-600:]}")
        return done.stdout


def unpack(package: Path, into: Path) -> None:
    """Unpack one `.deb` file into a folder, without its scripts."""
    done = subprocess.run(["dpkg", "-x", package, into], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise PartError(f"dpkg cannot unpack {package.name}: {done.stderr.strip()[-300:]}")


def libraries_of(names: Sequence[str], packages: Sequence[Package]) -> tuple[Package, ...]:
    """The packages of those names and all libraries they need; programs such as systemd are left out."""
    known: Mapping[str, Package] = {package.name: package for package in packages}
    wanted, todo = set(names), list(names)
    while todo:
        for needed in known[todo.pop()].depends - wanted:
            if needed in known and known[needed].section in ("libs", "oldlibs"):
                wanted.add(needed)
                todo.append(needed)
    return tuple(package for package in packages if package.name in wanted)


def _fields(stanza: str) -> dict[str, str]:
    """One paragraph of a control file; continuation lines are not needed here."""
    pairs = (line.split(": ", 1) for line in stanza.splitlines() if ": " in line and not line.startswith(" "))
    return {pair[0]: pair[1] for pair in pairs}


def _depends(fields: Mapping[str, str]) -> frozenset[str]:
    atoms = re.split(r"[,|]", fields.get("Depends", "") + "," + fields.get("Pre-Depends", ""))
    return frozenset(re.split(r"[\s:(]", atom.strip(), maxsplit=1)[0] for atom in atoms if atom.strip())
