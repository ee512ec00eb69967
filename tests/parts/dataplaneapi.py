"""The Data Plane API: a real one where the machine has it, else the project's stand-in, built from
`tests/dataplane`.
"""

import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Literal

from tests.parts.cache import PartError, building, cache_folder, drop_unused, locked, say, short
from tests.parts.part import Part, is_at_least, named_by, on_path, read_version

NAME = "Data Plane API"
NEEDED = (3, 4)
SOURCES = Path(__file__).parent.parent / "dataplane"


def find_dataplaneapi(kind: Literal["any", "standin", "real"] = "any") -> Part:
    """The Data Plane API 3.4 or newer; "any" is the real one where the machine has it, else the stand-in."""
    if kind != "standin" and (real := _real()):
        return real
    if kind == "real":
        raise PartError("no dataplaneapi 3.4 or newer: put one on PATH or set GWCTL_DATAPLANEAPI to it")
    why = "asked for" if kind == "standin" else "no dataplaneapi on PATH, GWCTL_DATAPLANEAPI unset"
    return _standin(why)


def dataplaneapi_version(path: Path) -> str:
    """`3.4.2` of `HAProxy Data Plane API v3.4.2 …`."""
    return read_version(path, "--version", pattern=r"Data Plane API v?(\d+\.\d+(?:\.\d+)?)")


def _real() -> Part | None:
    if named := named_by("GWCTL_DATAPLANEAPI"):
        version = dataplaneapi_version(named)
        if not is_at_least(version, NEEDED):
            raise PartError(f"GWCTL_DATAPLANEAPI names Data Plane API {version}, but gwctl needs 3.4 or newer")
        say(NAME, f"using the real one, {short(named)} (version {version}, from GWCTL_DATAPLANEAPI)")
        return Part(named, version)
    if present := on_path("dataplaneapi"):
        version = dataplaneapi_version(present)
        if is_at_least(version, NEEDED):
            say(NAME, f"using the real one, {short(present)} (version {version}, from PATH)")
            return Part(present, version)
        raise PartError(
            f"{present} is Data Plane API {version}, but gwctl needs 3.4 or newer: "
            "update it, or take it off PATH to use the project's stand-in"
        )
    return None


def _standin(why: str) -> Part:
    if not (SOURCES / "go.mod").exists():
        raise PartError("tests/dataplane is missing: set GWCTL_DATAPLANEAPI to a real dataplaneapi")
    entry = cache_folder() / f"dataplane-standin-{platform.machine()}-{_fingerprint(SOURCES)}"
    program = entry / "dataplane-standin"
    with locked("dataplane-standin"):
        if program.exists():
            say(NAME, f"the project's stand-in ({why}), reusing {short(entry)}")
        else:
            say(NAME, f"the project's stand-in ({why}), building it from tests/dataplane …")
            with building(entry) as folder:
                _go_build(folder / program.name)
            say(NAME, f"ready: {short(program)}")
    os.utime(entry)
    drop_unused("dataplane-standin-*")
    return Part(program, "3.4", "standin")


def _fingerprint(sources: Path) -> str:
    """A hash of every source file, so that a changed stand-in is built anew and clones share a build."""
    digest = hashlib.sha256()
    for file in sorted(sources.rglob("*")):
        if file.is_file() and not file.name.endswith("_test.go") and not file.name.startswith("."):
            digest.update(f"{file.relative_to(sources)}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _go_build(program: Path) -> None:
    if not (go := shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")):
        raise PartError("Go is not on PATH, and the project's stand-in is written in it: install Go")
    # go prints what it downloads on standard error, which is our progress
    done = subprocess.run(
        [go, "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "."],
        cwd=SOURCES,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"},
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise PartError("go build of tests/dataplane failed (its message is above)")
