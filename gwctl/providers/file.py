"""A directory of manifests as a source: the way to try gwctl without a cluster.

In: files. Out: batches. The surprising fact: an object or file that no longer parses keeps its last good
version, as an API server would refuse such an update; only deleting it takes it away. A file that is missing
for an instant, as when an editor replaces it, is not deleted.
"""

from __future__ import annotations

import asyncio
import os
import time
from bisect import insort
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from gwctl.api.parse import Invalid, Resource, fall_back
from gwctl.api.ref import Ref
from gwctl.providers.manifest import Manifests, read_manifests
from gwctl.providers.source import Batch, SourceError
from gwctl.providers.watch import ABSENT, Changed, FoundFile, Tree, Watcher, is_absent, read_file, reason

GRACE = 0.05
"""Seconds for which a file may be missing without being deleted."""

_ABSENT_ROOT_POLL = 0.5
_NOTHING = Manifests({}, ())


class FileSource:
    """Manifests below ``path``: a directory, searched recursively, or a single file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._tree = Tree(self._path)
        self._merged = _Merged()
        self._seen: dict[str, FoundFile] = {}
        self._unreadable: set[str] = set()
        self._missing: dict[str, float] = {}
        self._root_gone = False

    def read(self) -> Batch:
        """Read everything, once. Raises `SourceError` when the path is missing."""
        return self._read_all(None)

    async def batches(self) -> AsyncIterator[Batch]:
        """See `Source.batches`."""
        with Watcher() as watcher:
            yield await asyncio.to_thread(self._read_all, watcher)
            while True:
                self._apply(await watcher.wait(self._timeout()), watcher)
                batch = self._merged.take()
                if batch is not None:
                    yield batch

    def _read_all(self, watcher: Watcher | None) -> Batch:
        try:
            self._tree.check()
        except FileNotFoundError:
            raise SourceError(f"{self._path}: no such file or directory") from None
        except OSError as error:
            raise SourceError(f"{self._path}: {reason(error)}") from None
        self._rescan(watcher, lost=True)
        return self._merged.take() or Batch({}, ())

    def _timeout(self) -> float | None:
        if self._root_gone:
            return _ABSENT_ROOT_POLL
        if not self._missing:
            return None
        return max(0.0, min(self._missing.values()) - time.monotonic())

    def _apply(self, changed: Changed, watcher: Watcher) -> None:
        if changed.rescan or self._root_gone:
            self._rescan(watcher, changed.lost)
        for path in sorted(changed.files | (changed.touched & self._unreadable)):
            self._read(path, self._tree.locate(path))
        if not self._root_gone:
            self._drop_missing(time.monotonic())

    def _drop_missing(self, now: float) -> None:
        for path in [path for path, deadline in self._missing.items() if deadline <= now]:
            del self._missing[path]
            if is_absent(self._tree.locate(path)):
                self._seen.pop(path, None)
                self._unreadable.discard(path)
                self._merged.put(path, _NOTHING)

    def _rescan(self, watcher: Watcher | None, lost: bool) -> None:
        try:
            found = self._tree.scan(watcher)
        except OSError as error:
            self._root_gone = True
            self._merged.put_root_problem(self._gone(error))
            return
        if self._root_gone:
            self._root_gone = False
            self._missing.clear()
            self._merged.put_root_problem(())
        for path, file in found.files.items():
            seen = self._seen.get(path)
            # What is watched and still the same file has its own event when its writer is done with it.
            settled = file.watched and not lost and path not in self._unreadable
            if not settled or seen is None or seen.identity != file.identity:
                self._read(path, file.location)
            self._missing.pop(path, None)
        for path, why in found.unreadable.items():
            self._missing.pop(path, None)
            self._cannot_read(path, why)
        for path in (self._seen.keys() | self._unreadable) - found.files.keys() - found.unreadable.keys():
            if not any(path.startswith(f"{directory}/") for directory in found.unreadable):
                self._missing.setdefault(path, time.monotonic() + GRACE)
        self._seen.update(found.files)

    def _gone(self, error: OSError) -> tuple[Invalid, ...]:
        what = "is gone" if isinstance(error, ABSENT) else f"cannot be read: {reason(error)}"
        return (Invalid(Ref("File", "", str(self._path)), "", f"{what}; what was read from it stays in use"),)

    def _read(self, path: str, location: Path) -> None:
        previous = self._merged.files.get(path)
        try:
            file, data = read_file(location)
        except ABSENT:
            if path in self._seen or path in self._unreadable:
                self._missing.setdefault(path, time.monotonic() + GRACE)
            return
        except OSError as error:
            self._cannot_read(path, reason(error))
            return
        self._unreadable.discard(path)
        self._missing.pop(path, None)
        self._seen[path] = file
        if not data.strip() and previous is not None and previous.resources:
            self._keep(path, "is empty; what it held before stays in use")
        else:
            self._merged.put(path, read_manifests(data, path, previous))

    def _cannot_read(self, path: str, why: str) -> None:
        self._unreadable.add(path)
        self._keep(path, f"cannot be read: {why}")

    def _keep(self, path: str, message: str) -> None:
        invalid = Invalid(Ref("File", "", path), "", message)
        self._merged.put(path, Manifests({}, (invalid,), unclear=True))


class _Merged:
    """All files' objects as one set, and what of it has changed since it was taken last.

    An object that several files define is the first file's, in the order of their paths.
    """

    def __init__(self) -> None:
        self.files: dict[str, Manifests] = {}
        self._paths: dict[Ref, list[str]] = {}
        self._current: dict[Ref, Resource] = {}
        self._changes: dict[Ref, Resource | None] = {}
        self._root_problem: tuple[Invalid, ...] = ()
        self._told: tuple[Invalid, ...] | None = None
        self._faulty: set[str] = set()
        self._disputed: set[Ref] = set()

    def put_root_problem(self, invalid: tuple[Invalid, ...]) -> None:
        self._root_problem = invalid

    def put(self, path: str, new: Manifests) -> None:
        """Take a file's new content; what of it is broken keeps its last good version."""
        old = self.files.get(path, _NOTHING)
        kept = dict(new.stand_ins) | {
            ref: fall_back(new.stand_ins.get(ref), resource) or resource
            for ref, resource in old.resources.items()
            if ref not in new.resources and (new.unclear or ref in new.broken)
        }
        if kept:
            resources = {**kept, **new.resources}
            new = Manifests(resources, new.invalid, new.broken, new.unclear, new.documents, new.stand_ins)
        if new.invalid:
            self._faulty.add(path)
        else:
            self._faulty.discard(path)
        if new is _NOTHING:
            self.files.pop(path, None)
        else:
            self.files[path] = new
        for ref in old.resources.keys() - new.resources.keys():
            self._paths[ref].remove(path)
            if not self._paths[ref]:
                del self._paths[ref]
        for ref in new.resources.keys() - old.resources.keys():
            insort(self._paths.setdefault(ref, []), path)
        self._settle(old.resources.keys() | new.resources.keys())

    def _settle(self, refs: Iterable[Ref]) -> None:
        for ref in sorted(refs):
            paths = self._paths.get(ref, ())
            if len(paths) > 1:
                self._disputed.add(ref)
            else:
                self._disputed.discard(ref)
            resource = self.files[paths[0]].resources[ref] if paths else None
            if resource is None:
                if self._current.pop(ref, None) is not None:
                    self._changes[ref] = None
            elif self._current.get(ref) != resource:
                self._current[ref] = self._changes[ref] = resource

    def take(self) -> Batch | None:
        """Give what has changed, None when nothing has."""
        invalid = self._root_problem + tuple(self._invalid())
        if not self._changes and invalid == self._told:
            return None
        batch = Batch(self._changes, invalid)
        self._changes, self._told = {}, invalid
        return batch

    def _invalid(self) -> Iterable[Invalid]:
        for path in sorted(self._faulty):
            yield from self.files[path].invalid
        for ref in sorted(self._disputed):
            first, *others = self._paths[ref]
            for path in others:
                yield Invalid(ref, "", f"is defined in {first} and in {path}; the first one counts")
