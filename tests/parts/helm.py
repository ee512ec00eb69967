"""Helm for the tests of the chart: the machine's own, or built from its Go module into the cache.

One pinned hash is enough for a build that is the same everywhere: it covers the module's own `go.sum`, which covers
all others.
"""

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

from tests.parts.cache import PartError, building, cache_folder, drop_unused, locked, say, short
from tests.parts.part import is_at_least, named_by, on_path, read_version

NAME = "helm"
NEEDED = (3, 18)
MODULE = "helm.sh/helm/v4"
VERSION = "4.3.1"
SUM = "h1:UndCoLe9UPmNoL7IvWzaUXveL7T5t/ijoorEmgJdI9g="


def find_helm() -> Path:
    """Helm 3.18 or newer; `PartError` says what to do when there is none."""
    if named := named_by("GWCTL_HELM"):
        version = helm_version(named)
        if not is_at_least(version, NEEDED):
            raise PartError(f"GWCTL_HELM names Helm {version}, but the chart's tests need 3.18 or newer")
        say(NAME, f"using {short(named)} (Helm {version}, from GWCTL_HELM)")
        return named
    if present := on_path("helm"):
        version = helm_version(present)
        if is_at_least(version, NEEDED):
            say(NAME, f"using {short(present)} (Helm {version}, from PATH)")
            return present
        say(NAME, f"{present} is Helm {version}, older than 3.18, so it is left alone")
    return _from_module()


def helm_version(path: Path) -> str:
    """`4.3.1` of `v4.3.1`."""
    return read_version(path, "version", "--template", "{{.Version}}", pattern=r"v(\d+\.\d+(?:\.\d+)?)")


def _from_module() -> Path:
    entry = cache_folder() / f"helm-{VERSION}-{platform.machine()}"
    program = entry / "helm"
    with locked(NAME):
        if program.exists():
            say(NAME, f"reusing {short(entry)}")
        else:
            say(NAME, f"building {VERSION} from its Go module, once for this machine (some minutes) …")
            with building(entry) as folder:
                _go_build(folder / program.name)
            say(NAME, f"ready: {short(program)}")
    os.utime(entry)
    drop_unused("helm-*")
    return program


def _go_build(program: Path) -> None:
    if not (go := shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")):
        raise PartError("Go is not on PATH, and Helm is built with it: install Go, or put Helm 3.18 or newer on PATH")
    env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    # go prints what it downloads on standard error, which is our progress
    done = subprocess.run(
        [go, "mod", "download", "-json", f"{MODULE}@v{VERSION}"],
        cwd=program.parent,
        env=env | {"GOFLAGS": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise PartError(f"{MODULE} cannot be downloaded: {_error_of(done.stdout)}")
    module = json.loads(done.stdout)
    if module["Sum"] != SUM:
        raise PartError(f"{MODULE} {VERSION} has the hash {module['Sum']}, but {SUM} is known")
    flags = f"-s -w -X {MODULE}/internal/version.version=v{VERSION}"
    built = subprocess.run(
        [go, "build", "-trimpath", "-ldflags", flags, "-o", program, "./cmd/helm"],
        cwd=module["Dir"],
        env=env,
        stdin=subprocess.DEVNULL,
    )
    if built.returncode:
        raise PartError("go build of Helm failed (its message is above)")


def _error_of(answer: str) -> str:
    """What `go mod download -json` says is wrong."""
    try:
        return str(json.loads(answer)["Error"])
    except (ValueError, KeyError):
        return "go mod download failed (its message is above)"
