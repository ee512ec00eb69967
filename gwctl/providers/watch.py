"""Watches the files below a path, through any symbolic links, and says which changed.

In: a path. Out: the files that changed, or that everything must be looked at again. The surprising fact: a
file counts as changed when its writer closes it or renames it into place. So half-written files are not met,
and nothing is waited for: the kernel tells in a fraction of a millisecond. Names that begin with a dot are
left out, as in mounts of ConfigMaps, where the visible names are links to them.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from asyncinotify import Event, Inotify, Mask, Watch

from gwctl.providers.source import SourceError

SUFFIXES = (".yaml", ".yml", ".json")
ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What the system says where there is no file."""

_MASK = (
    Mask.CLOSE_WRITE | Mask.CREATE | Mask.DELETE | Mask.MOVE | Mask.ATTRIB | Mask.DELETE_SELF | Mask.MOVE_SELF
    | Mask.ONLYDIR
)  # fmt: skip
_LOST = Mask.Q_OVERFLOW | Mask.IGNORED | Mask.UNMOUNT | Mask.DELETE_SELF | Mask.MOVE_SELF
_LINKS = 40
_CACHED_EVENTS = 256


class FoundFile(NamedTuple):
    """A file below the root: where it is, which file it is, and whether all its changes were told so far."""

    location: Path
    identity: tuple[int, int]
    watched: bool


class Found(NamedTuple):
    """What a scan found, by relative path: the files, and why others or whole directories cannot be read."""

    files: dict[str, FoundFile]
    unreadable: dict[str, str]


class Changed(NamedTuple):
    """What happened. ``files`` were written, ``touched`` may be readable now; both are relative paths.

    ``rescan``: everything must be looked at. ``lost``: events are missing, so no file can be trusted to be as
    it was.
    """

    files: set[str]
    touched: set[str]
    rescan: bool
    lost: bool


class Tree:
    """A directory with all that is below it, or a single file."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def check(self) -> None:
        """Raise OSError when the root cannot be read."""
        if _is_directory(self.root):
            os.scandir(self.root).close()
        else:
            read_file(self.root)

    def locate(self, path: str) -> Path:
        """Give the place of a relative path."""
        return self.root if stat.S_ISREG(_mode(self.root)) else self.root / path

    def scan(self, watcher: Watcher | None = None) -> Found:
        """Find all manifest files, and watch what leads to them. Raises OSError when the root cannot be read."""
        found = Found({}, {})
        if watcher is None:
            self._scan_root(found, None)
            return found
        watcher.begin()
        watcher.follow(self.root)
        try:
            self._scan_root(found, watcher)
        finally:
            watcher.end()
        return found

    def _scan_root(self, found: Found, watcher: Watcher | None) -> None:
        if _is_directory(self.root):
            self._scan(self.root, "", _is_link(self.root), (), found, watcher)
            self.root.stat()  # what it held is not gone if it went itself meanwhile
        else:
            found.files[self.root.name] = _find(self.root.stat(), self.root, False)

    def _scan(
        self,
        directory: Path,
        relative: str,
        linked: bool,
        above: tuple[Path, ...],
        found: Found,
        watcher: Watcher | None,
    ) -> None:
        real = Path(os.path.realpath(directory))
        if real in above:
            return
        watched = watcher is not None and watcher.watch(real, relative)
        with os.scandir(directory) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            if entry.name.startswith("."):
                continue
            path = f"{relative}/{entry.name}" if relative else entry.name
            location = Path(entry.path)
            try:
                is_linked = linked or entry.is_symlink()
                if entry.is_symlink() and watcher is not None:
                    watcher.follow(location)
                if entry.is_dir():
                    self._scan(location, path, is_linked, (*above, real), found, watcher)
                elif entry.name.endswith(SUFFIXES):
                    found.files[path] = _find(location.stat(), location, watched and not is_linked)
            except ABSENT:
                continue
            except OSError as error:
                found.unreadable[path] = reason(error)


def is_absent(location: Path) -> bool:
    """Tell whether there is surely no file; one that cannot be looked at may be there."""
    try:
        return stat.S_ISDIR(location.stat().st_mode)
    except ABSENT:
        return True
    except OSError:
        return False


def read_file(location: Path) -> tuple[FoundFile, bytes]:
    """Read a regular file. Raises OSError; nothing that might never end, as a FIFO, is read."""
    _find(location.stat(), location, True)
    with open(location, "rb", opener=_open_at_once) as file:
        return _find(os.fstat(file.fileno()), location, True), file.read()


def reason(error: OSError) -> str:
    """Say why something cannot be read."""
    return (error.strerror or type(error).__name__).lower()


def _mode(path: Path, follow: bool = True) -> int:
    """Give what kind of thing there is, 0 when that cannot be told."""
    try:
        return path.stat(follow_symlinks=follow).st_mode
    except OSError:
        return 0


def _is_directory(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path))


def _is_link(path: Path) -> bool:
    return stat.S_ISLNK(_mode(path, follow=False))


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _find(status: os.stat_result, location: Path, watched: bool) -> FoundFile:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return FoundFile(location, (status.st_dev, status.st_ino), watched)


class Watcher:
    """Watches the directories of a tree and every link that leads to them. A context manager."""

    def __init__(self) -> None:
        try:
            self._inotify = Inotify(cache_size=_CACHED_EVENTS, sync_timeout=0)
        except OSError:
            raise SourceError("the limit fs.inotify.max_user_instances is reached") from None
        self._watches: dict[Path, Watch] = {}
        self._directories: dict[Path, set[str]] = {}
        self._names: dict[Path, set[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inotify.close()

    def begin(self) -> None:
        """Begin a new scan: what it does not name again is watched no more."""
        self._directories.clear()
        self._names.clear()

    def end(self) -> None:
        """End a scan."""
        for real in self._watches.keys() - self._directories.keys() - self._names.keys():
            watch = self._watches.pop(real)
            if any(watch.wd == other.wd for other in self._watches.values()):
                continue
            try:
                self._inotify.rm_watch(watch)
            except OSError:
                continue

    def watch(self, real: Path, relative: str) -> bool:
        """Watch a directory for its manifest files; tell whether it has been watched all along."""
        self._directories.setdefault(real, set()).add(relative)
        return self._add(real)

    def follow(self, path: Path) -> None:
        """Watch every link on the way to a path, and the place it leads to."""
        for directory, name in _links(path):
            self._names.setdefault(directory, set()).add(name)
            self._add(directory)

    def _add(self, real: Path) -> bool:
        old = self._watches.get(real)
        try:
            watch = self._inotify.add_watch(real, _MASK)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise SourceError(f"{real}: the limit fs.inotify.max_user_watches is reached") from None
            return False
        self._watches[real] = watch
        return old is not None and old.wd == watch.wd

    async def wait(self, seconds: float | None) -> Changed:
        """Wait for a change, for so long at most, and give all there are."""
        readable = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._inotify.fd, readable.set)
        try:
            async with asyncio.timeout(seconds):
                await readable.wait()
        except TimeoutError:
            return Changed(set(), set(), False, False)
        finally:
            loop.remove_reader(self._inotify.fd)
        return self._collect()

    def _collect(self) -> Changed:
        files: set[str] = set()
        touched: set[str] = set()
        rescan = lost = False
        real_of = {watch.wd: real for real, watch in self._watches.items()}
        for event in self._inotify:
            if event.mask & Mask.Q_OVERFLOW:
                rescan = lost = True
                continue
            watch = event.watch
            real = real_of.get(watch.wd) if watch is not None else None
            if watch is None or real is None:
                continue
            if event.mask & _LOST:
                if event.mask & Mask.IGNORED and self._watches.get(real) is watch:
                    del self._watches[real]
                rescan = True
            elif event.name is None or self._concerns_all(event, real, event.name.name):
                rescan = True
            elif not event.mask & Mask.ISDIR:
                changed = touched if event.mask & Mask.ATTRIB else files
                changed.update(self._paths(event, real, event.name.name))
        return Changed(files, touched, rescan, lost)

    def _concerns_all(self, event: Event, real: Path, name: str) -> bool:
        """Tell whether an event means more than that one file was written."""
        if _is_begun(event, real / name):
            return False
        if name in self._names.get(real, ()):
            return True
        if real not in self._directories or name.startswith("."):
            return False
        if event.mask & Mask.ISDIR:
            return True
        return bool(event.mask & (Mask.CREATE | Mask.MOVED_TO)) and _is_link(real / name)

    def _paths(self, event: Event, real: Path, name: str) -> Iterator[str]:
        if name.endswith(SUFFIXES) and not name.startswith(".") and not _is_begun(event, real / name):
            for relative in self._directories.get(real, ()):
                yield f"{relative}/{name}" if relative else name


def _is_begun(event: Event, path: Path) -> bool:
    """Tell whether a file was created that somebody is going to write and close."""
    if not event.mask & Mask.CREATE or event.mask & Mask.ISDIR:
        return False
    try:
        status = path.lstat()
    except OSError:
        return True
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _links(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield (real directory, name) of each link on the way to an absolute path, and of the file where it ends.

    A directory where it ends is watched itself, and says when it goes.
    """
    rest = path.parts[1:]
    real = Path(path.anchor)
    followed = 0
    while rest:
        name, *others = rest
        rest = tuple(others)
        if name == "..":
            real = real.parent
            continue
        here = real / name
        try:
            target = here.readlink()
        except OSError:
            if not rest and not _is_directory(here):
                yield real, name
            real = here
            continue
        yield real, name
        followed += 1
        if followed > _LINKS:
            return
        if target.is_absolute():
            real, rest = Path(target.anchor), (*target.parts[1:], *rest)
        else:
            rest = (*target.parts, *rest)
