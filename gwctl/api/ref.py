"""The identity of a Kubernetes object: kind, namespace and name."""

from __future__ import annotations

from typing import NamedTuple


class Ref(NamedTuple):
    """Names one object. ``namespace`` is empty for cluster-scoped kinds. The group is implied by the kind."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"
