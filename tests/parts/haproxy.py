"""HAProxy 3.4 or newer: the machine's own, or Debian's package unpacked into the cache.

No released Debian has it, so the package comes from experimental (or sid, once it is there) together with its
libraries and its C library (`tests.parts.debian`).
"""

import platform
from pathlib import Path

from tests.parts.apt import Package, PrivateApt
from tests.parts.cache import PartError, cache_folder, locked, say, short
from tests.parts.debian import LOADERS, make_tree
from tests.parts.part import is_at_least, named_by, on_path, read_version

NAME = "haproxy"
NEEDED = (3, 4)
HINT = "put HAProxy 3.4 or newer on PATH, or set GWCTL_HAPROXY to it"


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
            make_tree(NAME, entry, ("experimental", "sid"), ["haproxy"], choose_haproxy)
        except PartError as error:
            raise PartError(f"HAProxy 3.4 cannot be had from Debian ({error}); {HINT}") from error
    version = haproxy_version(program)
    say(NAME, f"ready: {short(program)} (HAProxy {version})")
    return program


def choose_haproxy(apt: PrivateApt, *more: str) -> tuple[Package, ...]:
    """The oldest version that is new enough (experimental may hold a development version), with what it needs."""
    offered = [version for version in apt.versions("haproxy") if is_at_least(version, NEEDED)]
    if not offered:
        raise PartError("neither experimental nor sid offers HAProxy 3.4 or newer now")
    wanted = (f"haproxy={offered[-1]}", *more)
    try:
        return apt.closure(*wanted)
    except PartError:  # it needs libraries that are in experimental only
        return apt.closure(*wanted, prefer="experimental")
