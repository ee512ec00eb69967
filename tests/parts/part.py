"""A program that was found or made, and how its version is read."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.parts.cache import PartError

Kind = Literal["real", "standin"]


@dataclass(frozen=True)
class Part:
    """A program on this machine. `kind` is "standin" for the project's own Data Plane API server only."""

    path: Path
    version: str
    kind: Kind = "real"


def read_version(path: Path, *arguments: str, pattern: str) -> str:
    """The version that a program prints, found by the first group of `pattern`."""
    try:
        done = subprocess.run(
            [path, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PartError(f"{path} does not run: {error}") from error
    found = re.search(pattern, done.stdout + done.stderr)
    if not found:
        tail = (done.stdout + done.stderr).strip()[-300:]
        raise PartError(f"{path} {' '.join(arguments)} prints no version (exit status {done.returncode}): {tail}")
    return found[1]


def is_at_least(version: str, wanted: tuple[int, ...]) -> bool:
    """Compare `3.4.7` with `(3, 4)` number by number."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[: len(wanted)]) >= wanted


def named_by(variable: str) -> Path | None:
    """The program that an environment variable names; `PartError` when it names none."""
    if not (value := os.environ.get(variable)):
        return None
    if not (found := shutil.which(value)):
        raise PartError(f"{variable} names {value}, which is not an executable file")
    return Path(found).absolute()


def on_path(name: str) -> Path | None:
    """The program of that name on PATH or among the system's own programs."""
    found = shutil.which(
        name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    )
    return Path(found).absolute() if found else None
