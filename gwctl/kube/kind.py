"""A kind of object as the API server serves it: its group, versions and paths."""

from __future__ import annotations

import re
from dataclasses import dataclass

_VERSION = re.compile(r"v([0-9]+)(?:(alpha|beta)([0-9]+))?")
_STABILITY = {"alpha": 0, "beta": 1, None: 2}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. ``group`` is empty for the core group; ``versions``: those that gwctl can read.

    ``page``: how many objects are listed at once; fewer where they are large, since decoding holds up all else.
    """

    name: str
    plural: str
    group: str = ""
    versions: frozenset[str] = frozenset({"v1"})
    namespaced: bool = True
    page: int = 500

    def path(self, version: str, namespace: str = "", name: str = "") -> str:
        """Give the path of the collection, of a namespace's part of it, or of an object."""
        parts = ["/apis", self.group, version] if self.group else ["/api", version]
        parts += ["namespaces", namespace] if self.namespaced and namespace else []
        parts += [self.plural, name] if name else [self.plural]
        return "/".join(parts)


def newest(versions: frozenset[str]) -> str | None:
    """Give the version to prefer: a stable one before beta before alpha, a higher one before a lower one."""
    return max((version for version in versions if _VERSION.fullmatch(version)), key=_rank, default=None)


def _rank(version: str) -> tuple[int, int, int]:
    match = _VERSION.fullmatch(version)
    assert match is not None
    return _STABILITY[match[2]], int(match[1]), int(match[3] or 0)
