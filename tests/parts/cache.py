"""The cache folder: `$GWCTL_CACHE`, else `$XDG_CACHE_HOME/gwctl`, else `~/.cache/gwctl`, shared between
clones.

An entry is a folder that appears by one rename when it is complete, under a lock file, so two runs at once
build it once and a killed run leaves nothing that looks complete.
"""

import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STALE_AFTER_SECONDS = 24 * 3600
UNUSED_AFTER_SECONDS = 30 * 24 * 3600


class PartError(Exception):
    """A program that is needed can neither be found nor made; one sentence that says what to do."""


def say(part: str, message: str) -> None:
    """One line of progress on standard error, so that it stands above what the tests print."""
    print(f"{part}: {message}", file=sys.stderr, flush=True)


def cache_folder() -> Path:
    """The cache folder, made when it is missing."""
    if named := os.environ.get("GWCTL_CACHE"):
        folder = Path(named)
    elif xdg := os.environ.get("XDG_CACHE_HOME"):
        folder = Path(xdg) / "gwctl"
    else:
        folder = Path.home() / ".cache" / "gwctl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PartError(f"the cache folder {folder} cannot be made ({error}): set GWCTL_CACHE") from error
    return folder.absolute()


def short(path: Path) -> str:
    """A path as a person reads it: from the current folder, else with `~` for the home folder, else whole."""
    for start, shown in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_relative_to(start):
            return f"{shown}{path.relative_to(start)}"
    return str(path)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock of that name; says so when it must wait."""
    with (cache_folder() / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(name, "another run is preparing this, waiting for it …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def building(entry: Path) -> Iterator[Path]:
    """A temporary folder that becomes `entry` when the block ends without an error. Needs the lock."""
    _drop_stale(entry.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        shutil.rmtree(entry, ignore_errors=True)
        temporary.rename(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def drop_unused(pattern: str) -> None:
    """Remove entries that no run has used for a month; a run marks the entry that it uses by its time."""
    for entry in cache_folder().glob(pattern):
        if entry.is_dir() and time.time() - entry.stat().st_mtime > UNUSED_AFTER_SECONDS:
            shutil.rmtree(entry, ignore_errors=True)


def _drop_stale(folder: Path) -> None:
    """Remove what runs that were killed have left; younger folders may belong to a run that goes on."""
    for left in folder.glob(".*.*"):
        if left.is_dir() and time.time() - left.stat().st_mtime > STALE_AFTER_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
